package main

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// failed is how many children had a connection that failed.
var failed atomic.Int64

// finishing is locked, for good, by the first that calls finish.
var finishing sync.Mutex

// finish prints what was done and how long a connection took, and ends the program.
func finish(all []results, count int, begin int64, status int) {
	finishing.Lock()
	var times []time.Duration
	planned, failed, end := 0, int(failed.Load()), begin+1
	for _, r := range all {
		last := len(r) - 1
		planned, end = planned+last, max(end, r[last].Load())
		for i := range last {
			if t := r[i].Load(); t > 0 {
				times = append(times, time.Duration(t))
			}
		}
	}
	made, elapsed := len(times), time.Duration(end-begin).Seconds()
	fmt.Printf("%d connections answered, %d failed, %d not made\n", made, failed, planned-made-failed)
	fmt.Printf("%d bytes in %.3f s, %.0f connections per second\n", made*count, elapsed, float64(made)/elapsed)
	if made > 0 {
		slices.Sort(times)
		fmt.Printf("time of a connection: 50%% within %.3f ms, 99%% within %.3f ms, at most %.3f ms\n",
			percentile(times, 50), percentile(times, 99), percentile(times, 100))
	}
	os.Exit(status)
}

// percentile returns in ms the shortest of the sorted times that p percent of them do not
// exceed.
func percentile(times []time.Duration, p int) float64 {
	return times[(len(times)*p+99)/100-1].Seconds() * 1000
}
