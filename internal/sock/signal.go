package sock

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// SignalPipe returns a descriptor that becomes readable when one of these signals
// arrives, and remains so until it is read. A program that waits for descriptors
// waits for signals with it too: the self-pipe trick (Kerrisk 63.5.2).
func SignalPipe(signals ...os.Signal) (fd int, err error) {
	pipe, err := nonblockingPipe()
	if err != nil {
		return -1, fmt.Errorf("create the pipe for signals: %w", err)
	}
	arrived := make(chan os.Signal, 1)
	signal.Notify(arrived, signals...)
	go func() {
		for range arrived {
			unix.Write(pipe[1], []byte{0}) // when it is full, it is readable
		}
	}()
	return pipe[0], nil
}

func nonblockingPipe() (pipe [2]int, err error) {
	if err := unix.Pipe(pipe[:]); err != nil {
		return pipe, err
	}
	for _, fd := range pipe {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			return pipe, err
		}
	}
	return pipe, nil
}
