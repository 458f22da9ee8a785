//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// columns are the figures of the table, and of JSON.
var columns = []struct {
	name, title string // without a title it is not in the table
	decimals    int
}{
	{"answered", "", 0},
	{"connections_per_second", "conn/s", 0},
	{"cpu_us_per_connection", "CPU us", 1},     // user and system, of the whole process tree
	{"switches_per_connection", "switches", 2}, // voluntary ones
	{"memory_mib", "MiB", 1},                   // proportional resident set, at its peak
	{"p99_ms", "p99 ms", 1},                    // 99th percentile of a connection's time
	{"processes", "", 0},                       // at their peak
	{"threads", "", 0},                         // at their peak
	{"fewest_connections_of_child", "fewest", 0},
	{"most_connections_of_child", "most", 0}, // of a child or a thread
	{"bytes_per_idle", "", 0},                // memory of the server for an idle connection
	{"kernel_bytes_per_idle", "", 0},         // and of the kernel, for both of its ends
}

// barWidth is the width of the longest bar, in characters.
const barWidth = 12

// bar returns a bar for a value. The best value has the longest one.
func bar(value, best float64) string {
	if best <= 0 {
		return strings.Repeat(" ", barWidth)
	}
	eighths := int(value / best * barWidth * 8)
	text := strings.Repeat("█", eighths/8)
	if rest := eighths % 8; rest > 0 {
		text += string([]rune(" ▏▎▍▌▋▊▉")[rest])
	}
	return text + strings.Repeat(" ", barWidth-len([]rune(text)))
}

// writeTable prints a line for each server, with the medians of its rounds, or the reason
// why there are none.
func writeTable(w io.Writer, rows []row, rounds int) error {
	var text strings.Builder
	complete, best := 0, 0.0
	for _, r := range rows {
		complete = max(complete, len(r.rounds))
		best = max(best, median(r.rounds)["connections_per_second"])
	}
	fmt.Fprintf(&text, "%v; rounds: %d", rows[0].load, complete)
	if complete < rounds {
		fmt.Fprintf(&text, " of %d", rounds)
	}
	fmt.Fprintf(&text, "\n\n%-9s  %-27s ", "server", "design")
	for _, c := range columns {
		if c.title == "" {
			continue
		}
		fmt.Fprintf(&text, " %*s", max(6, len(c.title)), c.title)
		if c.name == "connections_per_second" {
			fmt.Fprintf(&text, " %*s", barWidth, "")
		}
	}
	text.WriteByte('\n')
	for _, r := range rows {
		line := r.design.label()
		switch {
		case errors.As(r.err, new(impossible)):
			line += r.err.Error()
		case r.err != nil:
			line += "failed: " + r.err.Error()
		case len(r.rounds) == 0:
			line += "not measured"
		default:
			line += cells(median(r.rounds), best)
		}
		text.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	text.WriteString(ratios(rows))
	_, err := io.WriteString(w, text.String())
	return err
}

// label is the beginning of a line.
func (d design) label() string {
	name := d.name
	if d.of != "" {
		name = "  " + name
	}
	return fmt.Sprintf("%-9s  %-27s ", name, d.words)
}

func cells(m figures, best float64) (line string) {
	for _, c := range columns {
		if c.title == "" {
			continue
		}
		cell := ""
		if value, known := m[c.name]; known {
			cell = fmt.Sprintf("%.*f", c.decimals, value)
		} else if !strings.HasSuffix(c.name, "_of_child") {
			cell = "-"
		}
		line += fmt.Sprintf(" %*s", max(6, len(c.title)), cell)
		if c.name == "connections_per_second" {
			line += " " + bar(m[c.name], best)
		}
	}
	return line
}

// ratios says how each server compares to its peers: the medians of the ratios in each round.
func ratios(rows []row) string {
	var text strings.Builder
	var server row
	for _, r := range rows {
		if r.design.of == "" {
			server = r
			continue
		}
		var of []figures
		for i := range min(len(server.rounds), len(r.rounds)) {
			f := figures{}
			for name, own := range server.rounds[i] {
				if peer := r.rounds[i][name]; peer > 0 {
					f[name] = own / peer
				}
			}
			of = append(of, f)
		}
		if m := median(of); len(m) > 0 {
			fmt.Fprintf(&text, "%-9s  to %-6s  %-9s %5.2f of the rate, %5.2f of the CPU time", r.design.of,
				r.design.name, r.design.words, m["connections_per_second"], m["cpu_us_per_connection"])
			if memory, known := m["memory_mib"]; known {
				fmt.Fprintf(&text, ", %5.2f of the memory", memory)
			}
			text.WriteByte('\n')
		}
	}
	if text.Len() > 0 {
		return "\n" + text.String()
	}
	return ""
}

// writeJSON prints the figures of every round, and their medians.
func writeJSON(w io.Writer, rows []row) error {
	type server struct {
		Name   string    `json:"name"`
		Design string    `json:"design"`
		PeerOf string    `json:"peer_of,omitempty"`
		Load   load      `json:"load"`
		Error  string    `json:"error,omitempty"`
		Median figures   `json:"median"`
		Rounds []figures `json:"rounds"`
	}
	result := struct {
		Servers []server `json:"servers"`
	}{}
	for _, r := range rows {
		s := server{Name: r.design.name, Design: r.design.words, PeerOf: r.design.of, Load: r.load, Median: median(r.rounds), Rounds: r.rounds}
		if r.err != nil {
			s.Error = r.err.Error()
		}
		result.Servers = append(result.Servers, s)
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(result)
}
