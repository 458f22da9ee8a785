package reexec

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A child that has died before Keep waits for SIGCHLD is reaped, too.
func TestKeepReapsTheDead(t *testing.T) {
	dead := start(t, "exit", 0)
	if err := unix.Waitid(unix.P_PID, dead, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	pool := NewPool(1, func(index int) (int, error) { return start(t, "terminate", index, int(null.Fd())), nil })
	stop, reaped := make(chan os.Signal), false
	go func() {
		defer close(stop)
		for deadline := time.Now().Add(20 * time.Second); !reaped && time.Now().Before(deadline); {
			reaped = unix.Kill(dead, 0) == unix.ESRCH
			time.Sleep(time.Millisecond)
		}
	}()
	if err := pool.Keep(stop); err != nil || !reaped {
		t.Errorf("error %v, reaped: %v", err, reaped)
	}
	pool.End(time.Hour)
}
