//go:build linux

// Halfclose closes one direction of a connection, and uses the other one.
//
// See shutdown(2), and Stevens, UNIX Network Programming, section 6.6.
package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/misc/internal/tcp"
)

func main() {
	client, server := tcp.Pair()
	show := func(what string) {
		fmt.Printf("%-33s client %-11s server %s\n", what, tcp.State(client), tcp.State(server))
	}
	show("connected:")
	unix.Write(client, []byte("request"))
	unix.Shutdown(client, unix.SHUT_WR)
	for tcp.State(client) == "FIN-WAIT-1" { // until the server's TCP has acknowledged the end
		time.Sleep(time.Millisecond)
	}
	show("the client has shut down writing:")
	buf := make([]byte, 100)
	n, _ := unix.Read(server, buf)
	end, _ := unix.Read(server, buf)
	fmt.Printf("the server reads %d bytes, then %d\n", n, end)
	unix.Write(server, []byte("reply"))
	n, _ = unix.Read(client, buf)
	fmt.Printf("the server writes a reply, and the client reads %d bytes\n", n)
	_, err := unix.SendmsgN(client, []byte("more"), nil, nil, unix.MSG_NOSIGNAL)
	fmt.Println("the client can write no more:", err)
}
