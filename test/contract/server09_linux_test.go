package contract

import (
	"fmt"
	"net"
	"testing"

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
		s.WaitFor(said, func() bool { return s.Stderr.Has(said) })
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
