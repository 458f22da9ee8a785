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
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

type server struct {
	clients   echo.Table
	epoll     int                  // the descriptor of the list
	interests []echo.Interest      // by descriptor: what the list says of it
	events    [256]unix.EpollEvent // room for what epoll_wait returns
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

func serveForever(addr netip.AddrPort) error {
	listener, port, err := sock.Listen(addr, sock.Nonblocking)
	if err != nil {
		return err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create the epoll: %w", err)
	}
	stop, err := sock.SignalPipe(sock.StopSignal())
	if err != nil {
		return err
	}
	fmt.Printf("Listening on port %d ...\n", port)

	s := &server{epoll: epoll}
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
			switch fd := int(event.Fd); fd {
			case listener:
				err = s.acceptClients(listener)
			case stop: // finish the replies under way
				s.clients.Shutdown()
				err = errors.Join(s.watch(stop, echo.WantNothing), sock.Shutdown(listener))
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

func main() {
	addr := option.Server()
	option.Parse()
	sock.Exit(serveForever(*addr))
}
