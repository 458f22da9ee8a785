// Server01 is a concurrent TCP server with one child for each client. The parent accepts a
// connection, starts a child that inherits it, closes its own copy, and accepts the next.
// The child answers its client and exits. The kernel sends SIGCHLD when a child has ended,
// and the parent reaps: it calls wait4(2) until there is no child left that has ended.
//
// See Stevens, UNIX Network Programming, sections 4.8 and 5.10, and Kerrisk, The Linux
// Programming Interface, section 60.3.
package main

import (
	"errors"
	"fmt"
	"log"
	"maps"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
)

// children has the PIDs of the children that run. The lock is held while a child is
// started, so a child cannot be reaped before its PID is here.
var (
	lock     sync.Mutex
	children = make(map[int]bool)
)

// slots has an element for each child. It limits what many clients can cost: 512 children,
// each with 1 MiB and five threads, are within the usual limits. Further clients wait in the
// backlog.
var slots = make(chan struct{}, 512)

func reapChildren() {
	lock.Lock()
	defer lock.Unlock()
	var pause time.Duration
	for pid, exit := range reexec.Ended {
		if !children[pid] {
			continue // not ours: a child of the shell that became this program by exec
		}
		if exit.ExitStatus() != 0 {
			log.Printf("child with PID %d %v", pid, exit)
			pause = time.Second
		}
		delete(children, pid)
		<-slots
	}
	time.Sleep(pause) // no child is started meanwhile: there may be too many processes
}

// handle is all that a child does.
func handle(conn int, terminate <-chan os.Signal, timeout time.Duration) {
	peer := sock.Peer(conn)
	// When the server ends, a request that has arrived is still answered. The child does
	// not wait for another one.
	var ending atomic.Bool
	go func() {
		<-terminate
		ending.Store(true)
		unix.Shutdown(conn, unix.SHUT_RD)
	}()
	count, err := echo.ReadRequest(conn, timeout)
	if err == nil {
		err = echo.SendReply(conn, count, timeout)
	}
	if err != nil && !ending.Load() {
		log.Printf("%v: %v", peer, err)
	}
}

func createChild(index, conn int) error {
	lock.Lock()
	defer lock.Unlock()
	pid, err := reexec.Start(index, conn)
	if err == nil {
		children[pid] = true
	}
	return err
}

// cleanup ends all children and the program. A child finishes its reply.
func cleanup(listener int, timeout time.Duration) {
	lock.Lock() // for good: no child is started or reaped any more
	if err := sock.Shutdown(listener); err != nil {
		log.Fatal(err)
	}
	reexec.End(maps.Keys(children), timeout)
	os.Exit(0)
}

// serveForever returns only when something has gone wrong.
func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	died, stop := reexec.Died(), sock.Stop(timeout)
	go func() {
		for range died {
			reapChildren()
		}
	}()
	go func() {
		<-stop
		cleanup(listener, timeout)
	}()
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	for index := 0; ; index++ {
		slots <- struct{}{}
		conn, _, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			select {} // the listener is shut down: cleanup ends the program
		}
		if err != nil {
			return err
		}
		for err = createChild(index, conn); sock.Exhausted(err); err = createChild(index, conn) {
			sock.Pause(err)
		}
		if err != nil {
			return err
		}
		// The child has its own copy. The client sees the end of the connection when all
		// copies are closed.
		unix.Close(conn)
	}
}

func main() {
	_, terminate, isChild := reexec.Child()
	host, port, timeout := option.Server()
	option.Parse()
	if isChild {
		handle(reexec.FirstFile, terminate, *timeout)
		return
	}
	log.Fatal(serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout))
}
