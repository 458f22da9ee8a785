// Package stats sums up what the children, or the threads, of a server have counted.
package stats

import (
	"fmt"
	"slices"
	"sync/atomic"
)

// Load returns what the counters have counted so far.
func Load(counters []atomic.Int64) (counts []int64) {
	for index := range counters {
		counts = append(counts, counters[index].Load())
	}
	return counts
}

// Summary says in a line how many connections there were, and how evenly they are spread over
// what counted them: "child", for example. If there is one, a second line says how many
// context switches a connection took.
func Summary(of string, counts, switches []int64) string {
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
