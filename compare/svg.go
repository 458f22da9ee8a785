//go:build linux

package main

import (
	"bytes"
	"fmt"
	"html/template"
	"os"
	"slices"
)

// A svgBar is a bar of the picture.
type svgBar struct {
	Y      int
	Label  string
	Length float64
	Text   string // beside it
	Broken bool   // it is longer than the panel
}

const (
	rowHeight   = 26
	panelLength = 250
)

// bars returns a bar for each row that has been measured. Bars that are more than three
// times as long as the next shorter one, at the long end, are drawn broken, because the others
// would be too short.
func bars(rows []row, name string) (all []svgBar) {
	var values []float64
	for _, r := range rows {
		if len(r.rounds) > 0 {
			value := median(r.rounds)[name]
			values = append(values, value)
			all = append(all, svgBar{Y: len(all) * rowHeight, Label: r.design.name, Text: fmt.Sprintf("%.0f", value)})
		}
	}
	sorted := slices.Sorted(slices.Values(values))
	longest := 0.0
	if n := len(sorted); n > 0 {
		longest = sorted[n-1]
		for ; n > 1 && sorted[n-1] > 3*sorted[n-2]; n-- {
			longest = sorted[n-2] * 1.2
		}
	}
	for i, value := range values {
		all[i].Broken = value > longest
		if longest > 0 {
			all[i].Length = panelLength * min(value, longest) / longest
		}
	}
	return all
}

var drawing = template.Must(template.New("svg").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {{.Height}}" width="760" height="{{.Height}}" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="Connections per second and CPU time of each server">
<style>
text { fill: #333 } .muted { fill: #666 } .rate { fill: #2f6fb3 } .cpu { fill: #b3622f } .gap { stroke: #fff; stroke-width: 3 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .muted { fill: #aaa } .rate { fill: #6aa5e3 } .cpu { fill: #e0965f } .gap { stroke: #0d1117 } }
</style>
<text x="80" y="20" font-weight="bold">connections per second</text>
<text x="430" y="20" font-weight="bold">CPU time of a connection, microseconds</text>
{{range .Rates}}<text x="72" y="{{.Y}}" dy="48" text-anchor="end">{{.Label}}</text>
<rect class="rate" x="80" y="{{.Y}}" width="{{printf "%.1f" .Length}}" height="18" transform="translate(0 34)" rx="2"/>
<text class="muted" x="{{printf "%.1f" .Length}}" y="{{.Y}}" dx="86" dy="48" font-size="12">{{.Text}}</text>
{{end}}{{range .Times}}<rect class="cpu" x="430" y="{{.Y}}" width="{{printf "%.1f" .Length}}" height="18" transform="translate(0 34)" rx="2"/>
{{if .Broken}}<path class="gap" d="M0 -2 l-8 22" transform="translate(620 {{.Y}}) translate(0 34)"/>
{{end}}<text class="muted" x="{{printf "%.1f" .Length}}" y="{{.Y}}" dx="436" dy="48" font-size="12">{{.Text}}</text>
{{end}}<text class="muted" x="80" y="{{.Height}}" dy="-10" font-size="12">{{.Load}}</text>
</svg>
`))

// writeSVG writes a picture of the rates and CPU times, for light and for dark pages.
func writeSVG(path string, rows []row) error {
	rates := bars(rows, "connections_per_second")
	var text bytes.Buffer
	err := drawing.Execute(&text, map[string]any{
		"Height": len(rates)*rowHeight + 70,
		"Rates":  rates,
		"Times":  bars(rows, "cpu_us_per_connection"),
		"Load":   rows[0].load.String(),
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path, text.Bytes(), 0o666)
}
