package contract

import (
	"fmt"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// Every client has a thread of its own, and the thread ends with it.
func TestThreadsComeAndGo(t *testing.T) {
	t.Parallel()
	s := serve(t, "server05")
	count := func() int { return len(threads(t, s.cmd.Process.Pid)) }
	const clients = 100
	before := count()
	// Those of the runtime itself. Some of them it starts only when it needs them.
	const spare = 10
	for range 3 {
		var silent []net.Conn
		for range clients {
			silent = append(silent, s.connect())
		}
		waitFor(t, fmt.Sprintf("there are %d threads more than %d", clients, before), func() bool {
			return count() >= before+clients-spare
		})
		if n := count(); n > before+clients+spare {
			t.Errorf("%d threads for %d clients, after %d for none", n, clients, before)
		}
		for _, conn := range silent {
			conn.Close()
		}
		waitFor(t, fmt.Sprintf("there are %d threads again", before), func() bool {
			return count() <= before+spare
		})
	}
}

// More clients than there may be threads: the last one waits in the backlog, and is
// served when another leaves.
func TestMoreClientsThanThreads(t *testing.T) {
	s := serve(t, "server05")
	pid := s.cmd.Process.Pid
	var silent []net.Conn
	for range 512 {
		silent = append(silent, s.connect())
	}
	last := s.send("5\n")
	waitFor(t, "all others have a thread, and nobody is accepted any more", func() bool {
		return len(threads(t, pid)) > 512 && !calls(t, pid, unix.SYS_ACCEPT4)
	})
	if accepted(t, last.LocalAddr().String()) {
		t.Error("there are more clients than threads")
	}
	silent[0].Close()
	receive(t, last, 5)
}
