package contract

import (
	"fmt"
	"net"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// refuses reports whether nobody listens at an address.
func refuses(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err != nil
}

// settled waits until all children have joined the process group of their parent.
func settled(s *Server, d design) {
	s.T.Helper()
	WaitFor(s.T, "the children have settled", func() bool {
		count := 0
		for _, process := range s.Tree() {
			if process.Parent == s.PID {
				count++
				if process.Group != s.PID {
					return false
				}
			}
		}
		return !d.pool || count == 10
	})
}

func TestEnd(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
			for _, toGroup := range []bool{false, true} {
				s := Serve(t, d.name)
				s.Connect() // a silent client, for which the server does not wait
				conn := s.Swallower()
				Receive(t, conn, 1000)
				settled(s, d)
				pid := s.PID
				if toGroup {
					pid = -pid
				}
				Kill(t, sig, pid)
				WaitFor(t, "new clients are refused", func() bool { return refuses(s.Addr()) })
				Receive(t, conn, 20000000-1000)
				if more, err := Rest(conn); more != 0 || err != nil {
					t.Errorf("%d bytes too many, error %v", more, err)
				}
				if status := s.Status(); status != 0 {
					t.Errorf("%v: exit status %d", sig, status)
				}
				s.Gone()
				s.Free()
				for line := range strings.Lines(s.Stderr.String()) {
					// The attempts above to connect; and a child that got the group's
					// SIGTERM before the parent did.
					if !strings.Contains(line, `bad request ""`) && !strings.HasSuffix(line, " exited with status 0\n") {
						t.Errorf("%v: standard error: %s", sig, line)
					}
				}
			}
		}
	})
}

func TestEndUnderLoad(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		c := Run(t, "client", "-i", "127.0.0.1", "-p", fmt.Sprint(s.Port), "-c", "15", "-t", "100000")
		WaitFor(t, "the load is on", func() bool { return s.Stdout.Count("Got request") > 100 })
		if d.pool {
			settled(s, d)
		}
		Kill(t, unix.SIGINT, -s.PID)
		if status := s.Status(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		s.Gone()
		// One child, as one at a time is started, may be so young that it is not yet in a
		// process group of its own.
		said := regexp.MustCompile(`(?m)child .* was killed by SIGINT$`).FindString(s.Stderr.String())
		if rest := strings.Replace(s.Stderr.String(), said, "", 1); strings.Contains(rest, "child ") {
			t.Errorf("children have died: %s", Tail(rest))
		}
		if status := c.Status(); status != 1 {
			t.Errorf("the client's exit status is %d", status)
		}
	})
}

// A server waits at most -timeout for a client that does not read its reply.
func TestEndIsBounded(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-timeout", "2s")
		conn := s.Swallower()
		Receive(t, conn, 1000)
		s.Signal(unix.SIGTERM)
		if status := s.Status(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		s.Gone()
	})
}

func TestKilled(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		s.Connect()
		Receive(t, s.Swallower(), 1000)
		s.Signal(unix.SIGKILL)
		s.Gone()
		s.Free()
	})
}
