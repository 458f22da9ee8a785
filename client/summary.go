package main

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// A tally is what a child leaves in shared memory: the number of connections that
// were answered, then the time that each of them took, in nanoseconds.
type tally []atomic.Int64

// talliesIn cuts the words into a tally for each child.
func talliesIn(words []atomic.Int64, childNum int) []tally {
	tallies := make([]tally, childNum)
	size := len(words) / childNum
	for i := range tallies {
		tallies[i] = words[i*size : (i+1)*size]
	}
	return tallies
}

func answered(tallies []tally) (n int) {
	for _, t := range tallies {
		n += int(t[0].Load())
	}
	return n
}

// summarize prints what was done and how long a connection took.
func summarize(tallies []tally, count, failed int, elapsed time.Duration) {
	var times []time.Duration
	planned := 0
	for _, t := range tallies {
		for i := range t[0].Load() {
			times = append(times, time.Duration(t[1+i].Load()))
		}
		planned += len(t) - 1
	}
	fmt.Printf("%d connections answered, %d failed, %d not made\n", len(times), failed, planned-len(times)-failed)
	fmt.Printf("%d bytes in %.3f s, %.0f connections per second\n",
		len(times)*count, elapsed.Seconds(), float64(len(times))/elapsed.Seconds())
	if len(times) > 0 {
		slices.Sort(times)
		fmt.Printf("time of a connection: 50%% within %.3f ms, 99%% within %.3f ms, at most %.3f ms\n",
			ms(percentile(times, 50)), ms(percentile(times, 99)), ms(percentile(times, 100)))
	}
}

// percentile returns the shortest of the sorted times that p percent of them do
// not exceed.
func percentile(times []time.Duration, p int) time.Duration {
	return times[(len(times)*p+99)/100-1]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
