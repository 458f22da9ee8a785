// Package reexec stands in for fork(2). A Go program cannot call fork and go on in the
// child: the child has only the thread that called fork, and the other threads of the
// Go runtime are gone (fork(2), "Notes"). So a child is this program, executed again with
// the same arguments. It inherits the descriptors that a forked child would use.
package reexec

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// FirstFile is the descriptor that the first of a child's files has. The others follow.
const FirstFile = 3

// mark separates, in argv[0] of a child, the program's name from the child's index. The
// reader of ps(1) sees "server03: child 7".
const mark = ": child "

// The kernel kills a child when the thread that started it ends (PR_SET_PDEATHSIG,
// prctl(2)). So children are started by the main thread, which lives as long as the
// process: main stays on it.
func init() {
	if !strings.Contains(os.Args[0], mark) {
		runtime.LockOSThread()
		os.Setenv("GOMAXPROCS", "1") // for the children: the Go runtime starts faster
	}
}

// InChild is true in a child.
var InChild bool

// Child makes this process a child, if [Start] has started it, and returns its index. In
// another process ok is false. Call it first.
//
// A child ignores SIGINT and SIGHUP: a terminal sends them to all processes, and it is the
// parent that decides what they mean. SIGTERM, by which the parent tells a child to end,
// arrives on the channel.
func Child() (index int, terminate <-chan os.Signal, ok bool) {
	name, number, ok := strings.Cut(os.Args[0], mark)
	index, err := strconv.Atoi(number)
	if !ok || err != nil {
		return 0, nil, false
	}
	InChild, os.Args[0] = true, name
	become(name)
	signal.Ignore(unix.SIGINT, unix.SIGHUP)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	if group, err := unix.Getpgid(os.Getppid()); err == nil {
		unix.Setpgid(0, group) // now it is ready; this fails only when the parent is gone
	}
	return index, signals, true
}

// ready reports whether a child can handle signals. Until its Go runtime has started, any
// signal kills it. So it starts in a process group of its own, where no signal from the
// terminal finds it, and joins the group of its parent when it is ready.
//
// In a PID namespace the parent's group may be one from outside, which has no number here,
// and is 0. A child starts in that group, then, and leaves it when it is ready.
func ready(pid int) bool {
	parents := unix.Getpgrp()
	group, err := unix.Getpgid(pid)
	return err == nil && (group == parents || parents == 0 && group == pid)
}

// Start starts this program again as the child with this index, and returns its PID. In
// the child the files are the descriptors from [FirstFile] on. Standard input, output and
// error are those of the parent; everything else is closed.
//
// Only the goroutine of main may call Start, as a child dies with the thread that started
// it.
func Start(index int, files ...int) (pid int, err error) {
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: attributes}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	args := slices.Clone(os.Args)
	args[0] = filepath.Base(args[0]) + mark + strconv.Itoa(index)
	if pid, err = syscall.ForkExec(executable, args, attr); err != nil {
		return 0, fmt.Errorf("start child %d: %w", index, err)
	}
	return pid, nil
}

// Yield tells the scheduler of the Go runtime, in every eighth call, that the process is not
// busy with a long computation. The runtime's monitor thread takes a goroutine for busy that
// has not been scheduled again for 10 ms, even if it only waits in one system call after the
// other, and takes its processor away, again and again.
//
// It is for a process with one goroutine that works. A goroutine that is locked to its thread
// should not yield: that would be two context switches.
func Yield() {
	if calls.Add(1)%8 == 0 {
		runtime.Gosched()
	}
}

var calls atomic.Int64
