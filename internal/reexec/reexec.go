// Package reexec stands in for fork(2). A Go program cannot call fork and go on in the
// child: the child has only the thread that called fork, and the other threads of the
// Go runtime are gone (fork(2), "Notes"). So a child is this program, executed again with
// the same arguments. It inherits the descriptors that a forked child would use.
package reexec

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FirstFile is the descriptor that the first of a child's files has. The others follow.
const FirstFile = 4

// logFile is the standard error of the parent. Package log writes to it. The child's own
// standard error is closed, because the Go runtime prints a long stack trace there when it
// cannot start a thread. The parent says in a line that the child has died.
const logFile = 3

// mark separates, in argv[0] of a child, the program's name from the child's index. The
// reader of ps(1) sees "server03: child 7".
const mark = ": child "

// parent is the environment variable that has the PID of a child's parent.
const parent = "CSDESIGN_PARENT"

// index is the child's index, or -1 in another process.
var index = -1

func init() {
	if name, number, ok := strings.Cut(os.Args[0], mark); ok {
		os.Args[0] = name
		index, _ = strconv.Atoi(number)
		become(name)
		if strconv.Itoa(os.Getppid()) != os.Getenv(parent) {
			os.Exit(1) // the parent died before become
		}
		return
	}
	// The kernel kills a child when the thread that started it ends (PR_SET_PDEATHSIG,
	// prctl(2)). So children are started by the main thread, which lives as long as the
	// process: main stays on it.
	runtime.LockOSThread()
	closeInherited()
	os.Setenv("GOMAXPROCS", "1") // for the children: the Go runtime starts faster
	os.Setenv(parent, strconv.Itoa(os.Getpid()))
}

// InChild reports whether [Start] has started this process.
func InChild() bool { return index >= 0 }

// Child makes this process a child, if [Start] has started it, and returns its index. In
// another process ok is false. Call it first.
//
// A child ignores SIGINT and SIGHUP: a terminal sends them to all processes, and it is the
// parent that decides what they mean. SIGTERM, by which the parent tells a child to end,
// arrives on the channel.
func Child() (i int, terminate <-chan os.Signal, ok bool) {
	if !InChild() {
		return 0, nil, false
	}
	log.SetOutput(os.NewFile(logFile, "standard error"))
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
// the child the files are the descriptors from [FirstFile] on. Standard input and output are
// those of the parent, and so is the standard error of package log; everything else is closed.
//
// Only the goroutine of main may call Start, as a child dies with the thread that started
// it.
func Start(index int, files ...int) (pid int, err error) {
	spare.Do(startThreads)
	const closed = ^uintptr(0)
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, closed, logFile: 2}, Sys: attributes}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	args := slices.Clone(os.Args)
	args[0] = filepath.Base(args[0]) + mark + strconv.Itoa(index)
	// In a process that has just started, or was idle, the monitor thread of the Go runtime
	// looks at it every 20 µs. That would be a fifth of the CPU time of a child that lives for
	// one connection. With this slack the kernel lets the monitor sleep for up to 10 ms.
	setTimerSlack(10e6)
	defer setTimerSlack(0)
	if pid, err = syscall.ForkExec(executable, args, attr); err != nil {
		return 0, fmt.Errorf("start child %d: execute %s: %w", index, executable, err)
	}
	return pid, nil
}

// startThreads starts threads for the Go runtime, which die if it needs one when the children
// have used up the limit of processes. They sleep until they are needed.
func startThreads() {
	var started sync.WaitGroup
	started.Add(4)
	for range 4 {
		go func() {
			runtime.LockOSThread()
			started.Done()
			started.Wait()
			runtime.UnlockOSThread()
		}()
	}
	started.Wait()
}

var spare sync.Once

// Yield tells the scheduler of the Go runtime that the process is not busy with a long
// computation. The runtime's monitor thread thinks so of a goroutine that has not been scheduled
// again for 10 ms, even if it only waits in one system call after the other, and takes its
// processor away again and again. A call of the scheduler wakes another thread, so it is made
// every 8 ms and not more often.
//
// Yield is for a process with one goroutine that works. A goroutine that is locked to its thread
// should not yield: that would be two context switches.
func Yield() {
	if now := time.Now(); now.Sub(yielded) >= 8*time.Millisecond {
		yielded = now
		runtime.Gosched()
	}
}

var yielded time.Time
