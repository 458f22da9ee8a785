// Server00 is an iterative TCP server: one process that serves one client at a time. While it
// is busy with a client, the others wait in the backlog, also if that client says nothing. It
// has no concurrency and so no cost of concurrency, and all other designs can be measured
// against it.
//
// See Stevens, UNIX Network Programming, sections 1.5 and 30.3, and Kerrisk, The Linux
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

func handle(conn int, timeout time.Duration) error {
	defer unix.Close(conn)
	count, err := echo.ReadRequest(conn, timeout)
	if err != nil {
		return err
	}
	return echo.SendReply(conn, count, timeout)
}

// serveForever returns only when something has gone wrong.
func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	stop := sock.Stop(timeout)
	go func() {
		<-stop
		if err := sock.Shutdown(listener); err != nil {
			log.Fatal(err)
		}
		echo.Finish(timeout) // the reply under way
		os.Exit(0)
	}()
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	for {
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			select {} // the listener is shut down: the goroutine above ends the program
		}
		if err != nil {
			return err
		}
		if err := handle(conn, timeout); err != nil {
			log.Printf("%v: %v", peer, err)
		}
	}
}

func main() {
	host, port, timeout := option.Server()
	option.Parse()
	log.Fatal(serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout))
}
