package reexec

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A child that has died before Supervise waits for SIGCHLD is reaped, too.
func TestSuperviseReapsTheDead(t *testing.T) {
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
	if err := pool.Supervise(stop); err != nil || !reaped {
		t.Errorf("error %v, reaped: %v", err, reaped)
	}
	pool.End()
}

// The timers of a child may be late, and those of its parent may not.
func TestTimerSlack(t *testing.T) {
	slack := func(pid int) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", pid))
		if errors.Is(err, os.ErrPermission) {
			t.Skipf("needs root: %v", err)
		}
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := slack(unix.Gettid())
	pid := startAndAwait(t, "terminate")
	if got := slack(pid); got != "10000000\n" {
		t.Errorf("the child has a slack of %s", got)
	}
	if after := slack(unix.Gettid()); after != before {
		t.Errorf("the parent had a slack of %s, and has one of %s", before, after)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(t, pid)
}
