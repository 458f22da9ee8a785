// Server03 is a preforked TCP server whose children call accept. The children are started
// before the first client comes. All of them block in accept(2) on one listener, which they
// share, and the kernel gives each connection to one of them. The parent never accepts: it
// waits, and replaces a child that dies.
//
// See Stevens, UNIX Network Programming, section 30.6.
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
	"csdesign/internal/reexec"
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

// childLoop is all that a child does.
func childLoop(listener int, terminate <-chan os.Signal, timeout time.Duration) error {
	fmt.Printf("Child started with PID: %d\n", os.Getpid())
	go func() {
		<-terminate
		conns.Shutdown(timeout) // finish the reply under way
		os.Exit(0)
	}()
	request := make([]byte, echo.MaxRequest+1) // room for it, again and again
	for yield := sock.Yielder(); ; yield() {   // lets the Go scheduler run now and then
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			return nil // the parent has shut down the listener
		}
		if err != nil {
			return err
		}
		if err := handle(conn, request, timeout); err != nil {
			log.Printf("%v: %v", peer, err)
		}
	}
}

func createChild(index, listener int) (pid int, err error) {
	return reexec.Start(index, listener)
}

// cleanup ends all children.
func cleanup(listener int, children *reexec.Pool, timeout time.Duration) error {
	err := sock.Shutdown(listener) // children that wait in accept return
	children.Signal(unix.SIGTERM)  // a child that serves finishes its reply
	children.Wait(timeout)
	return err
}

func serveForever(addr netip.AddrPort, childNum int, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr, timeout, sock.Blocking)
	if err != nil {
		return err
	}
	stop := sock.Stop(timeout)
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	children := reexec.NewPool(childNum, func(index int) (pid int, err error) {
		return createChild(index, listener)
	})
	// The parent never calls accept. It waits until it is told to stop, and replaces
	// children that die.
	err = children.Supervise(stop)
	return errors.Join(err, cleanup(listener, children, timeout))
}

func main() {
	_, terminate, isChild := reexec.Child()
	host, port, timeout := option.Server()
	childNum := option.Int("n", "child-num", 10, 1, 1024, "number of children")
	option.Parse()
	var err error
	if isChild {
		err = childLoop(reexec.FirstFile, terminate, *timeout)
	} else {
		err = serveForever(netip.AddrPortFrom(*host, uint16(*port)), *childNum, *timeout)
	}
	if err != nil {
		log.Fatal(err)
	}
}
