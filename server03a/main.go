// Server03a is server03 with a count of who accepted what: a preforked TCP server
// whose children all block in accept(2) on one listening socket. Each child has a
// counter in memory that it shares with the parent, and adds one for every
// connection that it accepts; when the server ends, the parent prints them all.
//
// See Stevens, UNIX Network Programming, 30.6, "Distribution of Connections to the
// Children", and Kerrisk, The Linux Programming Interface, 49.7.
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
	"sync/atomic"
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
func childLoop(listener int, counter *atomic.Int64, terminate <-chan os.Signal, timeout time.Duration) error {
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
		incCounter(counter)
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

func createChild(index, listener, array int) (child, error) {
	pid, err := reexec.Start(index, listener, array)
	return child{pid, time.Now()}, err
}

// createArray returns the counters, one for each child, and the descriptor by
// which a child gets at the same memory.
func createArray(childNum int) (array int, counters []atomic.Int64, err error) {
	if array, err = reexec.CreateShared(childNum); err != nil {
		return -1, nil, err
	}
	counters, err = reexec.MapShared(array, childNum)
	return array, counters, err
}

// incCounter is one indivisible instruction: no count is lost, even when a child is
// killed, or replaced by another that goes on with the same counter.
func incCounter(counter *atomic.Int64) { counter.Add(1) }

func printStats(counters []atomic.Int64) {
	total, fewest, most := int64(0), counters[0].Load(), int64(0)
	fmt.Println()
	for index := range counters {
		count := counters[index].Load()
		fmt.Printf("child %-2d: %d times\n", index, count)
		total, fewest, most = total+count, min(fewest, count), max(most, count)
	}
	mean := float64(total) / float64(len(counters))
	fmt.Printf("\n%d connections; per child: fewest %d, mean %.1f, most %d\n", total, fewest, mean, most)
}

// exitHandler ends all children; a child finishes the reply that it has under way.
func exitHandler(listener int, children []child, timeout time.Duration) error {
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

	array, counters, err := createArray(childNum)
	if err != nil {
		return err
	}
	children := make([]child, childNum)
	early := 0 // deaths in a row within a second of the start
	for {
		var retry <-chan time.Time
		for index := range children {
			if children[index].pid != 0 {
				continue
			}
			children[index], err = createChild(index, listener, array)
			if sock.Exhausted(err) {
				log.Print(err)
				retry = time.After(time.Second)
				break
			}
			if err != nil {
				return errors.Join(err, exitHandler(listener, children, timeout))
			}
		}
		select {
		case <-stop:
			err := exitHandler(listener, children, timeout)
			printStats(counters)
			return err
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
			return errors.Join(err, exitHandler(listener, children, timeout))
		}
	}
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("server03a: ")
	signal.Ignore(unix.SIGPIPE)
	index, terminate, isChild := reexec.Child()
	host := option.Addr("i", "host", "0.0.0.0", "address to listen on: IPv4, IPv6 or localhost")
	port := option.Int("p", "port", 2000, 0, 65535, "port to listen on, 0 for any that is free")
	childNum := option.Int("n", "child-num", 10, 1, 1024, "number of children")
	timeout := option.Duration("timeout", 30*time.Second, "how long a client may stay silent, or take nothing of its reply, 0 for ever")
	option.Parse()
	var err error
	if isChild {
		var counters []atomic.Int64
		if counters, err = reexec.MapShared(reexec.FirstFile+1, *childNum); err == nil {
			err = childLoop(reexec.FirstFile, &counters[index], terminate, *timeout)
		}
	} else {
		err = serveForever(netip.AddrPortFrom(*host, uint16(*port)), *childNum, *timeout)
	}
	if err != nil {
		log.Fatal(err)
	}
}
