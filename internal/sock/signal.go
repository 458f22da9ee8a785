package sock

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// StopPipe returns a descriptor that becomes readable, and remains so, when
// SIGINT, SIGTERM or SIGHUP arrives. A program that waits for descriptors waits
// for signals with it too: the self-pipe trick (Kerrisk 63.5.2).
func StopPipe() (fd int, err error) {
	var pipe [2]int
	if err := unix.Pipe(pipe[:]); err != nil {
		return -1, fmt.Errorf("create the pipe for signals: %w", err)
	}
	unix.CloseOnExec(pipe[0])
	unix.CloseOnExec(pipe[1])
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		<-stop
		unix.Close(pipe[1])
	}()
	return pipe[0], nil
}
