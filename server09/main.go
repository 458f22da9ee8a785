//go:build linux

// Server09 is a preforked multiplexer: a pool of children, each of which is a server07. They
// listen on the same port, each with a listener of its own (SO_REUSEPORT). The kernel puts a
// connection into the queue of one of them, by a hash of the addresses, so the children share
// no queue and no lock. As a child serves many clients at once, one for each processor is
// enough. The parent makes the listeners and keeps them. When a child dies, its replacement
// gets the same listener, with the connections that wait in its queue.
//
// See socket(7), and Kerrisk, The Linux Programming Interface, section 63.4.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
	"csdesign/internal/stats"
)

type server struct {
	epoll    int                  // the descriptor of the list
	wants    []echo.Want          // by descriptor: what the list says of it
	events   [256]unix.EpollEvent // room for what epoll_wait returns
	ready    []int                // descriptors that can go on
	accepted []int                // still to be added to the list, which has a limit (max_user_watches)
	counter  *atomic.Int64        // of connections
}

var eventsOf = [...]uint32{echo.Done: 0, echo.Read: unix.EPOLLIN, echo.Write: unix.EPOLLOUT}

// add adds a descriptor to the list. It waits to read.
func (s *server) add(fd int) error {
	for len(s.wants) <= fd {
		s.wants = append(s.wants, echo.Done)
	}
	event := unix.EpollEvent{Fd: int32(fd), Events: unix.EPOLLIN}
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("add a descriptor to epoll: %w", err)
	}
	s.wants[fd] = echo.Read
	return nil
}

func (s *server) addAccepted(clients *echo.Clients) {
	for n := len(s.accepted); n > 0; n-- {
		if err := s.add(s.accepted[n-1]); err != nil {
			clients.Full(err)
			return
		}
		s.accepted = s.accepted[:n-1]
	}
}

// watch sets what a descriptor of the list waits for.
func (s *server) watch(fd int, want echo.Want) {
	if want == s.wants[fd] {
		return // as in most cases, and without a system call
	}
	s.wants[fd] = want
	event := unix.EpollEvent{Fd: int32(fd), Events: eventsOf[want]}
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_MOD, fd, &event); err != nil {
		log.Fatalf("change a descriptor in epoll: %v", err) // the descriptor is not there
	}
}

// wait waits until descriptors can go on, but not longer than limit, and returns them.
func (s *server) wait(limit time.Duration) (ready []int, err error) {
	n, err := unix.EpollWait(s.epoll, s.events[:], int(limit.Milliseconds())+1)
	if err == unix.EINTR {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("epoll_wait: %w", err)
	}
	s.ready = s.ready[:0]
	for _, event := range s.events[:n] {
		s.ready = append(s.ready, int(event.Fd))
	}
	return s.ready, nil
}

// acceptClients accepts several clients in one round of the loop, because a round costs
// more than an accept. The limit is for the other clients, which have to wait meanwhile.
func (s *server) acceptClients(listener int, clients *echo.Clients) error {
	for range 64 {
		conn, peer, err := sock.TryAccept(listener, sock.Nonblocking)
		if errors.Is(err, unix.EAGAIN) {
			return nil // no more
		}
		if sock.Exhausted(err) {
			clients.Full(err)
			return nil
		}
		if err != nil {
			return err
		}
		incCounter(s.counter)
		clients.Add(conn, peer)
		s.accepted = append(s.accepted, conn)
	}
	return nil
}

func (s *server) close(fd int) {
	s.wants[fd] = echo.Done
	s.accepted = slices.DeleteFunc(s.accepted, func(other int) bool { return other == fd })
	unix.Close(fd) // this also removes it from the list
}

// childLoop is all that a child does: it is serveForever of server07.
func childLoop(listener int, counter *atomic.Int64, terminate <-chan os.Signal, timeout time.Duration) error {
	fmt.Printf("Child started with PID: %d\n", os.Getpid())
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create the epoll: %w", err)
	}
	stop, err := sock.SignalPipe(terminate)
	if err != nil {
		return err
	}
	s := &server{epoll: epoll, counter: counter}
	if err := errors.Join(s.add(stop), s.add(listener)); err != nil {
		return err
	}
	clients := echo.NewClients(timeout)
	for clients.Serving() {
		dismissed, limit := clients.Dismiss()
		for _, fd := range dismissed {
			s.close(fd)
		}
		s.addAccepted(clients)
		s.watch(listener, clients.Listener())
		ready, err := s.wait(limit)
		if err != nil {
			return err
		}
		if slices.Contains(ready, stop) {
			clients.End()
			s.close(stop)
			// The parent has the listener, too. So close would not remove it from the list.
			if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_DEL, listener, nil); err != nil {
				return fmt.Errorf("remove the listener from epoll: %w", err)
			}
			s.close(listener)
			continue // the others are still ready in the next round
		}
		for _, fd := range ready {
			if fd == listener {
				if err := s.acceptClients(listener, clients); err != nil {
					return err
				}
			} else if want := clients.Step(fd); want != echo.Done {
				s.watch(fd, want)
			} else {
				s.close(fd)
			}
		}
	}
	return nil
}

func createChild(index, listener, array int) (pid int, err error) {
	return reexec.Start(index, listener, array)
}

// incCounter is atomic, because after a child has died another one goes on with its counter.
func incCounter(counter *atomic.Int64) { counter.Add(1) }

func printStats(counters []atomic.Int64) {
	counts := stats.Load(counters)
	fmt.Println()
	for index, count := range counts {
		fmt.Printf("child %-2d: %d times\n", index, count)
	}
	fmt.Printf("\n%s", stats.Summary("child", counts, nil))
}

// cleanup ends all children. The listeners are gone when parent and children have closed them.
func cleanup(listeners []int, children *reexec.Pool, timeout time.Duration) {
	for _, listener := range listeners {
		unix.Close(listener)
	}
	children.End(timeout)
}

func serveForever(addr netip.AddrPort, childNum int, timeout time.Duration) error {
	listeners, bound, err := sock.ListenShared(addr, childNum)
	if err != nil {
		return err
	}
	stop := sock.Stop(timeout)
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	array, counters, err := reexec.CreateShared(childNum)
	if err != nil {
		return err
	}
	children := reexec.NewPool(childNum, func(index int) (pid int, err error) {
		return createChild(index, listeners[index], array)
	})
	err = children.Keep(stop)
	cleanup(listeners, children, timeout)
	printStats(counters)
	return err
}

func main() {
	index, terminate, isChild := reexec.Child()
	host, port, timeout := option.Server()
	childNum := option.Int("n", "child-num", runtime.NumCPU(), 1, 1024, "number of children")
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
