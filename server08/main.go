// Server08 is a prethreaded TCP server. All threads are started before the first client
// comes, and all of them block in accept(2) on one listener. The kernel gives each
// connection to one of them, as it does with the processes of server03a. Each thread counts
// what it accepts, and the counters are printed at the end.
//
// See Stevens, UNIX Network Programming, section 30.11, and Kerrisk, The Linux Programming
// Interface, section 60.4.
package main

import (
	"cmp"
	"fmt"
	"log"
	"net/netip"
	"os"
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

// cleanup begins the end of the server when the signal comes.
func cleanup(listener int, stop <-chan os.Signal) {
	<-stop
	if err := sock.Shutdown(listener); err != nil { // accept returns
		log.Fatal(err)
	}
}

func serveForever(addr netip.AddrPort, threadNum int) error {
	listener, port, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	// A thread that blocks keeps its processor, so there is one for each, up to 32.
	runtime.GOMAXPROCS(min(threadNum+2, 32))
	go cleanup(listener, sock.StopSignal())
	fmt.Printf("Listening on port %d ...\n", port)

	counters := make([]atomic.Int64, threadNum)
	ended := make(chan error)
	for index := range counters {
		go func() { ended <- threadLoop(listener, &counters[index]) }()
	}
	err = <-ended // one ends when the listener is shut down, or when something is wrong
	err = cmp.Or(sock.Shutdown(listener), err)
	sock.Wait() // until the replies under way are finished
	return cmp.Or(stats.Print("thread", counters, nil), err)
}

func main() {
	addr := option.Server()
	threadNum := option.Int("n", "child-num", 10, 1, 1024, "number of threads")
	option.Parse()
	sock.Exit(serveForever(*addr, *threadNum))
}
