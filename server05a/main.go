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
	"sync"
	"time"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

// conns has the connections that are being served.
var conns sock.Conns

// requests has room for requests. A goroutine gets it for as long as it serves.
var requests = sync.Pool{New: func() any { return new([echo.MaxRequest + 1]byte) }}

func handle(conn *net.TCPConn, timeout time.Duration) error {
	defer conn.Close()
	fd, err := descriptor(conn)
	if err != nil {
		return err
	}
	conns.Add(fd)
	defer conns.Remove(fd)
	// Deadlines are the only timeouts of package net.
	conn.SetReadDeadline(time.Now().Add(timeout))
	request := requests.Get().(*[echo.MaxRequest + 1]byte)
	defer requests.Put(request)
	n, err := conn.Read(request[:])
	if err = cause(err); err != nil {
		return echo.ReadError(err, timeout)
	}
	count, err := echo.ParseRequest(request[:n])
	if err != nil {
		return err
	}
	option.LogRequest("Got request to send %d bytes. Sending them all...\n", count)
	reply := echo.NewReply(fd, count, timeout)
	for reply.Left() > 0 {
		conn.SetWriteDeadline(time.Now().Add(sock.Tick(timeout)))
		n, err := conn.Write(reply.Chunk())
		if err := reply.Sent(n, cause(err)); err != nil {
			return err
		}
	}
	return sock.LingerWith(fd, count, timeout, func(p []byte) (n int, err error) {
		conn.SetReadDeadline(time.Now().Add(sock.Tick(timeout)))
		n, err = conn.Read(p)
		return n, cause(err)
	})
}

// cleanup ends the program.
func cleanup(listener *net.TCPListener, timeout time.Duration) {
	listener.Close()
	conns.Shutdown(timeout) // finish the replies under way
	os.Exit(0)
}

// serveForever returns only when something has gone wrong.
func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	listener, err := listen(addr)
	if err != nil {
		return err
	}
	stop := sock.Stop(timeout)
	go func() {
		<-stop
		cleanup(listener, timeout)
	}()
	fmt.Printf("Listening on port %d ...\n", listener.Addr().(*net.TCPAddr).Port)

	for {
		conn, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			select {} // cleanup ends the program
		}
		if sock.LimitReached(err) {
			sock.Pause(err)
			continue
		}
		if err != nil {
			return err
		}
		go func() {
			if err := handle(conn, timeout); err != nil {
				log.Printf("%v: %v", conn.RemoteAddr(), err)
			}
		}()
	}
}

func main() {
	host, port, timeout := option.Server()
	option.Parse()
	log.Fatal(serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout))
}
