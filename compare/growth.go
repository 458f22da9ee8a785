//go:build linux

package main

import (
	"fmt"
	"strings"
)

// A panel is a figure that grows, a part of the table or of the picture.
type panel struct {
	name, title string
	decimals    int
}

// A growth is what grows with the number of clients, or of idle connections.
type growth struct {
	idle    bool // with the number of idle connections
	numbers []int
	panels  []panel
}

func (g growth) with() string {
	if g.idle {
		return "idle connections"
	}
	return "clients"
}

// growthOf returns what grows with these loads.
func growthOf(loads []load) growth {
	g := growth{panels: []panel{{"connections_per_second", "conn/s", 0}, {"p99_ms", "p99 ms", 1}}}
	if g.idle = loads[0].Idle != loads[len(loads)-1].Idle; g.idle {
		g.panels = []panel{{"cpu_us_per_connection", "CPU time of a connection in us", 0}}
	}
	for _, l := range loads {
		if g.idle {
			g.numbers = append(g.numbers, l.Idle)
		} else {
			g.numbers = append(g.numbers, l.Children)
		}
	}
	return g
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
	g := growthOf(loads)
	list := strings.Trim(strings.ReplaceAll(fmt.Sprint(g.numbers), " ", ", "), "[]")
	clients, idle := list, fmt.Sprint(loads[0].Idle)
	if g.idle {
		clients, idle = fmt.Sprint(loads[0].Children), list
	}
	text := loads[0].describe(clients, idle) + fmt.Sprintf("; rounds: %d\n\n%40s", rounds, "")
	under := fmt.Sprintf("%-9s  %-27s ", "server", "design")
	for _, p := range g.panels {
		text += fmt.Sprintf(" %*s", len(g.numbers)*(cell+1)-1, p.title)
		for _, n := range g.numbers {
			under += fmt.Sprintf(" %*d", cell, n)
		}
	}
	if g.idle {
		text += "  memory of an"
		under += "   idle one, B"
	}
	return text + "\n" + under + "\n"
}

// growthLine is the line of a server in that table. At the end it says why a number is missing.
func growthLine(rows []row) string {
	g := growthOf(loadsOf(rows))
	line, reason, memory := rows[0].design.label(), "", "-"
	for _, r := range rows {
		if r.err != nil {
			reason = "  " + r.err.Error()
		}
		if bytes, known := median(r.rounds)["bytes_per_idle"]; known {
			memory = fmt.Sprintf("%.0f", max(0, bytes)) // of the most connections
		}
	}
	for _, p := range g.panels {
		for _, r := range rows {
			text := "-"
			if value, known := median(r.rounds)[p.name]; known && r.err == nil {
				text = fmt.Sprintf("%.*f", p.decimals, value)
			}
			line += fmt.Sprintf(" %*s", cell, text)
		}
	}
	if g.idle {
		line += fmt.Sprintf("  %12s", memory)
	}
	return line + reason + "\n"
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
