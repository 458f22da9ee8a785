// Server05a is a concurrent TCP server with one goroutine for each client. It is what a Go
// programmer writes: package net accepts a connection, and a goroutine serves it with calls
// that seem to block. Beneath, all sockets are non-blocking, and a goroutine whose call would
// block is parked until the epoll of the Go runtime says that its socket is ready. So it is
// written as server05 is, and waits as server07 does.
//
// See the documentation of package net, and src/runtime/netpoll.go in the Go sources.
package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"time"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

func handle(conn *net.TCPConn, fd int) error {
	defer conn.Close()
	defer sock.Done(fd)
	count, err := readRequest(conn)
	if err != nil {
		return err
	}
	echo.LogRequest(count)
	for reply := echo.NewReply(fd, count); reply.Left() > 0; {
		conn.SetWriteDeadline(time.Now().Add(sock.Tick())) // deadlines are the only timeouts of package net
		n, err := conn.Write(reply.Chunk())
		if err := reply.Sent(n, cause(err)); err != nil {
			return err
		}
	}
	return sock.Linger(fd, count, func(_ int, p []byte) (n int, err error) {
		conn.SetReadDeadline(time.Now().Add(sock.Tick()))
		n, err = conn.Read(p)
		return n, cause(err)
	})
}

// cleanup ends the program when the signal comes.
func cleanup(listener *net.TCPListener, stop <-chan os.Signal) {
	<-stop
	listener.Close()
	sock.StopServing()
	sock.Exit(nil) // when the replies under way are finished
}

func serveForever(addr netip.AddrPort) error {
	listener, port, err := listen(addr)
	if err != nil {
		return err
	}
	go cleanup(listener, sock.StopSignal())
	fmt.Printf("Listening on port %d ...\n", port)

	for {
		conn, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			select {} // cleanup ends the program
		}
		if sock.Retry(err) {
			continue
		}
		if err != nil {
			return err
		}
		fd, err := descriptor(conn)
		if err != nil {
			return err
		}
		sock.Serve(fd) // here: the program must not end before the goroutine knows of it
		go func() {
			if err := handle(conn, fd); err != nil {
				log.Printf("%v: %v", conn.RemoteAddr(), err)
			}
		}()
	}
}

func main() {
	addr := option.Server()
	option.Parse()
	sock.Exit(serveForever(*addr))
}
