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

	"csdesign/internal/echo"
	"csdesign/internal/option"
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

// threadLoop is all that a thread does.
func threadLoop(listener int, counter *atomic.Int64) error {
	runtime.LockOSThread()
	for yield := sock.Yielder(); ; yield() { // lets the Go scheduler run now and then
		conn, peer, err := sock.Accept(listener)
		if err != nil {
			return err // sock.ErrShutdown, at the end
		}
		incCounter(counter)
		if err := handle(conn); err != nil {
			log.Printf("%v: %v", peer, err)
		}
	}
}

// incCounter is atomic because main may read the counter while the thread writes it.
func incCounter(counter *atomic.Int64) { counter.Add(1) }

// cleanup waits until the replies under way are finished.
func cleanup(listener int) error {
	err := sock.Shutdown(listener) // threads that wait in accept return
	sock.Wait()
	return err
}

func serveForever(addr netip.AddrPort, threadNum int) error {
	listener, port, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	// A thread that blocks keeps its processor, so there is one for each, up to 32.
	runtime.GOMAXPROCS(min(threadNum+2, 32))
	stop := sock.StopSignal()
	fmt.Printf("Listening on port %d ...\n", port)

	counters := make([]atomic.Int64, threadNum)
	failed := make(chan error, threadNum)
	for index := range counters {
		go func() { failed <- threadLoop(listener, &counters[index]) }()
	}
	select {
	case err = <-failed:
	case <-stop:
	}
	return errors.Join(err, cleanup(listener), stats.Print("thread", counters, nil))
}

func main() {
	addr := option.Server()
	threadNum := option.Int("n", "child-num", 10, 1, 1024, "number of threads")
	option.Parse()
	sock.Exit(serveForever(*addr, *threadNum))
}
