//go:build linux

// Server07 is a concurrent TCP server that multiplexes with epoll. It is server02, except for
// how it waits: the kernel keeps the list of what to wait for. A descriptor is added to the
// list once, and changed when it waits for something else. epoll_wait(2) returns those that
// can go on, and does not look at the others. So an idle connection costs memory and nothing
// else. The list is level-triggered: what is not read is reported again.
//
// See Kerrisk, The Linux Programming Interface, section 63.4.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

type server struct {
	clients   *echo.Clients
	epoll     int                  // the descriptor of the list
	interests []echo.Interest      // by descriptor: what the list says of it
	events    [256]unix.EpollEvent // room for what epoll_wait returns
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

func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr, timeout, sock.Nonblocking)
	if err != nil {
		return err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create the epoll: %w", err)
	}
	stop, err := sock.SignalPipe(sock.Stop(timeout))
	if err != nil {
		return err
	}
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	s := &server{epoll: epoll, clients: echo.NewClients(timeout, func(count int64) {
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
			switch fd := int(event.Fd); fd {
			case listener:
				err = s.acceptClients(listener)
			case stop: // finish the replies under way
				s.clients.Shutdown()
				err = errors.Join(s.watch(stop, echo.None), sock.Shutdown(listener))
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

func main() {
	host, port, timeout := option.Server()
	option.Parse()
	if err := serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout); err != nil {
		log.Fatal(err)
	}
}
