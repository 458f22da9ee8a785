// Server08 is a prethreaded TCP server: all its threads are started before the first
// client comes, and all of them block in accept(2) on one listening socket. The kernel
// hands each connection to one of them, as it does to the processes of server03a.
// Each thread counts what it accepts, and at the end the counts are printed.
//
// See Stevens, UNIX Network Programming, 30.11, and Kerrisk, The Linux Programming
// Interface, 60.4.
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
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

// answering is held for reading by a thread from a request to the end of its reply.
// Who holds it for writing keeps all from beginning another one.
var answering sync.RWMutex

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

// threadLoop is all that a thread does.
func threadLoop(listener int, counter *atomic.Int64, timeout time.Duration) error {
	runtime.LockOSThread()
	for {
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			return nil // shut down
		}
		if err != nil {
			return err
		}
		incCounter(counter)
		if err := handle(conn, timeout); err != nil {
			log.Printf("%v: %v", peer, err)
		}
	}
}

// incCounter counts for the thread that calls it; it is atomic as another one, which
// prints the counters, may read while this one writes.
func incCounter(counter *atomic.Int64) { counter.Add(1) }

func printStats(counters []atomic.Int64) {
	total, fewest, most := int64(0), counters[0].Load(), int64(0)
	fmt.Println()
	for index := range counters {
		count := counters[index].Load()
		fmt.Printf("thread %-2d: %d times\n", index, count)
		total, fewest, most = total+count, min(fewest, count), max(most, count)
	}
	mean := float64(total) / float64(len(counters))
	fmt.Printf("\n%d connections; per thread: fewest %d, mean %.1f, most %d\n", total, fewest, mean, most)
}

// cleanup waits until all replies under way are finished, or until the time of
// timeout is over (0 for no limit). No other one can begin.
func cleanup(listener int, timeout time.Duration) error {
	err := sock.Shutdown(listener)
	finished := make(chan bool)
	go func() {
		answering.Lock()
		close(finished)
	}()
	var deadline <-chan time.Time
	if timeout > 0 {
		deadline = time.After(timeout)
	}
	select {
	case <-finished:
	case <-deadline:
	}
	return err
}

func serveForever(addr netip.AddrPort, threadNum int, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
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
	case err := <-failed:
		return err
	case <-stop:
		err := cleanup(listener, timeout)
		printStats(counters)
		return err
	}
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("server08: ")
	signal.Ignore(unix.SIGPIPE)
	host := option.Addr("i", "host", "0.0.0.0", "address to listen on: IPv4, IPv6 or localhost")
	port := option.Int("p", "port", 2000, 0, 65535, "port to listen on, 0 for any that is free")
	threadNum := option.Int("n", "child-num", 10, 1, 1024, "number of threads")
	timeout := option.Duration("timeout", 30*time.Second, "how long a client may stay silent, or take nothing of its reply, 0 for ever")
	option.Parse()
	if err := serveForever(netip.AddrPortFrom(*host, uint16(*port)), *threadNum, *timeout); err != nil {
		log.Fatal(err)
	}
}
