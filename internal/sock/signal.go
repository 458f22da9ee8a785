package sock

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// Stop returns a channel that receives the signal to stop: SIGINT, SIGTERM or SIGHUP.
// SIGHUP stays ignored if it was ignored when the program started (nohup(1)).
//
// A second after timeout has passed since then, the program exits, no matter what it is
// doing: it may be blocked, for example in a write to a pipe that is full.
func Stop(timeout time.Duration) <-chan os.Signal {
	signals := []os.Signal{unix.SIGINT, unix.SIGTERM}
	if !signal.Ignored(unix.SIGHUP) {
		signals = append(signals, unix.SIGHUP)
	}
	stop, late := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(stop, signals...)
	signal.Notify(late, signals...)
	go func() {
		<-late
		time.Sleep(timeout + time.Second)
		os.Exit(0)
	}()
	return stop
}

// SignalPipe returns a descriptor that becomes readable when a signal arrives on the
// channel, and remains so until it is read. It is the self-pipe trick: a program that waits
// for descriptors waits for signals, too (Kerrisk, section 63.5.2).
func SignalPipe(signals <-chan os.Signal) (fd int, err error) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		return -1, fmt.Errorf("create the pipe for signals: %w", err)
	}
	unix.CloseOnExec(pipe[0])
	unix.CloseOnExec(pipe[1])
	go func() {
		for range signals {
			unix.Write(pipe[1], []byte{0}) // both ends are open as long as the process lives
		}
	}()
	return pipe[0], nil
}
