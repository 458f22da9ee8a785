package main

import (
	"fmt"
	"io"
	"strings"
)

// barWidth is the width of the longest bar, in characters.
const barWidth = 12

// bar returns a bar for f, where best has the longest one.
func bar(f, best figure) string {
	if !f.known() || best <= 0 {
		return strings.Repeat(" ", barWidth)
	}
	eighths := int(f / best * barWidth * 8)
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return text + strings.Repeat(" ", barWidth-len([]rune(text)))
}

// writeTable prints a line for each server, with the median of its rounds, or with
// the reason why it has none.
func writeTable(w io.Writer, rows []row, l load, rounds int) error {
	const form = "%-9s  %-27s %7s %s %7s %9s %6s %7s %10s %8s  %s\n"
	var text strings.Builder
	complete := 0
	for _, r := range rows {
		complete = max(complete, len(r.rounds))
	}
	fmt.Fprintf(&text, "%v; rounds: %d", l, complete)
	if complete < rounds {
		fmt.Fprintf(&text, " of %d", rounds)
	}
	text.WriteString("\n\n")
	fmt.Fprintf(&text, form, "server", "design", "conn/s", strings.Repeat(" ", barWidth),
		"CPU us", "switches", "MiB", "p99 ms", "processes", "threads", "spread")
	best := figure(0)
	for _, r := range rows {
		if len(r.rounds) > 0 {
			best = max(best, median(r.rounds).Rate)
		}
	}
	for _, r := range rows {
		switch {
		case r.err != nil:
			fmt.Fprintf(&text, "%-9s  %-27s failed: %v\n", r.design.name, r.design.words, r.err)
		case len(r.rounds) == 0:
			fmt.Fprintf(&text, "%-9s  %-27s not measured\n", r.design.name, r.design.words)
		default:
			m := median(r.rounds)
			spread := ""
			if m.Most.known() {
				spread = m.Fewest.text(0) + " to " + m.Most.text(0)
			}
			line := fmt.Sprintf(form, r.design.name, r.design.words, m.Rate.text(0), bar(m.Rate, best),
				m.CPU.text(1), m.Switches.text(2), m.Memory.text(1), m.P99.text(1),
				m.Processes.text(0), m.Threads.text(0), spread)
			text.WriteString(strings.TrimRight(line, " \n") + "\n")
		}
	}
	_, err := io.WriteString(w, text.String())
	return err
}
