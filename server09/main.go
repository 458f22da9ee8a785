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
	clients   *echo.Clients
	epoll     int                  // the descriptor of the list
	interests []echo.Interest      // by descriptor: what the list says of it
	events    [256]unix.EpollEvent // room for what epoll_wait returns
	counter   *atomic.Int64        // of connections
	buf       [echo.MaxRequest + 1]byte
}

// watch sets what a descriptor waits for.
func (s *server) watch(fd int, interest echo.Interest) error {
	for len(s.interests) <= fd {
		s.interests = append(s.interests, echo.None)
	}
	before := s.interests[fd]
	if interest == before {
		return nil // as in most cases, and without a system call
	}
	op := unix.EPOLL_CTL_MOD
	switch echo.None {
	case before:
		op = unix.EPOLL_CTL_ADD
	case interest:
		op = unix.EPOLL_CTL_DEL
	}
	event := unix.EpollEvent{Fd: int32(fd), Events: unix.EPOLLIN}
	if interest == echo.Write {
		event.Events = unix.EPOLLOUT
	}
	if err := unix.EpollCtl(s.epoll, op, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	s.interests[fd] = interest
	return nil
}

// wait waits until descriptors are ready, but not longer than limit.
func (s *server) wait(limit time.Duration) (ready []unix.EpollEvent, err error) {
	n, err := unix.EpollWait(s.epoll, s.events[:], int(limit.Milliseconds())+1)
	if err == unix.EINTR {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("epoll_wait: %w", err)
	}
	return s.events[:n], nil
}

// acceptClients accepts several clients in one round of the loop, because a round costs
// more than an accept. The limit is for the other clients, which have to wait meanwhile.
func (s *server) acceptClients(listener int) error {
	for range 64 {
		conn, peer, err := sock.TryAccept(listener, sock.Nonblocking)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINVAL) {
			return nil // there are no more, or the listener is shut down
		}
		if sock.LimitReached(err) {
			log.Printf("%v: new clients wait", err)
			s.clients.PauseAccept()
			return nil
		}
		if err != nil {
			return err
		}
		incCounter(s.counter)
		s.clients.Add(conn, peer)
		if err := s.watch(conn, echo.Read); err != nil { // the user has too many watches (max_user_watches)
			log.Printf("%v: %v", peer, err)
			s.close(conn)
		}
	}
	return nil
}

// handle makes the call for which a client's socket is ready: it receives a request, or sends
// up to 128 KiB of a reply. The rest of a reply has to wait until the other clients had their
// turn.
func (s *server) handle(fd int) error {
	client := s.clients.Get(fd)
	if client.Interest() == echo.Read {
		n, err := unix.Read(fd, s.buf[:])
		client.Received(s.buf[:max(n, 0)], err)
	}
	if client.Interest() == echo.Write { // after a request, too: most replies fit into the socket at once
		n, err := unix.Write(fd, client.Chunk())
		client.Sent(n, err)
	}
	if client.Interest() == echo.None {
		s.close(fd)
		return nil
	}
	return s.watch(fd, client.Interest())
}

// close closes the connection of a client that has ended. It leaves the list of the epoll by that,
// because there is no other descriptor for it (epoll(7), "Questions and answers").
func (s *server) close(fd int) {
	if err := s.clients.Remove(fd); err != nil {
		log.Print(err)
	}
	unix.Close(fd)
	s.interests[fd] = echo.None
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
	s := &server{epoll: epoll, counter: counter, clients: echo.NewClients(timeout, func(count int64) {
		option.LogRequest("Got request to send %d bytes. Sending them all...\n", count)
	})}
	if err := s.watch(stop, echo.Read); err != nil {
		return err
	}
	for yield := sock.Yielder(); s.clients.Serving(); yield() { // lets the Go scheduler run now and then
		expired, limit := s.clients.Expire()
		for _, fd := range expired {
			s.close(fd)
		}
		if err := s.watch(listener, s.clients.Listener()); err != nil {
			return err
		}
		ready, err := s.wait(limit)
		if err != nil {
			return err
		}
		for _, event := range ready {
			switch fd := int(event.Fd); {
			case s.interests[fd] == echo.None: // the listener, after stop in the same round
			case fd == listener:
				err = s.acceptClients(listener)
			case fd == stop: // finish the replies under way
				s.clients.Shutdown()
				err = errors.Join(s.watch(stop, echo.None), s.watch(listener, echo.None))
				unix.Close(listener)
			default:
				err = s.handle(fd)
			}
			if err != nil {
				return err
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
	children.Signal(unix.SIGTERM) // a child finishes the replies under way
	children.Wait(timeout)
}

// listen returns n listeners on one port, each with a queue of its own.
func listen(addr netip.AddrPort, n int, timeout time.Duration) (listeners []int, bound netip.AddrPort, err error) {
	// The first listener has the port alone until it listens. With SO_REUSEPORT from the start a
	// second server could take a part of the connections.
	listener, bound, err := sock.Listen(addr, timeout, sock.Nonblocking)
	for err == nil {
		listeners = append(listeners, listener)
		if err = unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil || len(listeners) == n {
			break
		}
		listener, _, err = sock.ListenWith(netip.AddrPortFrom(addr.Addr(), bound.Port()), timeout, sock.Nonblocking, unix.SO_REUSEPORT)
	}
	return listeners, bound, err
}

func serveForever(addr netip.AddrPort, childNum int, timeout time.Duration) error {
	listeners, bound, err := listen(addr, childNum, timeout)
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
	err = children.Supervise(stop)
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
