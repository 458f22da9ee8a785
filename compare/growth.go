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
	"strings"
)

// A panel shows how a figure grows with the number of clients, or of idle connections.
type panel struct {
	name, title string
	decimals    int
}

// panels returns what grows with these loads, and the numbers with which it does.
func panels(loads []load) (all []panel, what string, numbers []int) {
	all, what = []panel{{"connections_per_second", "conn/s", 0}, {"p99_ms", "p99 ms", 1}}, "clients"
	number := func(l load) int { return l.Children }
	if loads[0].Idle != loads[len(loads)-1].Idle {
		all, what = []panel{{"cpu_us_per_connection", "CPU time of a connection in us", 0}}, "idle connections"
		number = func(l load) int { return l.Idle }
	}
	for _, l := range loads {
		numbers = append(numbers, number(l))
	}
	return all, what, numbers
}

func loadsOf(rows []row) (loads []load) {
	for _, r := range rows {
		loads = append(loads, r.load)
	}
	return loads
}

const cell = 8 // the width of a number in the table

// growthHeader is the head of a table with a column for each load.
func growthHeader(loads []load, rounds int) string {
	all, what, numbers := panels(loads)
	list := strings.Trim(strings.ReplaceAll(fmt.Sprint(numbers), " ", ", "), "[]")
	clients, idle := list, fmt.Sprint(loads[0].Idle)
	if what != "clients" {
		clients, idle = fmt.Sprint(loads[0].Children), list
	}
	text := loads[0].describe(clients, idle) + fmt.Sprintf("; rounds: %d\n\n%40s", rounds, "")
	under := fmt.Sprintf("%-9s  %-27s ", "server", "design")
	for _, p := range all {
		text += fmt.Sprintf(" %*s", len(numbers)*(cell+1)-1, p.title)
		for _, n := range numbers {
			under += fmt.Sprintf(" %*d", cell, n)
		}
	}
	if what != "clients" {
		text += "  memory of an"
		under += "   idle one, B"
	}
	return text + "\n" + under + "\n"
}

// growthLine is the line of a server in that table. At the end it says why a number is missing.
func growthLine(rows []row) string {
	all, what, _ := panels(loadsOf(rows))
	line, reason, memory := rows[0].design.label(), "", "-"
	for _, p := range all {
		for _, r := range rows {
			text := "-"
			if value, known := median(r.rounds)[p.name]; known && r.err == nil {
				text = fmt.Sprintf("%.*f", p.decimals, value)
			}
			line += fmt.Sprintf(" %*s", cell, text)
			if r.err != nil {
				reason = r.err.Error()
			}
			if bytes, known := median(r.rounds)["bytes_per_idle"]; known {
				memory = fmt.Sprintf("%.0f", max(0, bytes)) // of the most connections
			}
		}
	}
	if what != "clients" {
		line += fmt.Sprintf("  %12s", memory)
	}
	if reason != "" {
		line += "  " + reason
	}
	return line + "\n"
}

// kernelLine says how much memory the kernel needs for an idle connection: the median of all.
func kernelLine(rows []row) string {
	var all []figures
	for _, r := range rows {
		if r.load.Idle >= 500 { // of fewer, the memory of something else may be more
			all = append(all, r.rounds...)
		}
	}
	if m := median(all); m["kernel_bytes_per_idle"] > 0 {
		return fmt.Sprintf("\nThe kernel needs %.0f bytes for both ends of an idle connection.\n", m["kernel_bytes_per_idle"])
	}
	return ""
}

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

// newPlot draws a panel. None, of idle connections, is drawn where a third of the fewest would be.
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
	all, what, numbers := panels(loadsOf(rows[:count]))
	if !slices.IsSorted(numbers) || numbers[0] == numbers[len(numbers)-1] {
		return errors.New("to draw it, give the numbers in order")
	}
	picture := struct {
		What   string
		Width  float64
		Height float64
		Plots  []plot
	}{What: what, Width: float64(len(all)) * 500, Height: plotHeight + 90}
	for i, p := range all {
		drawn := newPlot(p, numbers, rows)
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
