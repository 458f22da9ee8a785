package main

import (
	"html/template"
	"os"
	"slices"
)

// A bar of the picture: how long it is, and what stands beside it.
type svgBar struct {
	Y      int
	Label  string
	Length float64
	Text   string
	Broken bool // is longer than the panel
}

const (
	rowHeight   = 26
	panelLength = 250
)

// bars returns a bar for each row that has been measured. A bar that is more than
// three times as long as the second longest is drawn broken, lest the others vanish.
func bars(rows []row, of func(figures) figure, decimals int) (all []svgBar) {
	var values []figure
	for _, r := range rows {
		if len(r.rounds) > 0 {
			v := of(median(r.rounds))
			values = append(values, v)
			all = append(all, svgBar{Y: len(all) * rowHeight, Label: r.design.name, Text: v.text(decimals)})
		}
	}
	if len(values) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(values))
	longest := sorted[len(sorted)-1]
	if len(sorted) > 1 && longest > 3*sorted[len(sorted)-2] {
		longest = sorted[len(sorted)-2] * 1.2
	}
	for i, v := range values {
		all[i].Broken = v > longest
		if longest > 0 {
			all[i].Length = panelLength * float64(min(v, longest)/longest)
		}
	}
	return all
}

var picture = template.Must(template.New("svg").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {{.Height}}" width="760" height="{{.Height}}" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="Connections per second and CPU time of each server">
<style>
text { fill: #333 } .muted { fill: #666 } .rate { fill: #2f6fb3 } .cpu { fill: #b3622f } .gap { stroke: #fff; stroke-width: 3 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .muted { fill: #aaa } .rate { fill: #6aa5e3 } .cpu { fill: #e0965f } .gap { stroke: #0d1117 } }
</style>
<text x="80" y="20" font-weight="bold">connections per second</text>
<text x="430" y="20" font-weight="bold">CPU time of a connection, microseconds</text>
{{range .Rates}}<text x="72" y="{{.Y}}" dy="48" text-anchor="end">{{.Label}}</text>
<rect class="rate" x="80" y="{{.Y}}" width="{{.Length}}" height="18" transform="translate(0 34)" rx="2"/>
<text class="muted" x="{{.Length}}" y="{{.Y}}" dx="86" dy="48" font-size="12">{{.Text}}</text>
{{end}}{{range .Times}}<rect class="cpu" x="430" y="{{.Y}}" width="{{.Length}}" height="18" transform="translate(0 34)" rx="2"/>
{{if .Broken}}<path class="gap" d="M0 -2 l-8 22" transform="translate(620 {{.Y}}) translate(0 34)"/>
{{end}}<text class="muted" x="{{.Length}}" y="{{.Y}}" dx="436" dy="48" font-size="12">{{.Text}}</text>
{{end}}<text class="muted" x="80" y="{{.Height}}" dy="-10" font-size="12">{{.Load}}</text>
</svg>
`))

// writeSVG writes a picture of the rates and CPU times, which can be read on light and
// on dark pages.
func writeSVG(path string, rows []row, l load) error {
	rates := bars(rows, func(f figures) figure { return f.Rate }, 0)
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := picture.Execute(file, map[string]any{
		"Height": len(rates)*rowHeight + 70,
		"Rates":  rates,
		"Times":  bars(rows, func(f figures) figure { return f.CPU }, 0),
		"Load":   l.String(),
	}); err != nil {
		return err
	}
	return file.Close()
}
