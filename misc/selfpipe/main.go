//go:build linux

// Selfpipe shows a signal that comes between a check and a call that waits, and two ways not to
// miss it.
//
// See Kerrisk, The Linux Programming Interface, section 63.5, and signalfd(2).
package main

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/misc/internal/tcp"
)

// wait waits for a descriptor, for at most a second, and says how long that was.
func wait(fd int) string {
	begin := time.Now()
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 1000)
	for err == unix.EINTR { // poll is never restarted after a handler has run (signal(7))
		n, err = unix.Poll(fds, int(1000-time.Since(begin).Milliseconds()))
	}
	tcp.Must("poll", err)
	if n == 0 {
		return fmt.Sprintf("waits for %.1f s", time.Since(begin).Seconds())
	}
	return "returns at once"
}

// handle calls a function after each SIGUSR1, and sends one, which is handled when it returns.
func handle(f func()) {
	signals, handled := make(chan os.Signal, 1), make(chan bool)
	signal.Notify(signals, unix.SIGUSR1)
	go func() {
		<-signals
		f()
		close(handled)
	}()
	tcp.Must("kill", unix.Kill(os.Getpid(), unix.SIGUSR1))
	<-handled
	signal.Stop(signals)
}

func main() {
	never, _ := tcp.Listen(1) // nobody connects
	var pipe [2]int
	tcp.Must("pipe", unix.Pipe(pipe[:]))

	var come atomic.Bool
	if !come.Load() { // the check says no, and then the signal comes
		handle(func() { come.Store(true) })
		fmt.Println("a flag:      poll", wait(never))
	}

	handle(func() { unix.Write(pipe[1], []byte{0}) })
	fmt.Println("a self-pipe: poll", wait(pipe[0]))

	// A thread that blocks the signal, and reads it from a descriptor.
	runtime.LockOSThread()
	var set unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGUSR1 - 1)
	tcp.Must("sigmask", unix.PthreadSigmask(unix.SIG_BLOCK, &set, nil))
	fd, err := unix.Signalfd(-1, &set, unix.SFD_CLOEXEC)
	tcp.Must("signalfd", err)
	tcp.Must("tgkill", unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGUSR1))
	fmt.Println("a signalfd:  poll", wait(fd))
}
