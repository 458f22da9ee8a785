// Server03c is server03a with a lock around accept. A child that waits for a connection holds
// the lock, and all others wait for the lock. So only one child at a time is in accept(2). It
// is for systems where a connection wakes all children, or where several processes must not
// call accept for one listener. The lock is a record lock on a file that has no name and that
// all children have inherited (fcntl(2), F_SETLKW). The kernel releases it when its holder
// dies.
//
// See Stevens, UNIX Network Programming, sections 30.7 and 30.8, and Kerrisk, The Linux
// Programming Interface, section 55.3.
package main

import (
	"cmp"
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

// setLock locks a file (F_WRLCK), for which it waits, or unlocks it (F_UNLCK).
func setLock(file int, to int16) error {
	lock := unix.Flock_t{Type: to} // of length 0: the whole file
	if err := unix.FcntlFlock(uintptr(file), unix.F_SETLKW, &lock); err != nil {
		return fmt.Errorf("lock or unlock accept: %w", err)
	}
	return nil
}

// accept accepts a connection, while all other children wait for the lock.
func accept(listener, lockFile int) (conn int, peer netip.AddrPort, err error) {
	if err := setLock(lockFile, unix.F_WRLCK); err != nil {
		return -1, peer, err
	}
	conn, peer, err = sock.Accept(listener)
	return conn, peer, cmp.Or(setLock(lockFile, unix.F_UNLCK), err)
}

// childLoop is all that a child does.
func childLoop(listener, lockFile int, counter *atomic.Int64, terminate <-chan os.Signal) error {
	fmt.Printf("Child started with PID: %d\n", os.Getpid())
	go sock.Finish(terminate)
	for yield := sock.Yielder(); ; yield() { // lets the Go scheduler run now and then
		conn, peer, err := accept(listener, lockFile)
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
			// The file of the counters is also the one that is locked.
			err = childLoop(reexec.FirstFile, reexec.FirstFile+1, &counters[index], terminate)
		}
		sock.Exit(err)
	}
	sock.Exit(serveForever(*addr, *childNum))
}
