package contract

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The child that dies has a connection, and takes it with it, and only that.
func TestChildKilledWithConnection(t *testing.T) {
	t.Parallel()
	s := serve(t, "server04", "-n", "1")
	held := s.swallower()
	receive(t, held, 1000)
	next := s.send("5\n") // in the backlog, as nobody is free
	old := s.poolOf(1, nil)
	kill(t, unix.SIGKILL, old[0])
	if got, err := rest(held); got >= 20000000-1000 || err != nil {
		t.Errorf("of the child that was killed came %d bytes more, error %v", got, err)
	}
	receive(t, next, 5)
	s.poolOf(1, old)
	want := fmt.Sprintf("server04: child 0 (PID %d) was killed by SIGKILL\n", old[0])
	waitFor(t, "the death is reported, and nothing else", func() bool { return s.stderr.String() == want })
	if counts := statistics(t, s, "child"); counts[0] != 2 {
		t.Errorf("child 0 has got %d connections, want 2", counts[0])
	}
}

// The child has said that it is free, and dies with the connection in its channel.
func TestChildKilledBeforeItReceives(t *testing.T) {
	t.Parallel()
	s := serve(t, "server04", "-n", "1")
	s.ask("5\n", 5)
	old := s.poolOf(1, nil)
	waitFor(t, "the child waits for the next connection", func() bool { return calls(t, old[0], unix.SYS_RECVMSG) })
	kill(t, unix.SIGSTOP, old[0])
	waitFor(t, "the child has stopped", func() bool {
		return !slices.ContainsFunc(threads(t, old[0]), func(p process) bool { return p.state != "T" })
	})
	first := s.send("6\n")
	waitFor(t, "the parent has accepted the connection", func() bool {
		return accepted(t, first.LocalAddr().String())
	})
	next := s.send("7\n")
	kill(t, unix.SIGKILL, old[0])
	// Or is not lost at all, if the parent had not passed it yet.
	if got, err := rest(first); got != 0 && got != 6 || err != nil {
		t.Errorf("the first connection got %d bytes, error %v", got, err)
	}
	receive(t, next, 7)
	want := fmt.Sprintf("server04: child 0 (PID %d) was killed by SIGKILL\n", old[0])
	waitFor(t, "the death is reported, and nothing else", func() bool { return s.stderr.String() == want })
}

// There are fewer descriptors than the pool needs. It works with the children that it
// has, and tries once a second to start another.
func TestPoolBeyondTheLimit(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	s := serveAfter(t, "ulimit -n 40;", "server04", "-n", "100")
	waitFor(t, "the limit is reached", func() bool { return strings.Contains(s.stderr.String(), "too many open files\n") })
	crowd(s)
	if n, most := strings.Count(s.stderr.String(), "\n"), int(time.Since(begin).Seconds())+1; n > most {
		t.Errorf("it has tried %d times in less than %d s", n, most)
	}
	if sum := total(statistics(t, s, "child")); sum != 1500 {
		t.Errorf("%d connections counted, want 1500", sum)
	}
}
