package reexec

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// Reap returns the PID of a child that has ended and how it ended, without
// waiting for one that has not: ok is false when there is none (wait4(2),
// WNOHANG).
func Reap() (pid int, status unix.WaitStatus, ok bool) {
	for {
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err != unix.EINTR {
			return pid, status, err == nil && pid > 0 // else 0, or ECHILD: none at all
		}
	}
}

// End ends these children, whom nobody else must reap meanwhile. They get SIGTERM,
// on which a child finishes its reply, and SIGKILL if they have not ended in the
// time of timeout (0 for no limit). When it returns nil, all are gone.
func End(pids []int, timeout time.Duration) error {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	defer signal.Stop(died)
	var deadline <-chan time.Time
	if timeout > 0 {
		deadline = time.After(timeout)
	}
	told := make(map[int]bool) // by PID, whether it has got SIGTERM
	for _, pid := range pids {
		told[pid] = false
	}
	for {
		for pid, _, ok := Reap(); ok; pid, _, ok = Reap() {
			delete(told, pid)
		}
		if len(told) == 0 {
			return nil
		}
		var again <-chan time.Time
		for pid := range told {
			if told[pid] {
				continue
			}
			if !ready(pid) {
				again = time.After(time.Millisecond)
				continue
			}
			if err := kill(pid, unix.SIGTERM); err != nil {
				return err
			}
			told[pid] = true
		}
		select {
		case <-died:
		case <-again:
		case <-deadline:
			for pid := range told {
				if err := kill(pid, unix.SIGKILL); err != nil {
					return err
				}
			}
		}
	}
}

func kill(pid int, sig unix.Signal) error {
	if err := unix.Kill(pid, sig); err != nil {
		return fmt.Errorf("send %s to child with PID %d: %w", unix.SignalName(sig), pid, err)
	}
	return nil
}
