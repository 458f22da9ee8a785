// Server02 is a concurrent TCP server that multiplexes with select. One process serves all
// clients: select(2) waits for the listener and for all connections at once, and returns
// those that can go on. All sockets are non-blocking. A connection that waits for a request
// is in the read set; one that waits for its client to take more of a reply is in the write
// set. So no client has to wait for another one.
//
// See Stevens, UNIX Network Programming, sections 6.8 and 16.2, and Kerrisk, The Linux
// Programming Interface, sections 63.2 and 63.5.2.
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
	reading unix.FdSet // descriptors that wait to read
	writing unix.FdSet // descriptors that wait to write
	top     int        // the highest of them so far
	ready   []int      // descriptors that can go on
}

// watch sets what a descriptor waits for.
func (s *server) watch(fd int, want echo.Want) {
	s.reading.Clear(fd)
	s.writing.Clear(fd)
	switch want {
	case echo.Read:
		s.reading.Set(fd)
	case echo.Write:
		s.writing.Set(fd)
	}
	s.top = max(s.top, fd)
}

// wait waits until descriptors can go on, but not longer than limit, and returns them.
func (s *server) wait(limit time.Duration) (ready []int, err error) {
	readable, writable := s.reading, s.writing // select overwrites its arguments
	timeval := unix.NsecToTimeval(limit.Nanoseconds())
	n, err := unix.Select(s.top+1, &readable, &writable, nil, &timeval)
	if err == unix.EINTR {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("select: %w", err)
	}
	s.ready = s.ready[:0]
	for fd := 0; len(s.ready) < n; fd++ {
		if readable.IsSet(fd) || writable.IsSet(fd) {
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
	// With this limit accept(2) cannot return a descriptor that no set can hold.
	if err := sock.LimitDescriptors(); err != nil {
		return err
	}
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
