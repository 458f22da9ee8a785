// Server00 is an iterative TCP server: one process that serves one client at a time. While it
// is busy with a client, the others wait in the backlog, even if that client is silent. It
// has no concurrency and so no cost of concurrency, and all other designs can be measured
// against it.
//
// See Stevens, UNIX Network Programming, sections 1.5 and 30.4, and Kerrisk, The Linux
// Programming Interface, section 60.1.
package main

import (
	"fmt"
	"log"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

func handle(conn int) error {
	sock.Serve(conn)
	defer sock.Close(conn)
	request := make([]byte, echo.MaxRequest+1)
	n, err := unix.Read(conn, request)
	for err == unix.EINTR { // a signal
		n, err = unix.Read(conn, request)
	}
	if err != nil {
		return echo.ReadError(err)
	}
	count, err := echo.ParseRequest(request[:n])
	if err != nil {
		return err
	}
	echo.LogRequest(count)
	for reply := echo.NewReply(conn, count); reply.Left() > 0; {
		n, err := unix.Write(conn, reply.Chunk())
		if err := reply.Sent(n, err); err != nil {
			return err
		}
	}
	return sock.Linger(conn, count, sock.ReadForTick)
}

// cleanup ends the program when the signal comes.
func cleanup(listener int, stop <-chan os.Signal) {
	<-stop
	sock.Exit(sock.Shutdown(listener)) // when the reply under way is finished
}

func serveForever(addr netip.AddrPort) error {
	listener, port, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	go cleanup(listener, sock.StopSignal())
	fmt.Printf("Listening on port %d ...\n", port)

	for yield := sock.Yielder(); ; yield() { // lets the Go scheduler run now and then
		conn, peer, err := sock.Accept(listener)
		if err != nil {
			return err // sock.ErrShutdown, at the end
		}
		if err := handle(conn); err != nil {
			log.Printf("%v: %v", peer, err)
		}
	}
}

func main() {
	addr := option.Server()
	option.Parse()
	sock.Exit(serveForever(*addr))
}
