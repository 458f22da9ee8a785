// Package reexec stands in for fork(2), which a Go program cannot call and go on:
// the child has only the thread that forked, and the other threads of the runtime
// are gone (fork(2), "Notes"). So a child is this program, executed again, with
// the parent's arguments and with the descriptors that a forked child would have
// inherited.
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
	"syscall"

	"golang.org/x/sys/unix"
)

// mark stands between a child's program and its index in argv[0], where ps(1)
// shows it.
const mark = ": child "

// FirstFile is the descriptor that the first of a child's files has; the others
// follow.
const FirstFile = 3

// A child gets SIGKILL when the thread that started it ends (prctl(2),
// PR_SET_PDEATHSIG). The first thread of a process ends with the process, and main
// is kept on it.
func init() { runtime.LockOSThread() }

// Child returns the index of this process among its parent's children, and false
// if it was not started by [Start]. It is to be called first, as it makes the
// process a child.
//
// A child ignores SIGINT and SIGHUP. The terminal sends them to every process, but
// what they mean is the parent's to decide. SIGTERM, by which the parent tells the
// child to end, arrives at the channel.
func Child() (index int, terminate <-chan os.Signal, ok bool) {
	i := strings.LastIndex(os.Args[0], mark)
	if i < 0 {
		return 0, nil, false
	}
	index, err := strconv.Atoi(os.Args[0][i+len(mark):])
	if err != nil {
		return 0, nil, false
	}
	runtime.UnlockOSThread()
	become(filepath.Base(os.Args[0][:i]))
	signal.Ignore(unix.SIGINT, unix.SIGHUP)
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	if group, err := unix.Getpgid(os.Getppid()); err == nil {
		unix.Setpgid(0, group) // fails only when there is no parent any more
	}
	return index, term, true
}

// ready reports whether a child can take a signal. For a millisecond, until its
// runtime is up, any signal would kill it, so it starts in a process group of its own,
// where the terminal does not find it, and comes back to ours when it is out of
// danger. (What remains is the moment between its fork(2) and its setpgid(2). A child
// that is killed then is reaped and reported as any other.)
func ready(pid int) bool {
	group, err := unix.Getpgid(pid)
	return err == nil && group == unix.Getpgrp()
}

// Start starts this program again as the child with the given index. In the child
// the files are descriptors [FirstFile] and up, and standard input, output and
// error are the parent's; all else is closed. Start is for main's goroutine alone:
// the child does not outlive the thread that started it.
func Start(index int, files ...int) (pid int, err error) {
	attr := &syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2}, Sys: attributes}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	args := slices.Clone(os.Args)
	args[0] = filepath.Base(os.Args[0]) + mark + strconv.Itoa(index)
	pid, err = syscall.ForkExec(executable, args, attr)
	if err != nil {
		return 0, fmt.Errorf("start child %d: %w", index, err)
	}
	return pid, nil
}

// env has one change: a child runs a single goroutine that matters, and the
// runtime starts faster when it prepares for no more.
var env = append(slices.DeleteFunc(os.Environ(), func(s string) bool {
	return strings.HasPrefix(s, "GOMAXPROCS=")
}), "GOMAXPROCS=1")

// Describe says how a child ended: "exited with status 1", "was killed by SIGKILL".
func Describe(status unix.WaitStatus) string {
	if status.Signaled() {
		return "was killed by " + unix.SignalName(status.Signal())
	}
	return fmt.Sprintf("exited with status %d", status.ExitStatus())
}
