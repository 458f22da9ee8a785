//go:build linux

// Rst shows three ways in which a client gets a reset (RST) instead of the end of a connection.
//
// See tcp(7), and Stevens, UNIX Network Programming, sections 4.3, 5.15 and 7.5.
package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"csdesign/misc/internal/tcp"
)

// result says what a client reads.
func result(client int) (said string) {
	for {
		n, err := unix.Read(client, make([]byte, 100))
		switch {
		case err != nil:
			return said + err.Error()
		case n == 0:
			return said + "the end"
		}
		said += fmt.Sprintf("%d bytes, then ", n)
	}
}

func main() {
	client, server := tcp.Pair()
	unix.Close(server)
	fmt.Println("the server closes:               ", result(client))

	client, server = tcp.Pair()
	unix.Write(client, []byte("hello"))
	unix.Close(server)
	fmt.Println("it closes with something unread: ", result(client))

	client, server = tcp.Pair()
	unix.Write(server, []byte("a reply"))
	unix.SetsockoptLinger(server, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
	unix.Close(server)
	fmt.Println("it closes with SO_LINGER 0:      ", result(client))

	listener, addr := tcp.Listen(1)
	unix.Close(listener)
	fmt.Println("nobody listens, connect returns: ", unix.Connect(tcp.Socket(), addr))
}
