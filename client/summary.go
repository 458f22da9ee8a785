package main

import (
	"fmt"
	"log"
	"math"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// results is what a child leaves in shared memory, in ns: when its first connection began, when the
// last one that was answered ended, and how long each took, 0 if it was not answered.
type results []atomic.Int64

// times is the index of the first connection.
const times = 2

// failed is how many children had a connection that failed.
var failed atomic.Int64

// now returns the time in ns, which is the same in all processes.
func now() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it cannot fail
	return t.Nano()
}

// finishing is locked, for good, by the first that calls finish.
var finishing sync.Mutex

// finish prints what was done and how long a connection took, and ends the program.
func finish(all []results, count, status int) {
	finishing.Lock()
	var took []time.Duration
	planned, failed, begin, end := 0, int(failed.Load()), int64(math.MaxInt64), int64(0)
	for _, r := range all {
		planned += len(r[times:])
		if r[0].Load() > 0 {
			begin, end = min(begin, r[0].Load()), max(end, r[1].Load())
		}
		for i := range r[times:] {
			if t := r[times+i].Load(); t > 0 {
				took = append(took, time.Duration(t))
			}
		}
	}
	made, elapsed := len(took), time.Duration(max(1, end-begin)).Seconds()
	text := fmt.Sprintf("%d connections answered, %d failed, %d not made\n", made, failed, planned-made-failed)
	text += fmt.Sprintf("%d bytes in %.3f s, %.0f connections per second\n", made*count, elapsed, float64(made)/elapsed)
	if made > 0 {
		slices.Sort(took)
		text += fmt.Sprintf("time of a connection: 50%% within %.3f ms, 99%% within %.3f ms, at most %.3f ms\n",
			percentile(took, 50), percentile(took, 99), percentile(took, 100))
	}
	if _, err := fmt.Print(text); err != nil {
		log.Fatal(err)
	}
	os.Exit(status)
}

// percentile returns in ms the shortest of the sorted times that p percent of them do not
// exceed.
func percentile(times []time.Duration, p int) float64 {
	return times[(len(times)*p+99)/100-1].Seconds() * 1000
}
