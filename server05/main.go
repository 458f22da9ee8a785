// Server05 is a concurrent TCP server with one thread per client. The main thread
// accepts a connection, and starts a thread that answers it with blocking calls and
// ends. A thread in Go is a goroutine that is locked to its thread; since it is never
// unlocked, the thread ends with it, and each client has one of its own.
//
// See Stevens, UNIX Network Programming, 26.4 and 30.10, and Kerrisk, The Linux
// Programming Interface, 29 and 60.4.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

// maxThreads bounds what a crowd of clients can cost, as maxChildren does in server01.
// Further clients wait in the backlog.
const maxThreads = 512

// slots has room for a token of each thread.
var slots = make(chan struct{}, maxThreads)

// answering is held for reading by a thread from a request to the end of its reply.
// Who holds it for writing keeps all from beginning another one.
var answering sync.RWMutex

// The main thread cannot end as the others do, so no client's goroutine must be locked
// to it.
func init() { runtime.LockOSThread() }

func handle(conn int, timeout time.Duration) error {
	defer unix.Close(conn)
	count, err := echo.ReadRequest(conn, timeout)
	if err != nil {
		return err
	}
	answering.RLock()
	defer answering.RUnlock()
	return echo.SendReply(conn, count, timeout)
}

// thread is all that a thread does.
func thread(conn int, peer netip.AddrPort, timeout time.Duration) {
	runtime.LockOSThread()
	if err := handle(conn, timeout); err != nil {
		log.Printf("%v: %v", peer, err)
	}
	<-slots
}

// cleanup ends the program as soon as all replies under way are finished, or when
// the time of timeout is over (0 for no limit).
func cleanup(listener int, timeout time.Duration) {
	if err := sock.Shutdown(listener); err != nil {
		log.Print(err)
	}
	if timeout > 0 {
		time.AfterFunc(timeout, func() { os.Exit(0) })
	}
	answering.Lock()
	os.Exit(0)
}

// serveForever returns only when something has gone wrong.
func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	go func() {
		<-stop
		cleanup(listener, timeout)
	}()
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	for {
		slots <- struct{}{}
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			select {} // shut down: cleanup ends the program
		}
		if err != nil {
			return err
		}
		go thread(conn, peer, timeout)
	}
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("server05: ")
	signal.Ignore(unix.SIGPIPE)
	host := option.Addr("i", "host", "0.0.0.0", "address to listen on: IPv4, IPv6 or localhost")
	port := option.Int("p", "port", 2000, 0, 65535, "port to listen on, 0 for any that is free")
	timeout := option.Duration("timeout", 30*time.Second, "how long a client may stay silent, or take nothing of its reply, 0 for ever")
	option.Parse()
	log.Fatal(serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout))
}
