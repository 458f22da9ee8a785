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

// conns has the child's only connection.
var conns sock.Conns

// handle is all that a child does.
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

// cleanup ends all children and the program.
func cleanup(listener int) {
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

// serveForever returns only when something has gone wrong.
func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr, timeout, sock.Blocking)
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
		cleanup(listener)
	}()
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	for index := 0; ; index++ {
		slots <- true
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			select {} // the listener is shut down: cleanup ends the program
		}
		if err != nil {
			return err
		}
		for err = createChild(index, conn, peer); sock.LimitReached(err); err = createChild(index, conn, peer) {
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
	if !isChild {
		log.Fatal(serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout))
	}
	go func() {
		<-terminate
		conns.Shutdown(*timeout) // finish the reply under way
		os.Exit(0)
	}()
	if err := handle(reexec.FirstFile, make([]byte, echo.MaxRequest+1), *timeout); err != nil {
		log.Printf("%v: %v", os.Getenv(peerVariable), err)
	}
}
