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
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

type server struct {
	epoll    int                  // the descriptor of the list
	wants    []echo.Want          // by descriptor: what the list says of it
	events   [256]unix.EpollEvent // room for what epoll_wait returns
	ready    []int                // descriptors that can go on
	accepted []int                // still to be added to the list, which has a limit (max_user_watches)
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

func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr, sock.Nonblocking)
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

	s := &server{epoll: epoll}
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

func main() {
	host, port, timeout := option.Server()
	option.Parse()
	if err := serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout); err != nil {
		log.Fatal(err)
	}
}
