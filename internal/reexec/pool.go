package reexec

import (
	"errors"
	"fmt"
	"iter"
	"log"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// A Pool has a number of places, with a child in each. A child that dies is replaced.
type Pool struct {
	create   func(index int) (pid int, err error)
	children []child
	next     time.Time // when other children may be started
	batch    int       // and how many then, if a child has died young
	lived    time.Time // when there last was a child that had lived for a second
}

// A child is in its place in a pool. Its PID is 0 while it has to be started.
type child struct {
	pid      int
	started  time.Time
	switches int64 // of those that were here before it
}

// NewPool returns a pool of n places without children. It will call create to start the
// child with an index from 0 to n-1.
func NewPool(n int, create func(index int) (pid int, err error)) *Pool {
	// The children live in calls that block. After 20 µs the monitor thread of the Go
	// runtime takes the processor away from a thread in such a call, and the thread has to
	// ask for one when it returns. With a second processor, which is idle, it waits 10 ms.
	os.Setenv("GOMAXPROCS", "2")
	// Collect garbage at 400 KB, not at 4 MB: a parent that works makes a little with every
	// connection, and keeps nothing.
	debug.SetGCPercent(10)
	return &Pool{create: create, children: make([]child, n), lived: time.Now()}
}

// Keep starts the children and replaces those that die, until something comes from stop.
func (p *Pool) Keep(stop <-chan os.Signal) error {
	died := Died()
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

// Fill starts a child in every place that has none, and returns when it has to be called
// again: after a second if the system had no descriptors, memory or processes left.
//
// A child that dies within a second of its start is replaced after a second, as one of a
// batch that doubles every second: there may be no room for all.
func (p *Pool) Fill() (wait time.Duration, err error) {
	if time.Since(p.next) >= time.Second {
		p.batch = 0 // no child of the last batch has died young
	}
	started := 0
	for index := range p.children {
		c := &p.children[index]
		if c.pid != 0 {
			continue
		}
		if p.batch > 0 && started == p.batch {
			p.batch *= 2
			p.next = time.Now().Add(time.Second)
		}
		if wait := time.Until(p.next); wait > 0 {
			return wait, nil
		}
		pid, err := p.create(index)
		if sock.Exhausted(err) {
			log.Print(err)
			p.lived = time.Now() // at least, none died
			p.next = p.lived.Add(time.Second)
			return time.Second, nil
		}
		if err != nil {
			return 0, err
		}
		c.pid, c.started = pid, time.Now()
		started++
	}
	return time.Hour, nil
}

// Reap empties the places of the children that have ended, and logs how they ended. It
// returns an error when no child has lived for a second in the last ten seconds.
func (p *Pool) Reap() error {
	now := time.Now()
	young := func(c child) bool { return now.Sub(c.started) < time.Second }
	if slices.ContainsFunc(p.children, func(c child) bool { return c.pid != 0 && !young(c) }) {
		p.lived = now
	}
	for pid, exit := range Ended {
		index := slices.IndexFunc(p.children, func(c child) bool { return c.pid == pid })
		if index < 0 {
			continue // not ours: a child of the shell that became this program by exec
		}
		c := &p.children[index]
		log.Printf("child %d (PID %d) %v", index, pid, exit)
		if young(*c) {
			p.batch, p.next = 1, now.Add(time.Second)
		}
		c.pid = 0
		c.switches += exit.Switches
	}
	if p.batch > 0 && now.Sub(p.lived) > 10*time.Second {
		return errors.New("children die as soon as they start")
	}
	return nil
}

// End ends the children as the function [End] does.
func (p *Pool) End(timeout time.Duration) {
	places := make(map[int]*child)
	for index := range p.children {
		if c := &p.children[index]; c.pid != 0 {
			places[c.pid] = c
		}
	}
	for pid, exit := range End(maps.Keys(places), timeout) {
		places[pid].switches += exit.Switches
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

// Died returns a channel that receives a signal after a child has died. One signal may
// stand for several deaths: look for all of them, with [Ended].
func Died() <-chan os.Signal {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	return died
}

// An Exit is how a child has ended, and how often it had to wait until then.
type Exit struct {
	unix.WaitStatus
	Switches int64 // voluntary context switches
}

// String returns "exited with status 1" or "was killed by SIGKILL", for example.
func (e Exit) String() string {
	if e.Signaled() {
		return "was killed by " + unix.SignalName(e.Signal())
	}
	return fmt.Sprintf("exited with status %d", e.ExitStatus())
}

// Ended is an iterator over the children that have ended: it yields the PID of each, and
// how it ended. It does not wait for the others (wait4(2), WNOHANG).
func Ended(yield func(pid int, exit Exit) bool) {
	for {
		var status unix.WaitStatus
		var usage unix.Rusage
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, &usage)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid == 0 || !yield(pid, Exit{status, usage.Nvcsw}) {
			return // there is no child (ECHILD), or none that has ended
		}
	}
}

// End ends these children, and returns how they ended. It sends SIGTERM to each, on which a
// child finishes its reply, and SIGKILL to those that still run after timeout. Nothing else
// may use [Ended] meanwhile.
func End(pids iter.Seq[int], timeout time.Duration) (ended map[int]Exit) {
	died, deadline := Died(), time.After(timeout)
	told := make(map[int]bool) // the children that run, and whether they have got SIGTERM
	for pid := range pids {
		told[pid] = false
	}
	ended = make(map[int]Exit)
	for {
		for pid, exit := range Ended {
			if _, ours := told[pid]; ours {
				ended[pid] = exit
				delete(told, pid)
			}
		}
		if len(told) == 0 {
			return ended
		}
		var again <-chan time.Time
		for pid := range told {
			if !told[pid] && ready(pid) {
				kill(pid, unix.SIGTERM)
				told[pid] = true
			}
			if !told[pid] {
				again = time.After(time.Millisecond)
			}
		}
		select {
		case <-died:
		case <-again:
		case <-deadline:
			for pid := range told {
				kill(pid, unix.SIGKILL)
			}
		}
	}
}

func kill(pid int, sig unix.Signal) {
	if err := unix.Kill(pid, sig); err != nil {
		log.Printf("send %s to the child with PID %d: %v", unix.SignalName(sig), pid, err)
	}
}
