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
	"time"

	"golang.org/x/sys/unix"

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
func threadLoop(queue <-chan client, counter *atomic.Int64, timeout time.Duration) {
	runtime.LockOSThread()
	request := make([]byte, echo.MaxRequest+1) // room for it, again and again
	for c := range queue {
		incCounter(counter)
		if err := handle(c.conn, request, timeout); err != nil {
			log.Printf("%v: %v", c.peer, err)
		}
	}
}

// incCounter is atomic because the counter may be printed while the thread writes it.
func incCounter(counter *atomic.Int64) { counter.Add(1) }

func printStats(counters []atomic.Int64) {
	counts := stats.Load(counters)
	fmt.Println()
	for index, count := range counts {
		fmt.Printf("thread %-2d: %d times\n", index, count)
	}
	fmt.Printf("\n%s", stats.Summary("thread", counts, nil))
}

// cleanup ends the program, after all replies under way are finished.
func cleanup(listener int, counters []atomic.Int64, timeout time.Duration) {
	if err := sock.Shutdown(listener); err != nil {
		log.Fatal(err)
	}
	conns.Shutdown(timeout)
	printStats(counters)
	os.Exit(0)
}

// serveForever returns only when something has gone wrong.
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
	queue := make(chan client)
	for index := range counters {
		go threadLoop(queue, &counters[index], timeout)
	}
	go func() {
		<-stop
		cleanup(listener, counters, timeout)
	}()
	for yield := sock.Yielder(); ; yield() { // lets the Go scheduler run now and then
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, unix.EINVAL) {
			select {} // the listener is shut down: cleanup ends the program
		}
		if err != nil {
			return err
		}
		queue <- client{conn, peer}
	}
}

func main() {
	host, port, timeout := option.Server()
	threadNum := option.Int("n", "child-num", 10, 1, 1024, "number of threads")
	option.Parse()
	log.Fatal(serveForever(netip.AddrPortFrom(*host, uint16(*port)), *threadNum, *timeout))
}
