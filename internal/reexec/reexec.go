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

	"golang.org/x/sys/unix"
)

// FirstFile is the descriptor that the first of a child's files has. The others follow.
const FirstFile = 4

// logFile is the standard error of the parent. Package log writes to it. The child's own
// standard error cannot be written to, because the Go runtime prints a long stack trace there
// when it cannot start a thread. The parent says in a line that the child has died.
const logFile = 3

// variable is the environment variable that makes this process a child: "7 of 1234" is the
// child with the index 7 of the process 1234.
const variable = "CSDESIGN_CHILD"

// Child makes this process a child, if [Start] has started it, and returns its index. In
// another process ok is false; there main stays on its thread from now on, because the kernel
// kills a child when the thread that started it ends (PR_SET_PDEATHSIG, prctl(2)). Call it
// first in main.
//
// A child ignores SIGINT and SIGHUP: a terminal sends them to all processes, and it is the
// parent that decides what they mean. SIGTERM, by which the parent tells a child to end,
// arrives on the channel.
func Child() (index int, terminate <-chan os.Signal, ok bool) {
	number, parent, ok := strings.Cut(os.Getenv(variable), " of ")
	if !ok {
		runtime.LockOSThread()
		return 0, nil, false
	}
	index, err := strconv.Atoi(number)
	if err != nil {
		os.Exit(1)
	}
	os.Args[0] = strings.TrimSuffix(os.Args[0], childName(index))
	dieWithParent(os.Args[0])
	if strconv.Itoa(os.Getppid()) != parent {
		os.Exit(1) // the parent died before dieWithParent
	}
	log.SetOutput(os.NewFile(logFile, "standard error"))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	signal.Ignore(unix.SIGINT, unix.SIGHUP) // last: from now on a child can handle all signals
	return index, signals, true
}

// Start starts this program again as the child with this index, and returns its PID. In
// the child the files are the descriptors from [FirstFile] on. Standard input and output are
// those of the parent, and so is the standard error of package log; everything else is closed.
//
// Only the goroutine of main may call Start, see [Child].
func Start(index int, files ...int) (pid int, err error) {
	if first.Do(prepare); prepareErr != nil {
		return 0, fmt.Errorf("start child %d: open %s: %w", index, executable, prepareErr)
	}
	attr := &syscall.ProcAttr{Files: []uintptr{0, 1, uintptr(readOnly), logFile: 2}, Sys: attributes}
	attr.Env = append(os.Environ(), fmt.Sprintf("GOMAXPROCS=%d", processors), fmt.Sprintf("%s=%d of %d", variable, index, os.Getpid()))
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	args := slices.Clone(os.Args)
	args[0] = filepath.Base(args[0]) + childName(index)
	// In a process that has just started, or was idle, the monitor thread of the Go runtime
	// wakes up every 20 µs. That is a fifth of the CPU time of a child that lives for one
	// connection. With this slack the kernel lets the monitor sleep for up to 10 ms.
	setTimerSlack(10e6)
	defer setTimerSlack(0)
	if pid, err = syscall.ForkExec(executable, args, attr); err != nil {
		return 0, fmt.Errorf("start child %d: execute %s: %w", index, executable, err)
	}
	return pid, nil
}

// childName is what the reader of ps(1) sees behind the name of the program.
func childName(index int) string { return fmt.Sprintf(": child %d", index) }

// processors is the GOMAXPROCS of children. The Go runtime starts faster with one.
var processors = 1

var (
	first      sync.Once
	prepareErr error
	readOnly   int // a descriptor for a child's standard error
)

func prepare() {
	closeInherited()
	readOnly, prepareErr = unix.Open(executable, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	// The Go runtime aborts if it needs a thread at the limit of processes. Start four now.
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
