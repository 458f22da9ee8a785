//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"html/template"
	"math"
	"os"
	"slices"
)

const (
	plotWidth, plotHeight = 320.0, 260.0
	labelHeight           = 15.0
)

// A line is the curve of a server in a panel of the picture.
type line struct {
	Label, Points string
	LabelY, EndY  float64
	Color         int // of the server; its peers have the same one
	Dashed        bool
}

type tick struct {
	At   float64
	Text string
}

type plot struct {
	X              float64
	Title          string
	Lines          []line
	Across, Upward []tick
}

// logarithmic returns the place of a value between two others, from 0 to 1.
func logarithmic(value, least, most float64) float64 {
	return math.Log(value/least) / math.Log(most/least)
}

// newPlot draws a panel. Zero has no place on a logarithmic axis. It is drawn at a third of the smallest
// number.
func newPlot(p panel, numbers []int, rows []row) plot {
	at := make([]float64, len(numbers))
	for i, n := range numbers {
		at[i] = float64(n)
		if n == 0 {
			at[i] = float64(numbers[i+1]) / 3
		}
	}
	least, most := math.Inf(1), 0.0
	for _, r := range rows {
		if value := median(r.rounds)[p.name]; value > 0 && r.err == nil {
			least, most = min(least, value), max(most, value)
		}
	}
	least, most = least/1.2, most*1.2
	drawn := plot{Title: p.title}
	for i, x := range at {
		drawn.Across = append(drawn.Across, tick{plotWidth * logarithmic(x, at[0], at[len(at)-1]), fmt.Sprint(numbers[i])})
	}
	for power := math.Pow(10, math.Floor(math.Log10(least))); power <= most; power *= 10 {
		for _, factor := range []float64{1, 3} {
			if value := power * factor; value >= least && value <= most {
				drawn.Upward = append(drawn.Upward, tick{plotHeight * (1 - logarithmic(value, least, most)), fmt.Sprintf("%.6g", value)})
			}
		}
	}
	color := -1
	for group := range slices.Chunk(rows, len(numbers)) {
		d := group[0].design
		l := line{Label: d.name, Dashed: d.of != ""}
		if d.of == "" {
			color++
		} else {
			l.Label = d.name + " " + d.words
		}
		l.Color = color % 8
		for i, r := range group {
			if value := median(r.rounds)[p.name]; value > 0 && r.err == nil {
				l.EndY = plotHeight * (1 - logarithmic(value, least, most))
				l.Points += fmt.Sprintf("%.1f,%.1f ", drawn.Across[i].At, l.EndY)
			}
		}
		if l.Points != "" {
			drawn.Lines = append(drawn.Lines, l)
		}
	}
	// A label is beside the end of its line, or as near as the others allow.
	slices.SortFunc(drawn.Lines, func(a, b line) int { return int(1000 * (a.EndY - b.EndY)) })
	above := -labelHeight
	for i := range drawn.Lines {
		above = max(drawn.Lines[i].EndY, above+labelHeight)
		drawn.Lines[i].LabelY = above
	}
	for i, below := len(drawn.Lines)-1, plotHeight+labelHeight; i >= 0; i-- {
		below = min(drawn.Lines[i].LabelY, below-labelHeight)
		drawn.Lines[i].LabelY = below
	}
	return drawn
}

// writeGrowthSVG draws how the figures grow. Both axes are logarithmic.
func writeGrowthSVG(path string, rows []row) error {
	count := 1
	for count < len(rows) && rows[count].design == rows[0].design {
		count++
	}
	g := growthOf(loadsOf(rows[:count]))
	if !slices.IsSorted(g.numbers) || g.numbers[0] == g.numbers[len(g.numbers)-1] {
		return errors.New("to draw it, give the numbers in order")
	}
	picture := struct {
		What   string
		Width  float64
		Height float64
		Plots  []plot
	}{What: g.with(), Width: float64(len(g.panels)) * 500, Height: plotHeight + 90}
	for i, p := range g.panels {
		drawn := newPlot(p, g.numbers, rows)
		drawn.X = 60 + float64(i)*500
		picture.Plots = append(picture.Plots, drawn)
	}
	var buf bytes.Buffer
	if err := growthDrawing.Execute(&buf, picture); err != nil {
		return err
	}
	return os.WriteFile(path, buf.Bytes(), 0o666)
}

var growthDrawing = template.Must(template.New("growth").Parse(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{.Width}} {{.Height}}" width="{{.Width}}" height="{{.Height}}" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="{{range $i, $p := .Plots}}{{if $i}}, {{end}}{{$p.Title}}{{end}}, by the number of {{.What}}">
<style>
text { fill: #333 } .muted { fill: #666 } .grid { stroke: #ddd } polyline { fill: none; stroke-width: 2 } .peer { stroke-dasharray: 5 4; stroke-width: 1.5 } .tie { stroke-width: 0.7 }
.c0 { stroke: #2f6fb3 } .c1 { stroke: #b3622f } .c2 { stroke: #2f8f4e } .c3 { stroke: #8a4fb0 } .c4 { stroke: #b03a5b } .c5 { stroke: #7a6a1e } .c6 { stroke: #1e7f86 } .c7 { stroke: #666 }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .muted { fill: #aaa } .grid { stroke: #333 }
.c0 { stroke: #6aa5e3 } .c1 { stroke: #e0965f } .c2 { stroke: #64c183 } .c3 { stroke: #bf8ae2 } .c4 { stroke: #e57795 } .c5 { stroke: #c9b758 } .c6 { stroke: #58bcc4 } .c7 { stroke: #aaa } }
</style>
{{$what := .What}}{{range .Plots}}<g transform="translate({{.X}} 40)">
<text y="-18" font-weight="bold">{{.Title}}</text>
{{range .Upward}}<line class="grid" x1="0" x2="320" y1="{{printf "%.1f" .At}}" y2="{{printf "%.1f" .At}}"/><text class="muted" x="-8" y="{{printf "%.1f" .At}}" dy="4" text-anchor="end">{{.Text}}</text>
{{end}}{{range .Across}}<text class="muted" x="{{printf "%.1f" .At}}" y="280" text-anchor="middle">{{.Text}}</text>
{{end}}<text class="muted" x="320" y="300" text-anchor="end">{{$what}}</text>
{{range .Lines}}<polyline class="c{{.Color}}{{if .Dashed}} peer{{end}}" points="{{.Points}}"/><line class="c{{.Color}} tie" x1="324" x2="334" y1="{{printf "%.1f" .EndY}}" y2="{{printf "%.1f" .LabelY}}"/><text x="338" y="{{printf "%.1f" .LabelY}}" dy="4">{{.Label}}</text>
{{end}}</g>
{{end}}</svg>
`))
