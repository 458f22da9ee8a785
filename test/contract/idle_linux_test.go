package contract

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Not parallel: the connections take most of a usual limit of descriptors.
func TestManyIdleConnections(t *testing.T) {
	for _, test := range []struct {
		name    string
		idle    int
		threads int // fewer than these
		bytes   int // of memory for each, at most: a third more than was measured
	}{
		{"server02", 900, 30, 700}, {"server05", 400, 430, 32_000}, {"server05a", 5000, 30, 7500}, {"server06", 10_000, 30, 450},
		{"server07", 10_000, 30, 450}, {"server09", 10_000, 30, 600}, {"server09a", 10_000, 30, 600}, {"server10", 5000, 30, 450},
	} {
		t.Run(test.name, func(t *testing.T) {
			design{name: test.name}.needs(t)
			// The soft limit is at the hard one, here and in the server: a Go program
			// raises it when it starts.
			var limit unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
				t.Fatal(err)
			}
			if need := uint64(test.idle + 100); limit.Cur < need {
				t.Skipf("needs %d descriptors: the limit is %d (ulimit -Hn)", need, limit.Cur)
			}
			s := Serve(t, test.name)
			s.Crowd(20) // what it needs for any client, it has now
			before := s.Memory()
			var idle []net.Conn
			ask := func(conn net.Conn) {
				fmt.Fprintln(conn, 4096)
				Receive(t, conn, 4096)
			}
			for range test.idle {
				idle = append(idle, s.Connect())
			}
			// A client that is answered has been accepted, and so have all before it.
			ask(idle[0])
			ask(idle[test.idle-1])
			var times []time.Duration
			for range 21 {
				begin := time.Now()
				s.Ask("4096\n", 4096)
				times = append(times, time.Since(begin))
			}
			slices.Sort(times)
			if median := times[len(times)/2]; !race && median >= 250*time.Millisecond {
				t.Errorf("beside %d idle connections a request takes %v", test.idle, median)
			}
			if threads := len(Threads(t, s.PID)); threads >= test.threads {
				t.Errorf("beside %d idle connections it has %d threads", test.idle, threads)
			}
			if each := (s.Memory() - before) / test.idle; !race && each > test.bytes {
				t.Errorf("it needs %d bytes for an idle connection", each)
			} else {
				t.Logf("%d bytes for an idle connection", each)
			}
			if s.Stderr.String() != "" {
				t.Errorf("standard error: %s", &s.Stderr)
			}
		})
	}
}
