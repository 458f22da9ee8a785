// Server01 is a concurrent TCP server with one child process per client. The
// parent accepts a connection, starts a child that inherits it, closes its own
// copy and accepts the next; the child answers its one client and exits. When a
// child has ended the kernel sends SIGCHLD, and the parent reaps: it asks with
// wait4(2) for everyone who has ended, until nobody is left.
//
// See Stevens, UNIX Network Programming, 4.8 and 5.10, and Kerrisk, The Linux
// Programming Interface, 60.3.
package main

import (
	"errors"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
)

// maxChildren bounds what a crowd of clients can cost: 512 children, of 1 MiB and
// five threads each, fit a small machine and the usual limits on processes.
// Further clients wait in the backlog.
const maxChildren = 512

// children are those that run, by PID. A child is started with the lock held, so
// that it cannot be reaped before it stands here.
var (
	lock     sync.Mutex
	children = make(map[int]bool)
	slots    = make(chan struct{}, maxChildren) // one is taken for each child
)

func reapChildren() {
	lock.Lock()
	defer lock.Unlock()
	for {
		pid, status, ok := reexec.Reap()
		if !ok {
			return
		}
		if !children[pid] {
			continue // left to us by the shell whose place we took
		}
		if status != 0 {
			log.Printf("child with PID %d %s", pid, reexec.Describe(status))
		}
		delete(children, pid)
		<-slots
	}
}

// createChild starts a child for conn, as soon as the system has the means.
func createChild(index, conn int) error {
	for {
		lock.Lock()
		pid, err := reexec.Start(index, conn)
		if err == nil {
			children[pid] = true
		}
		lock.Unlock()
		if !sock.Exhausted(err) {
			return err
		}
		log.Print(err)
		time.Sleep(time.Second)
	}
}

// handle is all that a child does.
func handle(conn int, terminate <-chan os.Signal, timeout time.Duration) {
	peer, err := sock.Peer(conn)
	if err != nil {
		log.Print(err)
		return
	}
	// When the server ends, a request that has arrived is still answered, but
	// none is waited for.
	var ending atomic.Bool
	go func() {
		<-terminate
		ending.Store(true)
		unix.Shutdown(conn, unix.SHUT_RD)
	}()
	count, err := echo.ReadRequest(conn, timeout)
	if err != nil && ending.Load() {
		return
	}
	if err == nil {
		err = echo.SendReply(conn, count, timeout)
	}
	if err != nil {
		log.Printf("%v: %v", peer, err)
	}
}

// serveForever returns only when something has gone wrong.
func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr)
	if err != nil {
		return err
	}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	go func() {
		for range died {
			reapChildren()
		}
	}()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		<-stop
		lock.Lock() // for good: nobody starts or reaps from here on
		if err := sock.Shutdown(listener); err != nil {
			log.Fatal(err)
		}
		if err := reexec.End(slices.Collect(maps.Keys(children)), timeout); err != nil {
			log.Fatal(err)
		}
		os.Exit(0)
	}()
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	for index := 0; ; index++ {
		slots <- struct{}{}
		conn, _, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			select {} // shut down: the goroutine above ends the program
		}
		if err != nil {
			return err
		}
		if err := createChild(index, conn); err != nil {
			return err
		}
		// The child has its own copy. As long as this one is open, the client
		// does not see the end of the connection.
		if err := unix.Close(conn); err != nil {
			return fmt.Errorf("close connection: %w", err)
		}
	}
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("server01: ")
	signal.Ignore(unix.SIGPIPE)
	_, terminate, isChild := reexec.Child()
	host := option.Addr("i", "host", "0.0.0.0", "address to listen on: IPv4, IPv6 or localhost")
	port := option.Int("p", "port", 2000, 0, 65535, "port to listen on, 0 for any that is free")
	timeout := option.Duration("timeout", 30*time.Second, "how long a client may stay silent, or take nothing of its reply, 0 for ever")
	option.Parse()
	if isChild {
		handle(reexec.FirstFile, terminate, *timeout)
		return
	}
	log.Fatal(serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout))
}
