// Server06 is a concurrent TCP server that multiplexes with poll. It is server02, except for
// how it waits. poll(2) takes an array with an entry for each descriptor. The program writes
// into it what it waits for, and the kernel writes what has happened. The array can be as
// long as necessary, so FD_SETSIZE is no limit here.
//
// See Stevens, UNIX Network Programming, sections 6.10 and 6.11, and Kerrisk, The Linux
// Programming Interface, sections 63.2.2 and 63.2.5.
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
	entries []unix.PollFd // by descriptor
	ready   []int         // room for what wait returns
	buf     [echo.MaxRequest + 1]byte
}

// watch sets what a descriptor waits for.
func (s *server) watch(fd int, interest echo.Interest) {
	for len(s.entries) <= fd {
		s.entries = append(s.entries, unix.PollFd{Fd: -1}) // poll ignores it
	}
	s.entries[fd] = unix.PollFd{Fd: int32(fd)}
	switch interest {
	case echo.WantRead:
		s.entries[fd].Events = unix.POLLIN
	case echo.WantWrite:
		s.entries[fd].Events = unix.POLLOUT
	default:
		s.entries[fd].Fd = -1
	}
	for n := len(s.entries); n > 0 && s.entries[n-1].Fd < 0; n-- {
		s.entries = s.entries[:n-1] // poll has less to look at
	}
}

// wait waits until descriptors are ready, but not longer than limit, and returns them.
func (s *server) wait(limit time.Duration) (ready []int, err error) {
	n, err := unix.Poll(s.entries, int(limit.Milliseconds())+1)
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
