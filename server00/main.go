// Server00 is an iterative TCP server: one process that serves one client at a time. While it
// is busy with a client, the others wait in the backlog, also if that client says nothing. It
// has no concurrency and so no cost of concurrency, and all other designs can be measured
// against it.
//
// See Stevens, UNIX Network Programming, sections 1.5 and 30.4, and Kerrisk, The Linux
// Programming Interface, section 60.1.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

// conns has the connection that is being served.
var conns sock.Conns

func handle(conn int, request []byte, timeout time.Duration) error {
	conns.Add(conn)
	defer conns.Close(conn)
	n, err := unix.Read(conn, request)
	for err == unix.EINTR { // a signal
		n, err = unix.Read(conn, request)
	}
	if err != nil {
		return echo.ReadError(err, timeout)
	}
	count, err := echo.ParseRequest(request[:n])
	if err != nil {
		return err
	}
	option.LogRequest("Got request to send %d bytes. Sending them all...\n", count)
	reply := echo.NewReply(conn, count, timeout)
	for reply.Left() > 0 {
		n, err := unix.Write(conn, reply.Chunk())
		if err := reply.Sent(n, err); err != nil {
			return err
		}
	}
	return sock.Linger(conn, count, timeout)
}

// cleanup ends the program.
func cleanup(listener int, timeout time.Duration) {
	if err := sock.Shutdown(listener); err != nil {
		log.Fatal(err)
	}
	conns.Shutdown(timeout) // finish the reply under way
	os.Exit(0)
}

// serveForever returns only when something has gone wrong.
func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr, timeout, sock.Blocking)
	if err != nil {
		return err
	}
	stop := sock.Stop(timeout)
	go func() {
		<-stop
		cleanup(listener, timeout)
	}()
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	request := make([]byte, echo.MaxRequest+1) // room for it, again and again
	for yield := sock.Yielder(); ; yield() {   // lets the Go scheduler run now and then
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			select {} // the listener is shut down: cleanup ends the program
		}
		if err != nil {
			return err
		}
		if err := handle(conn, request, timeout); err != nil {
			log.Printf("%v: %v", peer, err)
		}
	}
}

func main() {
	host, port, timeout := option.Server()
	option.Parse()
	log.Fatal(serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout))
}
