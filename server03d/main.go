//go:build linux

// Server03d is server03b with a herd of one: each child waits in an epoll of its own, to which it
// has added the listener with EPOLLEXCLUSIVE. When a connection arrives, the kernel wakes one of
// the children that wait, and not all. So children can wait for several descriptors, as those
// of a web server do, without a herd and without a lock.
//
// See epoll_ctl(2), EPOLLEXCLUSIVE.
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

// watch makes an epoll that waits for the listener, which other children wait for, too.
func watch(listener int) (epoll int, err error) {
	if epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return -1, fmt.Errorf("create the epoll: %w", err)
	}
	event := unix.EpollEvent{Fd: int32(listener), Events: unix.EPOLLIN | unix.EPOLLEXCLUSIVE}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, listener, &event); err != nil {
		return -1, fmt.Errorf("epoll_ctl: %w", err)
	}
	return epoll, nil
}

// accept waits in the epoll until there is a connection, and accepts it if no other child does so
// first.
func accept(epoll, listener int) (conn int, peer netip.AddrPort, err error) {
	var events [1]unix.EpollEvent // there is only one descriptor to wait for
	for {
		if _, err := unix.EpollWait(epoll, events[:], -1); err != nil {
			if err = fmt.Errorf("epoll_wait: %w", err); !sock.Retry(err) {
				return -1, peer, err
			}
		}
		conn, peer, err = sock.TryAccept(listener, sock.Blocking)
		if err != unix.EAGAIN && !sock.Retry(err) { // EAGAIN: another child, which came back from its client, was faster
			return conn, peer, err
		}
	}
}

// childLoop is all that a child does.
func childLoop(listener int, counter *atomic.Int64, terminate <-chan os.Signal) error {
	fmt.Printf("Child started with PID: %d\n", os.Getpid())
	go sock.Finish(terminate)
	epoll, err := watch(listener)
	if err != nil {
		return err
	}
	for yield := sock.Yielder(); ; yield() { // lets the Go scheduler run now and then
		conn, peer, err := accept(epoll, listener)
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
