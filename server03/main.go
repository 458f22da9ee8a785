// Server03 is a preforked TCP server whose children call accept. They are started
// before the first client comes, and all of them block in accept(2) on the one
// listening socket that they share; the kernel hands each connection to one of
// them. The parent accepts nothing: it waits, and replaces a child that dies.
//
// See Stevens, UNIX Network Programming, 30.6.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
)

// answering is held by a child from a request to the end of its reply.
var answering sync.Mutex

func handle(conn int, timeout time.Duration) error {
	defer unix.Close(conn)
	count, err := echo.ReadRequest(conn, timeout)
	if err != nil {
		return err
	}
	answering.Lock()
	defer answering.Unlock()
	return echo.SendReply(conn, count, timeout)
}

// childLoop is all that a child does.
func childLoop(listener int, terminate <-chan os.Signal, timeout time.Duration) error {
	fmt.Printf("Child started with PID: %d\n", os.Getpid())
	go func() {
		<-terminate
		answering.Lock()
		os.Exit(0)
	}()
	for {
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			return nil // the parent has shut the listener down
		}
		if err != nil {
			return err
		}
		if err := handle(conn, timeout); err != nil {
			log.Printf("%v: %v", peer, err)
		}
	}
}

// A child is what the parent knows of one; the PID is 0 while it is to be started.
type child struct {
	pid     int
	started time.Time
}

func createChild(index, listener int) (child, error) {
	pid, err := reexec.Start(index, listener)
	return child{pid, time.Now()}, err
}

// cleanup ends all children; a child finishes the reply that it has under way.
func cleanup(listener int, children []child, timeout time.Duration) error {
	var pids []int
	for _, c := range children {
		if c.pid != 0 {
			pids = append(pids, c.pid)
		}
	}
	return errors.Join(sock.Shutdown(listener), reexec.End(pids, timeout))
}

func serveForever(addr netip.AddrPort, childNum int, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr)
	if err != nil {
		return err
	}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	children := make([]child, childNum)
	early := 0 // deaths in a row within a second of the start
	for {
		var retry <-chan time.Time
		for index := range children {
			if children[index].pid != 0 {
				continue
			}
			children[index], err = createChild(index, listener)
			if sock.Exhausted(err) {
				log.Print(err)
				retry = time.After(time.Second)
				break
			}
			if err != nil {
				return errors.Join(err, cleanup(listener, children, timeout))
			}
		}
		select {
		case <-stop:
			return cleanup(listener, children, timeout)
		case <-died:
		case <-retry:
		}
		for pid, status, ok := reexec.Reap(); ok; pid, status, ok = reexec.Reap() {
			index := slices.IndexFunc(children, func(c child) bool { return c.pid == pid })
			if index < 0 {
				continue // left to us by the shell whose place we took
			}
			log.Printf("child %d (PID %d) %s", index, pid, reexec.Describe(status))
			early++
			if time.Since(children[index].started) >= time.Second {
				early = 0
			}
			children[index].pid = 0
		}
		if early > 3*childNum+10 {
			err := errors.New("children die as soon as they start")
			return errors.Join(err, cleanup(listener, children, timeout))
		}
	}
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("server03: ")
	signal.Ignore(unix.SIGPIPE)
	_, terminate, isChild := reexec.Child()
	host := option.Addr("i", "host", "0.0.0.0", "address to listen on: IPv4, IPv6 or localhost")
	port := option.Int("p", "port", 2000, 0, 65535, "port to listen on, 0 for any that is free")
	childNum := option.Int("n", "child-num", 10, 1, 1024, "number of children")
	timeout := option.Duration("timeout", 30*time.Second, "how long a client may stay silent, or take nothing of its reply, 0 for ever")
	option.Parse()
	var err error
	if isChild {
		err = childLoop(reexec.FirstFile, terminate, *timeout)
	} else {
		err = serveForever(netip.AddrPortFrom(*host, uint16(*port)), *childNum, *timeout)
	}
	if err != nil {
		log.Fatal(err)
	}
}
