// Server08 is a prethreaded TCP server. All threads are started before the first client
// comes, and all of them block in accept(2) on one listener. The kernel gives each
// connection to one of them, as it does with the processes of server03a. Each thread counts
// what it accepts, and the counters are printed at the end.
//
// See Stevens, UNIX Network Programming, section 30.11, and Kerrisk, The Linux Programming
// Interface, section 60.4.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
	"csdesign/internal/stats"
)

// conns has the connections that are being served.
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

// threadLoop is all that a thread does.
func threadLoop(listener int, counter *atomic.Int64, timeout time.Duration) error {
	runtime.LockOSThread()
	request := make([]byte, echo.MaxRequest+1) // room for it, again and again
	for yield := sock.Yielder(); ; yield() {   // lets the Go scheduler run now and then
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			return nil // the listener is shut down
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

// incCounter is atomic because main may read the counter while the thread writes it.
func incCounter(counter *atomic.Int64) { counter.Add(1) }

func printStats(counters []atomic.Int64) {
	counts := stats.Load(counters)
	fmt.Println()
	for index, count := range counts {
		fmt.Printf("thread %-2d: %d times\n", index, count)
	}
	fmt.Printf("\n%s", stats.Summary("thread", counts, nil))
}

// cleanup waits until all replies under way are finished.
func cleanup(listener int, timeout time.Duration) error {
	err := sock.Shutdown(listener)
	conns.Shutdown(timeout)
	return err
}

func serveForever(addr netip.AddrPort, threadNum int, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr, timeout, sock.Blocking)
	if err != nil {
		return err
	}
	// A thread that blocks keeps its processor, so there is one for each, up to 32.
	runtime.GOMAXPROCS(min(threadNum+2, 32))
	stop := sock.Stop(timeout)
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	counters := make([]atomic.Int64, threadNum)
	failed := make(chan error, threadNum)
	for index := range counters {
		go func() {
			if err := threadLoop(listener, &counters[index], timeout); err != nil {
				failed <- err
			}
		}()
	}
	select {
	case err = <-failed:
	case <-stop:
	}
	err = errors.Join(err, cleanup(listener, timeout))
	printStats(counters)
	return err
}

func main() {
	host, port, timeout := option.Server()
	threadNum := option.Int("n", "child-num", 10, 1, 1024, "number of threads")
	option.Parse()
	if err := serveForever(netip.AddrPortFrom(*host, uint16(*port)), *threadNum, *timeout); err != nil {
		log.Fatal(err)
	}
}
