// Server03a is server03 with a count of who accepted what. The children block in accept(2)
// on one listener. Each has a counter in memory that it shares with the parent, and adds one
// for every connection that it accepts. When the server ends, the parent prints the counters,
// and how often the children had to wait: their voluntary context switches.
//
// See Stevens, UNIX Network Programming, section 30.6, "Distribution of Connections to the
// Children", and Kerrisk, The Linux Programming Interface, section 49.4.2.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"sync/atomic"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
	"csdesign/internal/stats"
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
func childLoop(listener int, counter *atomic.Int64, terminate <-chan os.Signal) error {
	fmt.Printf("Child started with PID: %d\n", os.Getpid())
	go sock.Finish(terminate)
	for yield := sock.Yielder(); ; yield() { // lets the Go scheduler run now and then
		conn, peer, err := sock.Accept(listener)
		if err != nil {
			return err // sock.ErrShutdown, when the parent has shut down the listener
		}
		incCounter(counter)
		if err := handle(conn); err != nil {
			log.Printf("%v: %v", peer, err)
		}
	}
}

func createChild(index, listener, array int) (pid int, err error) {
	return reexec.Start(index, listener, array)
}

// exitHandler ends all children.
func exitHandler(listener int, children *reexec.Pool) error {
	err := sock.Shutdown(listener) // children that wait in accept return
	children.End()                 // a child that serves finishes its reply
	return err
}

// createArray returns an array of counters, one for each child, in shared memory. A child
// inherits the array as a descriptor.
func createArray(childNum int) (array int, counters []atomic.Int64, err error) {
	return reexec.CreateShared(childNum)
}

// incCounter is atomic, so no count is lost: not when a child is killed, and not when
// another child goes on with its counter.
func incCounter(counter *atomic.Int64) { counter.Add(1) }

func printStats(counters []atomic.Int64, children *reexec.Pool) error {
	return stats.Print("child", counters, children.Switches())
}

func serveForever(addr netip.AddrPort, childNum int) error {
	array, counters, err := createArray(childNum)
	if err != nil {
		return err
	}
	listener, port, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	stop := sock.StopSignal()
	fmt.Printf("Listening on port %d ...\n", port)

	children := reexec.NewPool(childNum, func(index int) (pid int, err error) {
		return createChild(index, listener, array)
	})
	// The parent never calls accept. It waits until it is told to stop, and replaces
	// children that die.
	return errors.Join(children.Supervise(stop), exitHandler(listener, children), printStats(counters, children))
}

func main() {
	index, terminate, isChild := reexec.Child()
	addr := option.Server()
	childNum := option.Int("n", "child-num", 10, 1, 1024, "number of children")
	option.Parse()
	if isChild {
		counters, err := reexec.MapShared(reexec.FirstFile+1, *childNum)
		if err == nil {
			err = childLoop(reexec.FirstFile, &counters[index], terminate)
		}
		sock.Exit(err)
	}
	sock.Exit(serveForever(*addr, *childNum))
}
