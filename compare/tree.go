package main

import "time"

// interval is how often a process tree is looked at. To sum up the memory of a pool takes
// the system some milliseconds, which the servers lack.
const interval = 50 * time.Millisecond

// watch looks at a process tree, again and again, until stop is called. Then the peaks are
// in f.
func (f figures) watch(pid int) (stop func()) {
	end, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		for {
			for name, value := range sample(pid) {
				f[name] = max(f[name], value)
			}
			select {
			case <-time.After(interval):
			case <-end:
				return
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}
