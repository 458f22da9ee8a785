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

// isChild says that [Start] has started this process.
var isChild bool

// Child makes this process a child, if [Start] has started it, and returns its index. In
// another process ok is false; there main stays on its thread from now on, because the kernel
// kills a child when the thread that started it ends (PR_SET_PDEATHSIG, prctl(2)). Call it
// first in main.
//
// A child ignores SIGINT and SIGHUP: a terminal sends them to all processes, and it is the
// parent that decides what they mean. SIGTERM, by which the parent tells a child to end,
// arrives on the channel.
func Child() (index int, terminate <-chan os.Signal, ok bool) {
	var parent int
	if n, _ := fmt.Sscanf(os.Getenv(variable), "%d of %d", &index, &parent); n != 2 {
		runtime.LockOSThread()
		return 0, nil, false
	}
	os.Args[0] = strings.TrimSuffix(os.Args[0], childName(index))
	dieWithParent(os.Args[0])
	if _, err := unix.FcntlInt(logFile, unix.F_GETFD, 0); err == unix.EBADF || os.Getppid() != parent {
		// The parent died before dieWithParent. Or somebody else has set the variable.
		fmt.Fprintf(os.Stderr, "%s: %s is for the children of process %d\n", filepath.Base(os.Args[0]), variable, parent)
		os.Exit(1)
	}
	log.SetOutput(os.NewFile(logFile, "standard error"))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM)
	signal.Ignore(unix.SIGINT, unix.SIGHUP) // last: from now on a child can handle all signals
	isChild = true
	return index, signals, true
}

// Processors is the GOMAXPROCS of children. They live in calls that block. After 20 µs the monitor
// thread of the Go runtime takes the processor away from a thread in such a call, and the thread
// has to ask for one when it returns. With a second processor, which is idle, it waits 10 ms.
var Processors = 2

// Start starts this program again as the child with this index, and returns its PID. In
// the child the files are the descriptors from [FirstFile] on. Standard input and output are
// those of the parent, and so is the standard error of package log; everything else is closed.
//
// Only the goroutine of main may call Start, see [Child].
func Start(index int, files ...int) (pid int, err error) {
	if err := prepare(); err != nil {
		return 0, fmt.Errorf("start child %d: %w", index, err)
	}
	attr := &syscall.ProcAttr{Files: []uintptr{0, 1, uintptr(token), logFile: 2}, Sys: attributes}
	for _, fd := range files {
		attr.Files = append(attr.Files, uintptr(fd))
	}
	// Of a variable that is there twice, the first counts.
	attr.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, variable+"=") || strings.HasPrefix(v, "GOMAXPROCS=")
	})
	attr.Env = append(attr.Env, fmt.Sprintf("%s=%d of %d", variable, index, os.Getpid()), fmt.Sprintf("GOMAXPROCS=%d", Processors))
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

// token is the read end of a pipe with one byte in it, which is the standard error of all children.
// Nothing can be written there, and [FirstOfAll] takes the byte. It is -1 until it is needed.
var token = -1

// prepare does what the first call of Start needs. After an error the next call tries again.
func prepare() error {
	if token >= 0 {
		return nil
	}
	if err := closeInherited(); err != nil {
		return err
	}
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		return fmt.Errorf("create a pipe: %w", err)
	}
	unix.CloseOnExec(pipe[0])
	_, err := unix.Write(pipe[1], []byte{0})
	unix.Close(pipe[1])
	if err != nil {
		unix.Close(pipe[0])
		return fmt.Errorf("write to a pipe: %w", err)
	}
	token = pipe[0]
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
	return nil
}

var first sync.Once

// FirstOfAll returns true at most once: to its first caller in a process that is no child, or to
// one caller among all the children of a parent.
func FirstOfAll() (yes bool) {
	first.Do(func() {
		yes = true
		if isChild {
			n, _ := unix.Read(unix.Stderr, make([]byte, 1)) // the token, or the end of the pipe
			yes = n == 1
		}
	})
	return yes
}
