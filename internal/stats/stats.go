// Package stats prints what the children, or the threads, of a server have counted.
package stats

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
)

// Print prints how many connections each of a server's children or threads has accepted, and a
// summary. of says what has counted them: "child", for example. If switches is not nil, the summary
// says how many context switches a connection took.
func Print(of string, counters []atomic.Int64, switches []int64) error {
	return print(of, counters, switches, false)
}

// PrintEach is [Print], but also prints the context switches of each child.
func PrintEach(of string, counters []atomic.Int64, switches []int64) error {
	return print(of, counters, switches, true)
}

func print(of string, counters []atomic.Int64, switches []int64, each bool) error {
	var text strings.Builder
	var counts []int64
	for index := range counters {
		counts = append(counts, counters[index].Load())
		fmt.Fprintf(&text, "\n%s %-2d: %d times", of, index, counts[index])
		if each {
			fmt.Fprintf(&text, ", %d switches", switches[index])
		}
	}
	_, err := fmt.Fprintf(os.Stdout, "%s\n\n%s", &text, summary(of, counts, switches))
	return err
}

// summary says in a line how many connections there were, and how evenly they are spread, and in
// another one how many context switches a connection took.
func summary(of string, counts, switches []int64) string {
	total := sum(counts)
	text := fmt.Sprintf("%d connections; per %s: fewest %d, mean %.1f, most %d\n",
		total, of, slices.Min(counts), float64(total)/float64(len(counts)), slices.Max(counts))
	if switches != nil {
		all := sum(switches)
		text += fmt.Sprintf("%d context switches", all)
		if total > 0 {
			text += fmt.Sprintf(", %.1f for each connection", float64(all)/float64(total))
		}
		text += "\n"
	}
	return text
}

func sum(counts []int64) (total int64) {
	for _, count := range counts {
		total += count
	}
	return total
}
