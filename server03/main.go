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

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
)

func handle(conn int) error {
	sock.Serve(conn)
	defer sock.Close(conn)
	count, err := echo.ReadRequest(conn)
	if err != nil {
		return err
	}
	echo.LogRequest(count)
	return echo.SendReply(conn, count)
}

// childLoop is all that a child does.
func childLoop(listener int, terminate <-chan os.Signal) error {
	fmt.Printf("Child started with PID: %d\n", os.Getpid())
	go sock.Finish(terminate)
	for yield := sock.Yielder(); ; yield() { // lets the Go scheduler run now and then
		conn, peer, err := sock.Accept(listener)
		if err != nil {
			return err // sock.ErrShutdown, when the parent has shut down the listener
		}
		if err := handle(conn); err != nil {
			log.Printf("%v: %v", peer, err)
		}
	}
}

func createChild(index, listener int) (pid int, err error) {
	return reexec.Start(index, listener)
}

// cleanup ends all children.
func cleanup(listener int, children *reexec.Pool) error {
	err := sock.Shutdown(listener) // children that wait in accept return
	children.End()                 // a child that serves finishes its reply
	return err
}

func serveForever(addr netip.AddrPort, childNum int) error {
	listener, port, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	stop := sock.StopSignal()
	fmt.Printf("Listening on port %d ...\n", port)

	children := reexec.NewPool(childNum, func(index int) (pid int, err error) {
		return createChild(index, listener)
	})
	// The parent never calls accept. It waits until it is told to stop, and replaces
	// children that die.
	return errors.Join(children.Supervise(stop), cleanup(listener, children))
}

func main() {
	_, terminate, isChild := reexec.Child()
	addr := option.Server()
	childNum := option.Int("n", "child-num", 10, 1, 1024, "number of children")
	option.Parse()
	if isChild {
		sock.Exit(childLoop(reexec.FirstFile, terminate))
	}
	sock.Exit(serveForever(*addr, *childNum))
}
