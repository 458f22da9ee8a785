// Server05 is a concurrent TCP server with one thread for each client. The main thread
// accepts a connection and starts a thread, which answers with blocking calls and ends. In
// Go a thread is a goroutine that is locked to its thread. As it never unlocks, the thread
// ends together with the goroutine, so each client has a thread of its own.
//
// See Stevens, UNIX Network Programming, sections 26.4 and 30.10, and Kerrisk, The Linux
// Programming Interface, chapter 29 and section 60.4.
package main

import (
	"fmt"
	"log"
	"net/netip"
	"os"
	"runtime"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

// slots has an element for each thread. It limits what many clients can cost; further
// clients wait in the backlog.
var slots = make(chan struct{}, 512)

func handle(conn int) error {
	defer sock.Close(conn)
	count, err := echo.ReadRequest(conn)
	if err != nil {
		return err
	}
	echo.LogRequest(count)
	return echo.SendReply(conn, count)
}

// thread is all that a thread does.
func thread(conn int, peer netip.AddrPort) {
	runtime.LockOSThread()
	if err := handle(conn); err != nil {
		log.Printf("%v: %v", peer, err)
	}
	<-slots
}

// cleanup ends the program when the signal comes.
func cleanup(listener int, stop <-chan os.Signal) {
	<-stop
	sock.Exit(sock.Shutdown(listener)) // when the replies under way are finished
}

func serveForever(addr netip.AddrPort) error {
	listener, port, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	// A thread that blocks keeps its processor for a while, so there have to be others.
	runtime.GOMAXPROCS(4 * runtime.NumCPU())
	go cleanup(listener, sock.StopSignal())
	fmt.Printf("Listening on port %d ...\n", port)

	for {
		slots <- struct{}{}
		conn, peer, err := sock.Accept(listener)
		if err != nil {
			return err // sock.ErrShutdown, at the end
		}
		sock.Serve(conn) // here: the program must not end before the thread knows of it
		go thread(conn, peer)
	}
}

func main() {
	addr := option.Server()
	option.Parse()
	sock.Exit(serveForever(*addr))
}
