package main

import "time"

// A watch looks at a process tree again and again.
type watch struct {
	end  chan bool
	peak chan [3]float64
}

// interval is how often it looks. To sum up the memory of a pool takes the system
// some milliseconds, which the servers lack.
const interval = 50 * time.Millisecond

func watchTree(pid int) *watch {
	w := &watch{end: make(chan bool), peak: make(chan [3]float64)}
	go func() {
		var peak [3]float64
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			ended := false
			select {
			case <-tick.C:
			case <-w.end:
				ended = true
			}
			processes, threads, memory := sample(pid)
			for i, f := range [3]float64{float64(processes), float64(threads), memory} {
				peak[i] = max(peak[i], f)
			}
			if ended {
				w.peak <- peak
				return
			}
		}
	}()
	return w
}

// stop returns the peaks of what it has seen.
func (w *watch) stop() (processes, threads, memory figure) {
	w.end <- true
	peak := <-w.peak
	if peak[0] == 0 {
		return unknown, unknown, unknown
	}
	return figure(peak[0]), figure(peak[1]), figure(peak[2])
}
