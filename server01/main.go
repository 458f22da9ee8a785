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
	"net/netip"
	"os"
	"sync"
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
	running  sync.WaitGroup
	ending   bool // no child is started any more
)

// slots has an element for each child. It limits what many clients can cost: 512 children,
// each with 3 MB and six threads, are within the usual limits. Further clients wait in the
// backlog.
var slots = make(chan bool, 512)

func reapChildren() {
	lock.Lock()
	defer lock.Unlock()
	var pause time.Duration
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid == 0 {
			break // there is no child (ECHILD), or none that has ended
		}
		if !children[pid] {
			continue // not ours: a child of the shell that became this program by exec
		}
		if status != 0 && !reexec.KilledYoung(status) {
			log.Printf("child with PID %d %s", pid, reexec.Describe(status))
			pause = time.Second
		}
		delete(children, pid)
		running.Done()
		<-slots
	}
	time.Sleep(pause) // no child is started meanwhile: there may be too many processes
}

// peerVariable is the environment variable by which a child gets its client's address.
const peerVariable = "CSDESIGN_PEER"

// handle is all that a child does.
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

func createChild(index, conn int, peer netip.AddrPort) error {
	lock.Lock()
	defer lock.Unlock()
	if ending {
		return nil
	}
	os.Setenv(peerVariable, peer.String())
	pid, err := reexec.Start(index, conn)
	if err == nil {
		children[pid] = true
		running.Add(1)
	}
	return err
}

// cleanup ends all children and the program when the signal comes.
func cleanup(listener int, stop <-chan os.Signal) {
	<-stop
	if err := sock.Shutdown(listener); err != nil {
		log.Fatal(err)
	}
	lock.Lock()
	ending = true
	for pid := range children {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil { // a child that serves finishes its reply
			log.Printf("end the child with PID %d: %v", pid, err)
		}
	}
	lock.Unlock()
	running.Wait()
	os.Exit(0)
}

func serveForever(addr netip.AddrPort) error {
	listener, port, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	reexec.Processors = 1 // the Go runtime of a child starts faster
	died := reexec.ChildDied()
	go func() {
		for range died {
			reapChildren()
		}
	}()
	go cleanup(listener, sock.StopSignal())
	fmt.Printf("Listening on port %d ...\n", port)

	for index := 0; ; index++ {
		slots <- true
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, sock.ErrShutdown) {
			select {} // cleanup ends the program
		}
		if err != nil {
			return err
		}
		err = createChild(index, conn, peer)
		for sock.LimitReached(err) {
			sock.Pause(err)
			err = createChild(index, conn, peer)
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
	addr := option.Server()
	option.Parse()
	if !isChild {
		sock.Exit(serveForever(*addr))
	}
	go sock.Finish(terminate)
	if err := handle(reexec.FirstFile); err != nil {
		log.Printf("%v: %v", os.Getenv(peerVariable), err)
	}
}
