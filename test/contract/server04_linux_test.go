package contract

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A child that is killed takes its connection with it, and nothing else.
func TestChildKilledWithConnection(t *testing.T) {
	t.Parallel()
	s := Serve(t, "server04", "-n", "1")
	held := s.Swallower()
	Receive(t, held, 1000)
	next := s.Send("5\n") // in the backlog, as no child is free
	old := s.Pool(1, nil)
	Kill(t, unix.SIGKILL, old[0])
	if got, err := Rest(held); got >= 20000000-1000 || err != nil {
		t.Errorf("of the child that was killed came %d bytes more, error %v", got, err)
	}
	Receive(t, next, 5)
	s.Pool(1, old)
	want := fmt.Sprintf("server04: child 0 (PID %d) was killed by SIGKILL\n", old[0])
	s.WaitFor("the death is reported, and nothing else", func() bool { return s.Stderr.String() == want })
	if counts := s.Counts("child"); counts[0] != 2 {
		t.Errorf("child 0 has got %d connections, want 2", counts[0])
	}
}

// A child is killed after it has said that it is free, with a connection in its channel.
func TestChildKilledBeforeItReceives(t *testing.T) {
	t.Parallel()
	s := Serve(t, "server04", "-n", "1")
	s.Ask("5\n", 5)
	old := s.Pool(1, nil)
	s.WaitFor("the child waits for the next connection", func() bool { return Calls(t, old[0], unix.SYS_RECVMSG) })
	Stop(t, old[0])
	first := s.Send("6\n")
	s.WaitFor("the parent has accepted the connection", func() bool {
		return s.State(first) != "BACKLOG"
	})
	next := s.Send("7\n")
	Kill(t, unix.SIGKILL, old[0])
	// It is not lost if the parent had not passed it yet.
	if got, err := Rest(first); got != 0 && got != 6 || err != nil {
		t.Errorf("the first connection got %d bytes, error %v", got, err)
	}
	Receive(t, next, 7)
	want := fmt.Sprintf("server04: child 0 (PID %d) was killed by SIGKILL\n", old[0])
	s.WaitFor("the death is reported, and nothing else", func() bool { return s.Stderr.String() == want })
}

// There are fewer descriptors than the pool needs. The server works with the children that
// it has, and tries once a second to start another one.
func TestPoolBeyondTheLimit(t *testing.T) {
	t.Parallel()
	begin := time.Now()
	s := ServeAfter(t, "ulimit -n 40;", "server04", "-n", "100")
	s.WaitFor("the limit is reached", func() bool { return s.Stderr.Has("too many open files\n") })
	s.Crowd(100)
	if n, most := s.Stderr.Count("\n"), int(time.Since(begin).Seconds())+1; n > most {
		t.Errorf("it has tried %d times in less than %d s", n, most)
	}
	if sum := Sum(s.Counts("child")); sum != 1500 {
		t.Errorf("%d connections counted, want 1500", sum)
	}
}
