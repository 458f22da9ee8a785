// Server08a is a prethreaded TCP server whose main thread accepts. The threads are started
// before the first client comes. The main thread accepts every connection and puts it into a
// queue, from which the threads take. It is server04 with threads: no descriptor has to be
// passed, because threads share them. The queue is a channel without room. The main thread
// hands a connection to a thread that is free, or waits until one is.
//
// See Stevens, UNIX Network Programming, section 30.12, and Kerrisk, The Linux Programming
// Interface, sections 30.2 and 60.4.
package main

import (
	"errors"
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

// A client is a connection that was accepted.
type client struct {
	conn int
	peer netip.AddrPort
}

func handle(conn int) error {
	defer sock.Close(conn)
	count, err := echo.ReadRequest(conn)
	if err != nil {
		return err
	}
	echo.LogRequest(count)
	return echo.SendReply(conn, count)
}

// threadLoop is all that a thread does.
func threadLoop(queue <-chan client, counter *atomic.Int64) {
	runtime.LockOSThread()
	for c := range queue {
		incCounter(counter)
		if err := handle(c.conn); err != nil {
			log.Printf("%v: %v", c.peer, err)
		}
	}
}

// incCounter is atomic because main may read the counter while the thread writes it.
func incCounter(counter *atomic.Int64) { counter.Add(1) }

// cleanup ends the program when the signal comes.
func cleanup(listener int, counters []atomic.Int64, stop <-chan os.Signal) {
	<-stop
	err := sock.Shutdown(listener)
	sock.Wait() // until the replies under way are finished
	sock.Exit(errors.Join(err, stats.Print("thread", counters, nil)))
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

	counters, queue := make([]atomic.Int64, threadNum), make(chan client)
	for index := range counters {
		go threadLoop(queue, &counters[index])
	}
	go cleanup(listener, counters, stop)
	for yield := sock.Yielder(); ; yield() { // lets the Go scheduler run now and then
		conn, peer, err := sock.Accept(listener)
		if err == sock.ErrShutdown {
			select {} // cleanup ends the program
		}
		if err != nil {
			return err
		}
		sock.Serve(conn) // here: the program must not end before the thread knows of it
		queue <- client{conn, peer}
	}
}

func main() {
	addr := option.Server()
	threadNum := option.Int("n", "child-num", 10, 1, 1024, "number of threads")
	option.Parse()
	sock.Exit(serveForever(*addr, *threadNum))
}
