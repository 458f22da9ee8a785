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
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
	"csdesign/internal/stats"
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

// accept waits in poll until there is a connection, and accepts it if no other child does so
// first.
func accept(listener int) (conn int, peer netip.AddrPort, err error) {
	fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return -1, peer, fmt.Errorf("poll: %w", err)
		}
		conn, peer, err = sock.TryAccept(listener, sock.Blocking)
		switch {
		case err == unix.EAGAIN: // another child was faster: this one was woken for nothing
		case sock.LimitReached(err):
			sock.Pause(err)
		default:
			return conn, peer, err
		}
	}
}

// childLoop is all that a child does.
func childLoop(listener int, counter *atomic.Int64, terminate <-chan os.Signal, timeout time.Duration) error {
	fmt.Printf("Child started with PID: %d\n", os.Getpid())
	go func() {
		<-terminate
		conns.Shutdown(timeout) // finish the reply under way
		os.Exit(0)
	}()
	request := make([]byte, echo.MaxRequest+1) // room for it, again and again
	for yield := sock.Yielder(); ; yield() {   // lets the Go scheduler run now and then
		conn, peer, err := accept(listener)
		if errors.Is(err, unix.EINVAL) {
			return nil // the parent has shut down the listener
		}
		if err != nil {
			return err
		}
		incCounter(counter)
		if err := handle(conn, request, timeout); err != nil {
			log.Printf("%v: %v", peer, err)
		}
	}
}

func createChild(index, listener, array int) (pid int, err error) {
	return reexec.Start(index, listener, array)
}

// exitHandler ends all children.
func exitHandler(listener int, children *reexec.Pool, timeout time.Duration) error {
	err := sock.Shutdown(listener) // children that wait in accept return
	children.Signal(unix.SIGTERM)  // a child that serves finishes its reply
	children.Wait(timeout)
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

func printStats(counters []atomic.Int64, children *reexec.Pool) {
	counts := stats.Load(counters)
	switches := children.Switches()
	fmt.Println()
	for index, count := range counts {
		fmt.Printf("child %-2d: %d times, %d switches\n", index, count, switches[index])
	}
	fmt.Printf("\n%s", stats.Summary("child", counts, switches))
}

func serveForever(addr netip.AddrPort, childNum int, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr, timeout, sock.Nonblocking)
	if err != nil {
		return err
	}
	stop := sock.Stop(timeout)
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	array, counters, err := createArray(childNum)
	if err != nil {
		return err
	}
	children := reexec.NewPool(childNum, func(index int) (pid int, err error) {
		return createChild(index, listener, array)
	})
	// The parent never calls accept. It waits until it is told to stop, and replaces
	// children that die.
	err = children.Supervise(stop)
	err = errors.Join(err, exitHandler(listener, children, timeout))
	printStats(counters, children)
	return err
}

func main() {
	index, terminate, isChild := reexec.Child()
	host, port, timeout := option.Server()
	childNum := option.Int("n", "child-num", 10, 1, 1024, "number of children")
	option.Parse()
	var err error
	if isChild {
		var counters []atomic.Int64
		if counters, err = reexec.MapShared(reexec.FirstFile+1, *childNum); err == nil {
			err = childLoop(reexec.FirstFile, &counters[index], terminate, *timeout)
		}
	} else {
		err = serveForever(netip.AddrPortFrom(*host, uint16(*port)), *childNum, *timeout)
	}
	if err != nil {
		log.Fatal(err)
	}
}
