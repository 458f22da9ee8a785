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
	clients   echo.Table
	epoll     int                  // the descriptor of the list
	interests []echo.Interest      // by descriptor: what the list says of it
	events    [256]unix.EpollEvent // room for what epoll_wait returns
	counter   *atomic.Int64        // of connections
	buf       [echo.MaxRequest + 1]byte
}

// watch sets what a descriptor waits for.
func (s *server) watch(fd int, interest echo.Interest) error {
	for len(s.interests) <= fd {
		s.interests = append(s.interests, echo.WantNothing)
	}
	before := s.interests[fd]
	if interest == before {
		return nil // as in most cases, and without a system call
	}
	op := unix.EPOLL_CTL_MOD
	switch echo.WantNothing {
	case before:
		op = unix.EPOLL_CTL_ADD
	case interest:
		op = unix.EPOLL_CTL_DEL
	}
	event := unix.EpollEvent{Fd: int32(fd), Events: unix.EPOLLIN}
	if interest == echo.WantWrite {
		event.Events = unix.EPOLLOUT
	}
	if err := unix.EpollCtl(s.epoll, op, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	s.interests[fd] = interest
	return nil
}

// wait waits until descriptors are ready, the listener too if the server accepts, but not longer
// than limit.
func (s *server) wait(listener int, limit time.Duration) (ready []unix.EpollEvent, err error) {
	if err := s.watch(listener, s.clients.ListenerInterest()); err != nil {
		if err := s.clients.AcceptFailed(err); err != nil {
			return nil, err
		}
		limit = min(limit, time.Second)
	}
	n, err := unix.EpollWait(s.epoll, s.events[:], int(limit.Milliseconds())+1)
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
		if err != nil {
			return s.clients.AcceptFailed(err) // nil if no more clients wait
		}
		incCounter(s.counter)
		s.clients.Add(conn, peer)
		s.update(conn)
	}
	return nil
}

// handle makes the call for which a client's socket is ready: it receives a request, or sends
// up to 128 KiB of a reply. The rest of a reply has to wait until the other clients had their
// turn.
func (s *server) handle(fd int) {
	client := s.clients.Client(fd)
	if client.Interest() == echo.WantRead {
		n, err := unix.Read(fd, s.buf[:])
		client.Received(s.buf[:max(n, 0)], err)
	}
	if client.Interest() == echo.WantWrite { // after a request, too: most replies fit into the socket at once
		n, err := unix.Write(fd, client.Chunk())
		client.Sent(n, err)
	}
	s.update(fd)
}

// update sets what a client waits for. If it has ended, update closes its connection.
func (s *server) update(fd int) {
	client := s.clients.Client(fd)
	if client.Interest() != echo.WantNothing {
		err := s.watch(fd, client.Interest())
		if err == nil {
			return
		}
		client.End(err) // for example, the user has too many watches (max_user_watches)
	}
	s.clients.Remove(fd)
	unix.Close(fd) // it leaves the list of the epoll, as no other descriptor refers to the socket
	s.interests[fd] = echo.WantNothing
}

// childLoop is all that a child does: it is serveForever of server07.
func childLoop(listener int, counter *atomic.Int64, terminate <-chan os.Signal) error {
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
	if err := s.watch(stop, echo.WantRead); err != nil {
		return err
	}
	for yield := sock.Yielder(); s.clients.Serving(); yield() { // lets the Go scheduler run now and then
		expired, limit := s.clients.Expire()
		for _, fd := range expired {
			s.update(fd)
		}
		ready, err := s.wait(listener, limit)
		if err != nil && !sock.Retry(err) {
			return err
		}
		for _, event := range ready {
			switch fd := int(event.Fd); {
			case s.interests[fd] == echo.WantNothing: // the listener, after stop in the same round
			case fd == listener:
				err = s.acceptClients(listener)
			case fd == stop: // finish the replies under way
				s.clients.Shutdown()
				err = errors.Join(s.watch(stop, echo.WantNothing), s.watch(listener, echo.WantNothing))
				unix.Close(listener)
			default:
				s.handle(fd)
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

// cleanup ends all children. The listeners are gone when parent and children have closed them.
func cleanup(listeners []int, children *reexec.Pool) {
	for _, listener := range listeners {
		unix.Close(listener)
	}
	children.End() // a child finishes the replies under way
}

// listen returns n listeners on one port, each with a queue of its own.
func listen(addr netip.AddrPort, n int) (listeners []int, port uint16, err error) {
	// The first listener has the port alone until it listens. With SO_REUSEPORT from the start a
	// second server could take a part of the connections.
	listener, port, err := sock.Listen(addr, sock.Nonblocking)
	for err == nil {
		listeners = append(listeners, listener)
		if err = unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil || len(listeners) == n {
			break
		}
		listener, _, err = sock.Listen(netip.AddrPortFrom(addr.Addr(), port), sock.Nonblocking, unix.SO_REUSEPORT)
	}
	return listeners, port, err
}

func serveForever(addr netip.AddrPort, childNum int) error {
	array, counters, err := reexec.CreateShared(childNum)
	if err != nil {
		return err
	}
	listeners, port, err := listen(addr, childNum)
	if err != nil {
		return err
	}
	stop := sock.StopSignal()
	fmt.Printf("Listening on port %d ...\n", port)

	children := reexec.NewPool(childNum, func(index int) (pid int, err error) {
		return createChild(index, listeners[index], array)
	})
	err = children.Supervise(stop)
	cleanup(listeners, children)
	return errors.Join(err, stats.Print("child", counters, nil))
}

func main() {
	index, terminate, isChild := reexec.Child()
	addr := option.Server()
	childNum := option.Int("n", "child-num", runtime.NumCPU(), 1, 1024, "number of children")
	option.Parse()
	if isChild {
		counters, err := reexec.MapShared(reexec.FirstFile+1, *childNum)
		if err == nil {
			err = childLoop(reexec.FirstFile, &counters[index], terminate)
		}
		sock.Exit(err)
	}
	sock.Exit(serveForever(*addr, *childNum))
}
