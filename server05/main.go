// Server05 is a concurrent TCP server with one thread for each client. The main thread
// accepts a connection and starts a thread, which answers with blocking calls and ends. In
// Go a thread is a goroutine that is locked to its thread. As it never unlocks, the thread
// ends together with the goroutine, so each client has a thread of its own.
//
// See Stevens, UNIX Network Programming, sections 26.4 and 30.10, and Kerrisk, The Linux
// Programming Interface, chapter 29 and section 60.4.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

// slots has an element for each thread. It limits what many clients can cost; further
// clients wait in the backlog.
var slots = make(chan struct{}, 512)

// conns has the connections that are being served.
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

// thread is all that a thread does.
func thread(conn int, peer netip.AddrPort, timeout time.Duration) {
	runtime.LockOSThread()
	if err := handle(conn, make([]byte, echo.MaxRequest+1), timeout); err != nil {
		log.Printf("%v: %v", peer, err)
	}
	<-slots
}

// cleanup ends the program.
func cleanup(listener int, timeout time.Duration) {
	if err := sock.Shutdown(listener); err != nil {
		log.Fatal(err)
	}
	conns.Shutdown(timeout) // finish the replies under way
	os.Exit(0)
}

// serveForever returns only when something has gone wrong.
func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr, timeout, sock.Blocking)
	if err != nil {
		return err
	}
	// A thread that blocks keeps its processor for a while, so there have to be others.
	runtime.GOMAXPROCS(4 * runtime.NumCPU())
	stop := sock.Stop(timeout)
	go func() {
		<-stop
		cleanup(listener, timeout)
	}()
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	for {
		slots <- struct{}{}
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			select {} // the listener is shut down: cleanup ends the program
		}
		if err != nil {
			return err
		}
		go thread(conn, peer, timeout)
	}
}

func main() {
	host, port, timeout := option.Server()
	option.Parse()
	log.Fatal(serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout))
}
