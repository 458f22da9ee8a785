package contract

import (
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Each client has a thread of its own, which ends with the connection.
func TestThreadsComeAndGo(t *testing.T) {
	t.Parallel()
	s := Serve(t, "server05")
	count := func() int { return len(Threads(t, s.PID)) }
	const clients = 100
	before := count()
	const spare = 10 // threads that the Go runtime starts when it needs them
	for range 3 {
		var silent []net.Conn
		for range clients {
			silent = append(silent, s.Connect())
		}
		WaitFor(t, fmt.Sprintf("there are %d threads more than %d", clients, before), func() bool {
			return count() >= before+clients-spare
		})
		if n := count(); n > before+clients+spare {
			t.Errorf("%d threads for %d clients, after %d for none", n, clients, before)
		}
		for _, conn := range silent {
			conn.Close()
		}
		WaitFor(t, fmt.Sprintf("there are %d threads again", before), func() bool {
			return count() <= before+spare
		})
	}
}

// There are more clients than threads. The last one waits in the backlog, and is served
// when another one closes.
func TestMoreClientsThanThreads(t *testing.T) {
	s := Serve(t, "server05")
	pid := s.PID
	var silent []net.Conn
	for range 512 {
		silent = append(silent, s.Connect())
	}
	last := s.Send("5\n")
	WaitFor(t, "all others have a thread, and no client is accepted any more", func() bool {
		return len(Threads(t, pid)) > 512 && !Calls(t, pid, unix.SYS_ACCEPT4)
	})
	if s.State(last) != "BACKLOG" {
		t.Error("there are more clients than threads")
	}
	silent[0].Close()
	Receive(t, last, 5)
}
