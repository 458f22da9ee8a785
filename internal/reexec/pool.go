package reexec

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// A Pool has a number of places, with a child in each. A child that dies is replaced.
type Pool struct {
	create   func(index int) (pid int, err error)
	children []child
	retry    time.Time // when the next child may be started
	probe    bool      // and whether only one, to see if it lives
	lived    time.Time // when there last was a child that had lived for a second
}

// A child is in its place in a pool. Its PID is 0 while it has to be started.
type child struct {
	pid      int
	started  time.Time
	switches int64 // voluntary context switches of those that were here before it
}

// NewPool returns a pool of n places without children. It will call create to start the
// child with an index from 0 to n-1.
func NewPool(n int, create func(index int) (pid int, err error)) *Pool {
	return &Pool{create: create, children: make([]child, n), lived: time.Now()}
}

// Supervise starts the children and replaces those that die, until something comes from stop. The
// error is one of create that is no resource limit, or says that no child lives for a second.
func (p *Pool) Supervise(stop <-chan os.Signal) error {
	died := ChildDied()
	for {
		// Reap first: a child of the shell that became this program may have died before.
		if err := p.Reap(); err != nil {
			return err
		}
		wait, err := p.Fill()
		if err != nil {
			return err
		}
		select {
		case <-stop:
			return nil
		case <-died:
		case <-time.After(wait):
		}
	}
}

// ChildDied returns a channel that receives SIGCHLD after a child has died. One signal may stand
// for several deaths.
func ChildDied() <-chan os.Signal {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	return died
}

// Fill starts a child in every place that has none, and returns when to call it again.
//
// If a child has died within a second of its start, Fill waits for a second and starts one
// child. If that one lives for a second, it starts the others. If the system has no room for a
// child, it tries again after a second.
func (p *Pool) Fill() (wait time.Duration, err error) {
	for index := range p.children {
		c := &p.children[index]
		if c.pid != 0 {
			continue
		}
		if wait := time.Until(p.retry); wait > 0 {
			return wait, nil
		}
		pid, err := p.create(index)
		if sock.LimitReached(err) {
			log.Print(err)
			p.lived = time.Now() // at least, none died
			p.retry = p.lived.Add(time.Second)
			return time.Second, nil
		}
		if err != nil {
			return 0, err
		}
		c.pid, c.started = pid, time.Now()
		if p.probe {
			p.probe, p.retry = false, c.started.Add(time.Second)
		}
	}
	return time.Hour, nil
}

// Reap empties the places of the children that have ended, without waiting for the others
// (wait4(2), WNOHANG), and logs how they ended. It returns an error when no child has lived for
// a second in the last ten seconds.
func (p *Pool) Reap() error {
	now := time.Now()
	young := func(c child) bool { return now.Sub(c.started) < time.Second }
	if slices.ContainsFunc(p.children, func(c child) bool { return c.pid != 0 && !young(c) }) {
		p.lived = now
	}
	for {
		index, pid, status := p.reap()
		if pid == 0 {
			break
		}
		if index < 0 {
			continue // not ours: a child of the shell that became this program by exec
		}
		if !KilledYoung(status) {
			log.Printf("child %d (PID %d) %s", index, pid, Describe(status))
		}
		if young(p.children[index]) {
			p.probe, p.retry = true, now.Add(time.Second)
		}
	}
	if p.probe && now.Sub(p.lived) > 10*time.Second {
		return errors.New("children die as soon as they start")
	}
	return nil
}

// reap reaps one child that has ended, and empties its place. The PID is 0 if there is none.
func (p *Pool) reap() (index, pid int, status unix.WaitStatus) {
	var usage unix.Rusage
	err := error(unix.EINTR)
	for err == unix.EINTR {
		pid, err = unix.Wait4(-1, &status, unix.WNOHANG, &usage)
	}
	if err != nil {
		pid = 0 // ECHILD: there are no children at all
	}
	index = slices.IndexFunc(p.children, func(c child) bool { return pid != 0 && c.pid == pid })
	if index >= 0 {
		p.children[index].pid = 0
		p.children[index].switches += usage.Nvcsw
	}
	return index, pid, status
}

// KilledYoung reports whether SIGINT, SIGHUP or SIGTERM killed a child before it had set up its
// handlers. The parent has got the same signal, or has sent it.
func KilledYoung(status unix.WaitStatus) bool {
	return status.Signaled() && slices.Contains([]unix.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGTERM}, status.Signal())
}

// Describe says how a child has ended: "exited with status 1", or "was killed by SIGKILL".
func Describe(status unix.WaitStatus) string {
	if status.Signaled() {
		return "was killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exited with status %d", status.ExitStatus())
}

// End sends SIGTERM to all children, and waits until they have ended. It sends SIGKILL to those
// that still run after [sock.Timeout].
func (p *Pool) End() {
	died, late := ChildDied(), time.After(sock.Timeout)
	p.signal(unix.SIGTERM)
	runs := func(c child) bool { return c.pid != 0 }
	for slices.ContainsFunc(p.children, runs) {
		if _, pid, _ := p.reap(); pid != 0 {
			continue
		}
		select {
		case <-died:
		case <-late:
			p.signal(unix.SIGKILL)
		}
	}
}

// signal sends a signal to the children that run (kill(2)).
func (p *Pool) signal(sig unix.Signal) {
	for _, c := range p.children {
		if c.pid == 0 {
			continue
		}
		if err := unix.Kill(c.pid, sig); err != nil {
			log.Printf("send %s to the child with PID %d: %v", unix.SignalName(sig), c.pid, err)
		}
	}
}

// Switches returns for each index the number of voluntary context switches of its children
// that have ended: how often they had to wait (getrusage(2), ru_nvcsw).
func (p *Pool) Switches() (switches []int64) {
	for _, c := range p.children {
		switches = append(switches, c.switches)
	}
	return switches
}
