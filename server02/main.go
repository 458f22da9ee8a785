// Server02 is a concurrent TCP server that multiplexes with select. One process
// serves all clients: select(2) waits for the listener and for every connection at
// once, and returns those that can go on. All sockets are non-blocking. A connection
// that waits for a request is in the read set, one that waits for its client to take
// more of a reply is in the write set, so nobody ever waits for somebody else.
//
// See Stevens, UNIX Network Programming, 6.8 and 16.2, and Kerrisk, The Linux
// Programming Interface, 63.2 and 63.5.2.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

type server struct {
	reading unix.FdSet // descriptors that wait to read
	writing unix.FdSet // descriptors that wait to write
	top     int        // highest of them so far
	ready   []int      // those that can go on

	listener int
	clients  [unix.FD_SETSIZE]*echo.Conn // by descriptor
	open     int                         // number of clients
	full     bool                        // new clients wait for a descriptor
	ending   bool                        // no new client, no new request
}

// watch says what a descriptor waits for from now on.
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

// wait returns the descriptors that can go on. It waits for one for at most so many
// milliseconds, -1 for ever.
func (s *server) wait(ms int) (ready []int, err error) {
	readable, writable := s.reading, s.writing // select overwrites them with its answer
	var limit *unix.Timeval
	if ms >= 0 {
		tv := unix.NsecToTimeval(int64(ms) * 1e6)
		limit = &tv
	}
	n, err := unix.Select(s.top+1, &readable, &writable, nil, limit)
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

// acceptClients takes in new clients, several at a time, since a round of the loop
// costs more than an accept, but not so many that the others notice. When there is no
// descriptor for one, the listener is not watched until a connection closes.
func (s *server) acceptClients() error {
	for range 64 {
		fd, peer, err := sock.TryAccept(s.listener, true)
		if errors.Is(err, unix.EAGAIN) {
			return nil // no more
		}
		if sock.Exhausted(err) {
			if !s.full {
				log.Printf("%v: new clients wait", err)
			}
			s.full = true
			s.watch(s.listener, echo.Done)
			return nil
		}
		if err != nil {
			return err
		}
		s.clients[fd] = echo.NewConn(fd, peer)
		s.open++
		s.watch(fd, echo.Read)
	}
	return nil
}

// step lets a client go on, and notes what it waits for next.
func (s *server) step(fd int) {
	want, err := s.clients[fd].Step()
	if want == echo.Done || want == echo.Read && s.ending {
		s.closeClient(fd, err)
		return
	}
	s.watch(fd, want)
}

func (s *server) closeClient(fd int, reason error) {
	if reason != nil {
		log.Print(reason)
	}
	s.watch(fd, echo.Done)
	unix.Close(fd)
	s.clients[fd] = nil
	s.open--
	if !s.ending {
		s.watch(s.listener, echo.Read) // there is a descriptor again
	}
}

// check closes clients that have been silent for too long and, when the server
// ends, those that have no reply under way.
func (s *server) check(timeout time.Duration) {
	for fd, c := range s.clients {
		if c == nil {
			continue
		}
		if s.ending && !c.Busy() {
			s.closeClient(fd, nil)
		} else if err := c.Expired(timeout); err != nil {
			s.closeClient(fd, err)
		}
	}
	if s.full && !s.ending {
		s.full = false
		s.watch(s.listener, echo.Read) // others may have given memory back
	}
}

func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	// With this limit accept(2) never returns a descriptor that no set can hold.
	if err := sock.LimitDescriptors(); err != nil {
		return err
	}
	listener, bound, err := sock.Listen(addr)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(listener, true); err != nil {
		return fmt.Errorf("make the listener non-blocking: %w", err)
	}
	stop, err := sock.SignalPipe(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	if err != nil {
		return err
	}
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	s := &server{listener: listener}
	s.watch(stop, echo.Read)
	s.watch(listener, echo.Read)
	tick := time.Second // how often it looks for what no descriptor tells
	if timeout > 0 {
		tick = min(tick, max(timeout/10, 10*time.Millisecond))
	}
	checked := time.Now()
	var deadline time.Time
	for !s.ending || s.open > 0 {
		ms := -1
		if s.open > 0 || s.full {
			ms = int(tick.Milliseconds())
		}
		ready, err := s.wait(ms)
		if err != nil {
			return err
		}
		for _, fd := range ready {
			switch fd {
			case stop:
				s.ending = true
			case listener:
				if err := s.acceptClients(); err != nil {
					return err
				}
			default:
				s.step(fd)
			}
		}
		now := time.Now()
		if s.ending && deadline.IsZero() {
			deadline = now.Add(timeout)
			s.watch(stop, echo.Done)
			s.watch(listener, echo.Done)
			unix.Close(listener)
			s.check(timeout)
		}
		if now.Sub(checked) >= tick {
			checked = now
			s.check(timeout)
		}
		if s.ending && timeout > 0 && now.After(deadline) {
			break
		}
	}
	return nil
}
func main() {
	log.SetFlags(0)
	log.SetPrefix("server02: ")
	signal.Ignore(unix.SIGPIPE)
	host := option.Addr("i", "host", "0.0.0.0", "address to listen on: IPv4, IPv6 or localhost")
	port := option.Int("p", "port", 2000, 0, 65535, "port to listen on, 0 for any that is free")
	timeout := option.Duration("timeout", 30*time.Second, "how long a client may stay silent, or take nothing of its reply, 0 for ever")
	option.Parse()
	if err := serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout); err != nil {
		log.Fatal(err)
	}
}
