//go:build linux

// Sigpipe writes to a client that has gone.
//
// See write(2), EPIPE, send(2), MSG_NOSIGNAL, and Stevens, UNIX Network Programming, section 5.13.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/misc/internal/tcp"
)

// signals counts the SIGPIPEs that come.
func signals(received <-chan os.Signal) (count int) {
	for {
		select {
		case <-received:
			count++
		case <-time.After(100 * time.Millisecond):
			return count
		}
	}
}

func main() {
	received := make(chan os.Signal, 10)
	signal.Notify(received, unix.SIGPIPE) // without it, the Go runtime ignores SIGPIPE of a socket

	client, server := tcp.Pair()
	unix.Close(client)
	n, err := unix.Write(server, []byte("reply"))
	fmt.Printf("first write:  %d bytes, error %v, %d signals\n", n, err, signals(received))
	_, err = unix.Write(server, []byte("reply"))
	fmt.Printf("second write: error %v, %d signals\n", err, signals(received))
	err = unix.Sendto(server, []byte("reply"), unix.MSG_NOSIGNAL, nil)
	fmt.Printf("send with MSG_NOSIGNAL: error %v, %d signals\n", err, signals(received))
}
