package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"flag"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"csdesign/test/contract"
)

func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "10") // a test mostly waits
	os.Exit(m.Run())
}

// inTable is how the front page's table says in which call a design waits.
var inTable = map[string]string{
	"read": "in read", "ppoll": "poll", "pselect6": "in select", "accept4": "accept", "fcntl": "for the lock",
	"epoll_pwait": "epoll", "recvmsg": "in recvmsg", "io_uring_enter": "in io_uring_enter",
}

// Client 2 is answered while client 1 is silent, in all designs but the iterative one, and each design waits in the
// call that the front page says.
func TestScenario(t *testing.T) {
	contract.Needs(t, "strace", "ptrace")
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	chosen := designs
	if testing.Short() {
		chosen = designs[:1]
	}
	dir := t.TempDir()
	if err := build(context.Background(), dir, chosen); err != nil {
		t.Fatal(err)
	}
	for _, d := range chosen {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			if d.name == "server10" {
				contract.Needs(t, "io_uring")
			}
			// So long that a busy machine has started a child meanwhile.
			const silence = 5 * time.Second
			s, err := play(context.Background(), dir, d, silence)
			if err != nil {
				t.Fatal(err)
			}
			if first := s.clients[1].last < s.clients[0].last; first != (d.name != "server00") {
				t.Errorf("client 2 is answered before client 1: %v, %+v", first, s.clients)
			}
			waits := func(c call) bool { return c.name == d.waits && c.end-c.begin > silence/4 }
			if !slices.ContainsFunc(s.rows, func(r row) bool { return slices.ContainsFunc(r.calls, waits) }) {
				t.Errorf("nobody waits in %s", d.waits)
			}
			line := regexp.MustCompile(`(?m)^\| \[` + d.name + `\]\(.*$`).FindString(string(readme))
			if !strings.Contains(line, inTable[d.waits]) && !strings.Contains(line, "at the queue") {
				t.Errorf("the front page does not say that it waits %s: %s", inTable[d.waits], line)
			}
			last := map[int]time.Duration{}
			for _, r := range s.rows {
				slices.SortStableFunc(r.calls, func(a, b call) int { return int(a.begin - b.begin) })
				for _, c := range r.calls {
					if c.begin < last[c.thread] || c.end < c.begin || c.end > s.length {
						t.Errorf("%s from %v to %v, after %v, of %v", c.name, c.begin, c.end, last[c.thread], s.length)
					}
					last[c.thread] = c.end
				}
			}
			svg := s.svg()
			for decoder := xml.NewDecoder(bytes.NewReader(svg)); ; {
				if _, err := decoder.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if len(svg) > 40_000 {
				t.Errorf("the picture has %d bytes", len(svg))
			}
		})
	}
}
