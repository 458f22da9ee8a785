// Server02 is a concurrent TCP server that multiplexes with select. One process serves all
// clients: select(2) waits for the listener and for all connections at once, and returns
// those that are ready. All sockets are non-blocking. A connection that waits for a request
// is in the read set. One that waits for its client to take more of a reply is in the write
// set. So no client has to wait for another one.
//
// See Stevens, UNIX Network Programming, sections 6.8 and 16.2, and Kerrisk, The Linux
// Programming Interface, sections 63.2 and 63.5.2.
package main

import (
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

type server struct {
	clients echo.Table
	reading unix.FdSet // descriptors that wait to read
	writing unix.FdSet // descriptors that wait to write
	top     int        // the highest of them so far
	ready   []int      // room for what wait returns
	buf     [echo.MaxRequest + 1]byte
}

// watch sets what a descriptor waits for.
func (s *server) watch(fd int, interest echo.Interest) {
	s.reading.Clear(fd)
	s.writing.Clear(fd)
	switch interest {
	case echo.WantRead:
		s.reading.Set(fd)
	case echo.WantWrite:
		s.writing.Set(fd)
	}
	s.top = max(s.top, fd)
}

// wait waits until descriptors are ready, but not longer than limit, and returns them.
func (s *server) wait(limit time.Duration) (ready []int, err error) {
	readable, writable := s.reading, s.writing // select overwrites its arguments
	timeval := unix.NsecToTimeval(limit.Nanoseconds())
	n, err := unix.Select(s.top+1, &readable, &writable, nil, &timeval)
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
func (s *server) acceptClients(listener int) error {
	for range 64 {
		conn, peer, err := sock.TryAccept(listener, sock.Nonblocking)
		if err != nil {
			return s.clients.AcceptFailed(err) // nil if no more clients wait
		}
		s.clients.Add(conn, peer)
		s.watch(conn, echo.WantRead)
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
	if client.Interest() == echo.WantNothing {
		s.close(fd)
		return
	}
	s.watch(fd, client.Interest())
}

// close closes the connection of a client that has ended.
func (s *server) close(fd int) {
	s.clients.Remove(fd)
	s.watch(fd, echo.WantNothing)
	unix.Close(fd)
}

func serveForever(addr netip.AddrPort) error {
	// select can only watch descriptors below 1,024.
	if err := sock.LimitDescriptors(); err != nil {
		return err
	}
	listener, port, err := sock.Listen(addr, sock.Nonblocking)
	if err != nil {
		return err
	}
	stop, err := sock.SignalPipe(sock.StopSignal())
	if err != nil {
		return err
	}
	fmt.Printf("Listening on port %d ...\n", port)

	s := &server{}
	s.watch(stop, echo.WantRead)
	for yield := sock.Yielder(); s.clients.Serving(); yield() { // lets the Go scheduler run now and then
		expired, limit := s.clients.Expire()
		for _, fd := range expired {
			s.close(fd)
		}
		s.watch(listener, s.clients.ListenerInterest())
		ready, err := s.wait(limit)
		if err != nil && !sock.Retry(err) {
			return err
		}
		for _, fd := range ready {
			switch fd {
			case listener:
				err = s.acceptClients(listener)
			case stop: // finish the replies under way
				s.watch(stop, echo.WantNothing)
				s.clients.Shutdown()
				err = sock.Shutdown(listener)
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
