package contract

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel spreads the connections over all children.
func TestAllChildrenAreUsed(t *testing.T) {
	t.Parallel()
	s := Serve(t, "server09", "-n", "4")
	s.Pool(4, nil)
	for range 200 {
		s.Ask("5\n", 5)
	}
	counts := s.Counts("child")
	if sum := Sum(counts); sum != 200 {
		t.Errorf("%d connections counted, want 200", sum)
	}
	for index, count := range counts {
		if count == 0 {
			t.Errorf("child %d was not used", index)
		}
	}
}

// queue stops the children of a server, and sends a request on that many connections, which
// wait in their queues.
func queue(s *Server, clients int) (children []int, conns []*net.TCPConn) {
	s.T.Helper()
	children = s.Pool(2, nil)
	settled(s, design{pool: 2})
	Stop(s.T, children...)
	for range clients {
		conns = append(conns, s.Send("5\n"))
	}
	return children, conns
}

// When a child is killed, or ends, the child that replaces it serves what waits in the queue.
func TestQueueOfADeadChild(t *testing.T) {
	t.Parallel()
	for _, sig := range []unix.Signal{unix.SIGKILL, unix.SIGTERM} {
		s := Serve(t, "server09", "-n", "2")
		children, conns := queue(s, 40)
		Kill(t, sig, children[0])
		unix.Kill(children[0], unix.SIGCONT) // it may be dead
		Kill(t, unix.SIGCONT, children[1])
		for _, conn := range conns {
			Receive(t, conn, 5)
		}
		said := fmt.Sprintf("(PID %d)", children[0])
		WaitFor(t, said, func() bool { return s.Stderr.Has(said) })
		if sum := Sum(s.Counts("child")); sum != 40 {
			t.Errorf("%v: %d connections counted, want 40", sig, sum)
		}
	}
}

// When the server ends, what waits in the queues is reset, as in the other designs.
func TestQueueAtTheEnd(t *testing.T) {
	t.Parallel()
	s := Serve(t, "server09", "-n", "2", "-timeout", "1s")
	_, conns := queue(s, 10)
	s.Signal(unix.SIGTERM)
	if status := s.Status(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	for _, conn := range conns {
		if got, err := Rest(conn); got != 0 || err != nil {
			t.Errorf("%d bytes, error %v", got, err)
		}
	}
}

// Another process holds a copy of a client's socket (pidfd_getfd(2)). After the client has gone,
// the server forgets the socket all the same.
func TestCopyOfASocket(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"server07", "server09"} {
		s := Serve(t, name, map[string][]string{"server09": {"-n", "1"}}[name]...)
		pid := s.PID
		if name == "server09" {
			pid = s.Pool(1, nil)[0]
		}
		conn := s.Send("5")
		Receive(t, conn, 5)
		pidfd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Skipf("pidfd_open: %v", err)
		}
		defer unix.Close(pidfd)
		for fd := range 64 {
			if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || !strings.HasPrefix(to, "socket:") {
				continue
			}
			copied, err := unix.PidfdGetfd(pidfd, fd, 0)
			if err != nil {
				t.Skipf("pidfd_getfd: %v", err)
			}
			defer unix.Close(copied)
		}
		conn.Close()
		for range 20 {
			s.Ask("5\n", 5)
		}
		// An entry that has stayed would be reported again and again.
		WaitFor(t, "it uses less than a tenth of a core", func() bool {
			begin, before := time.Now(), s.CPU()
			time.Sleep(time.Second)
			return s.CPU()-before < time.Since(begin)/10
		})
		if s.HasEnded() || s.Stderr.String() != "" {
			t.Errorf("%s: %s", name, &s.Stderr)
		}
	}
}
