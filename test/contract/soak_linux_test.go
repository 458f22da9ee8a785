package contract

import (
	"flag"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

var soak = flag.Int("soak", 0, "how many connections TestSoak makes through each server; go test needs -timeout, too")

// use is what a server and its children have.
type use struct{ processes, threads, descriptors, kib int }

func (s *Server) use() (u use) {
	s.T.Helper()
	for _, process := range s.Tree() {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", process.PID))
		if err != nil {
			s.T.Fatal(err)
		}
		u.processes++
		u.threads += len(Threads(s.T, process.PID))
		u.descriptors += len(files)
	}
	u.kib = s.Memory() >> 10
	return u
}

// TestSoak makes very many connections, and compares what a server has before and after. It
// logs both (-v). It is not part of the usual tests:
//
//	go test -v -timeout 5h -run 'TestSoak/server03a$' ./test/contract -soak 10000000
func TestSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("-soak says how many connections")
	}
	for _, d := range designs {
		t.Run(d.name, func(t *testing.T) {
			d.needs(t)
			s := Serve(t, d.name)
			s.Crowd(20) // what a server needs, it has now
			before := s.use()
			const clients, each = 10, 5000
			made := 0
			for made < *soak {
				loops := min(each, (*soak-made+clients-1)/clients)
				c := Run(t, "client", "-i", "127.0.0.1", "-p", fmt.Sprint(s.Port), "-c", fmt.Sprint(clients), "-t", fmt.Sprint(loops), "-b", "100")
				<-c.Ended // for longer than a test usually waits
				if status := c.Status(); status != 0 {
					t.Fatalf("client: status %d, %s", status, &c.Stderr)
				}
				made += clients * loops
				s.Stdout.Shorten()
			}
			WaitFor(t, "all processes are as before", func() bool { return len(s.Tree()) <= before.processes })
			after := s.use()
			t.Logf("before %+v, after %d connections %+v", before, made, after)
			if after.processes > before.processes || after.threads > before.threads+20*before.processes ||
				after.descriptors > before.descriptors+5 || !race && after.kib > 2*before.kib+4096 {
				t.Errorf("before %+v, after %d connections %+v", before, made, after)
			}
			if d.counts != "" {
				if sum := Sum(s.Counts(d.counts)); sum != made+15*20 {
					t.Errorf("%d connections counted, want %d", sum, made+15*20)
				}
				return
			}
			s.Signal(unix.SIGTERM)
			if status := s.Status(); status != 0 {
				t.Errorf("exit status %d", status)
			}
		})
	}
}
