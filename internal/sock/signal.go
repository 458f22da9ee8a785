package sock

import (
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// StopSignal returns a channel that receives the signal to stop: SIGINT, SIGTERM or SIGHUP.
// SIGHUP stays ignored if it was ignored when the program started (nohup(1)).
//
// From then on the shutdown is bounded. If the program still runs after a second, it says why.
// A second SIGINT or SIGTERM ends it at once, with 128 and the signal's number as its exit
// status. A second after [Timeout] has passed it exits with status 0, whatever it is doing: it
// may be blocked, for example in a write to a pipe that is full.
func StopSignal() <-chan os.Signal {
	signals := []os.Signal{unix.SIGINT, unix.SIGTERM}
	if !signal.Ignored(unix.SIGHUP) {
		signals = append(signals, unix.SIGHUP)
	}
	first, all := make(chan os.Signal, 1), make(chan os.Signal, 2)
	signal.Notify(first, signals...)
	signal.Notify(all, signals...)
	go func() {
		<-all
		slow, late := time.After(time.Second), time.After(Timeout+time.Second)
		for {
			select {
			case <-slow:
				log.Print("waiting for replies under way, press Ctrl-C again to end now")
			case <-late:
				os.Exit(0)
			case sig := <-all:
				if sig != unix.SIGHUP {
					os.Exit(128 + int(sig.(unix.Signal)))
				}
			}
		}
	}()
	return first
}

// Yielder returns a function that lets the scheduler of the Go runtime run, every 8 ms. It is for
// a loop of one goroutine.
//
// A goroutine that makes one system call after the other never calls the scheduler. After 10 ms
// the monitor thread of the runtime takes it for a long computation: in each further call that
// blocks it takes the processor away, and it never sleeps for longer than 20 µs. A yield may wake
// another thread, so it does not come more often, and at most in every fourth round.
func Yielder() (yield func()) {
	rounds, last := 0, time.Now()
	return func() {
		rounds++
		if now := time.Now(); rounds >= 4 && now.Sub(last) >= 8*time.Millisecond {
			rounds, last = 0, now
			runtime.Gosched()
		}
	}
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
			for done := false; !done; { // a signal must not be lost
				_, err := unix.Write(pipe[1], []byte{0})
				if err != nil {
					err = fmt.Errorf("write to the pipe for signals: %w", err)
				}
				if done = !Retry(err); done && err != nil {
					log.Fatal(err)
				}
			}
		}
	}()
	return pipe[0], nil
}
