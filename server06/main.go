// Server06 is a concurrent TCP server that multiplexes with poll. It is server02, except for
// how it waits. poll(2) takes an array with an entry for each descriptor. The program writes
// into it what it waits for, and the kernel writes what has happened. The array can be as
// long as necessary, so FD_SETSIZE is no limit here.
//
// See Stevens, UNIX Network Programming, sections 6.10 and 6.11, and Kerrisk, The Linux
// Programming Interface, sections 63.2.2 and 63.2.5.
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
	entries []unix.PollFd // by descriptor
	ready   []int         // descriptors that can go on
}

// watch sets what a descriptor waits for.
func (s *server) watch(fd int, want echo.Want) {
	for len(s.entries) <= fd {
		s.entries = append(s.entries, unix.PollFd{Fd: -1}) // poll ignores it
	}
	s.entries[fd] = unix.PollFd{Fd: int32(fd)}
	switch want {
	case echo.Read:
		s.entries[fd].Events = unix.POLLIN
	case echo.Write:
		s.entries[fd].Events = unix.POLLOUT
	default:
		s.entries[fd].Fd = -1
	}
	for n := len(s.entries); n > 0 && s.entries[n-1].Fd < 0; n-- {
		s.entries = s.entries[:n-1] // poll has less to look at
	}
}

// wait waits until descriptors can go on, but not longer than limit, and returns them.
func (s *server) wait(limit time.Duration) (ready []int, err error) {
	n, err := unix.Poll(s.entries, int(limit.Milliseconds())+1)
	if err == unix.EINTR {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	s.ready = s.ready[:0]
	for fd := 0; len(s.ready) < n; fd++ {
		if s.entries[fd].Revents != 0 { // or an error, which the next read or write returns
			s.ready = append(s.ready, fd)
		}
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
		s.watch(conn, echo.Read)
	}
	return nil
}

func (s *server) close(fd int) {
	s.watch(fd, echo.Done)
	unix.Close(fd)
}

func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	listener, bound, err := sock.Listen(addr, sock.Nonblocking)
	if err != nil {
		return err
	}
	stop, err := sock.SignalPipe(sock.Stop(timeout))
	if err != nil {
		return err
	}
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	var s server
	s.watch(stop, echo.Read)
	clients := echo.NewClients(timeout)
	for clients.Serving() {
		dismissed, limit := clients.Dismiss()
		for _, fd := range dismissed {
			s.close(fd)
		}
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
