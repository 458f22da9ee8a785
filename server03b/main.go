// Server03b is server03a, except for how its children wait: it shows the thundering herd. A
// child waits in poll(2) until the listener is readable, and then calls a non-blocking accept.
// When a connection arrives, the kernel wakes all the children that wait in poll. One of them
// gets the connection, and the others have been woken for nothing. In a blocking accept, where
// the children of server03a wait, Linux wakes one child.
//
// See Stevens, UNIX Network Programming, section 30.6, "Thundering Herd Problem" and "select
// Collisions".
package main

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

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

// accept waits in poll until there is a connection, and accepts it if no other child does so
// first.
func accept(listener int) (conn int, peer netip.AddrPort, err error) {
	fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil {
			if err = fmt.Errorf("poll: %w", err); !sock.Retry(err) {
				return -1, peer, err
			}
		}
		conn, peer, err = sock.TryAccept(listener, sock.Blocking)
		if err != unix.EAGAIN && !sock.Retry(err) { // EAGAIN: another child was faster, this one was woken for nothing
			return conn, peer, err
		}
	}
}

// childLoop is all that a child does.
func childLoop(listener int, counter *atomic.Int64, terminate <-chan os.Signal) error {
	fmt.Printf("Child started with PID: %d\n", os.Getpid())
	go sock.Finish(terminate)
	for yield := sock.Yielder(); ; yield() { // lets the Go scheduler run now and then
		conn, peer, err := accept(listener)
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
	return stats.PrintEach("child", counters, children.Switches())
}

func serveForever(addr netip.AddrPort, childNum int) error {
	array, counters, err := createArray(childNum)
	if err != nil {
		return err
	}
	listener, port, err := sock.Listen(addr, sock.Nonblocking)
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
