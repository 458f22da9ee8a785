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

// tick is how often the server looks for what no descriptor tells it: clients that
// have been silent for too long, and memory that others have given back.
const tick = 100 * time.Millisecond

type server struct {
	listener int
	reading  unix.FdSet                  // waits to read: the listener, clients without a reply under way
	writing  unix.FdSet                  // waits to write: clients with one
	clients  [unix.FD_SETSIZE]*echo.Conn // by descriptor
	open     int                         // number of clients
	top      int                         // highest descriptor so far
	full     time.Time                   // when it was last said that new clients wait
	ending   bool                        // no new client, no new request
}

// acceptClient takes in a new client. When there is no descriptor for it, the
// listener is left out of the read set until a connection closes.
func (s *server) acceptClient() error {
	fd, peer, err := sock.TryAccept(s.listener, true)
	if errors.Is(err, unix.EAGAIN) {
		return nil // gone again
	}
	if sock.Exhausted(err) {
		s.reading.Clear(s.listener)
		if time.Since(s.full) > time.Second {
			s.full = time.Now()
			log.Printf("%v: new clients wait", err)
		}
		return nil
	}
	if err != nil {
		return err
	}
	s.clients[fd] = echo.NewConn(fd, peer)
	s.open++
	s.top = max(s.top, fd)
	s.reading.Set(fd)
	return nil
}

// step lets a client go on, and notes what it has to wait for.
func (s *server) step(fd int) {
	want, err := s.clients[fd].Step()
	switch want {
	case echo.Read:
		s.writing.Clear(fd)
		s.reading.Set(fd)
	case echo.Write:
		s.reading.Clear(fd)
		s.writing.Set(fd)
	case echo.Done:
		s.closeClient(fd, err)
	}
}

func (s *server) closeClient(fd int, err error) {
	if err != nil {
		log.Print(err)
	}
	s.reading.Clear(fd)
	s.writing.Clear(fd)
	s.clients[fd] = nil
	s.open--
	unix.Close(fd)
	if !s.ending {
		s.reading.Set(s.listener) // there is a descriptor again
	}
}

// check closes clients that have been silent for too long and, when the server
// ends, those that have no reply under way.
func (s *server) check(timeout time.Duration) {
	if !s.ending {
		s.reading.Set(s.listener)
	}
	for fd, c := range s.clients[:s.top+1] {
		if c == nil {
			continue
		}
		if s.ending && !c.Busy() {
			s.closeClient(fd, nil)
		} else if err := c.Expired(timeout); err != nil {
			s.closeClient(fd, err)
		}
	}
}

func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	// With this limit accept(2) never returns a descriptor that no set can hold.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("get the limit of descriptors: %w", err)
	}
	limit.Cur = min(limit.Cur, unix.FD_SETSIZE)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("set the limit of descriptors: %w", err)
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

	s := &server{listener: listener, top: max(listener, stop)}
	s.reading.Set(stop)
	s.reading.Set(listener)
	checked := time.Now()
	var deadline time.Time
	for !s.ending || s.open > 0 {
		readable, writable := s.reading, s.writing
		var wait *unix.Timeval // for ever
		if s.open > 0 || !s.reading.IsSet(listener) {
			tv := unix.NsecToTimeval(tick.Nanoseconds())
			wait = &tv
		}
		_, err := unix.Select(s.top+1, &readable, &writable, nil, wait)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("select: %w", err)
		}
		for fd, c := range s.clients[:s.top+1] {
			if c != nil && (readable.IsSet(fd) || writable.IsSet(fd)) {
				s.step(fd)
			}
		}
		if readable.IsSet(stop) {
			s.ending, deadline = true, time.Now().Add(timeout)
			s.reading.Clear(stop)
			s.reading.Clear(listener)
			unix.Close(listener)
		} else if readable.IsSet(listener) {
			if err := s.acceptClient(); err != nil {
				return err
			}
		}
		if s.ending || time.Since(checked) >= tick {
			checked = time.Now()
			s.check(timeout)
		}
		if s.ending && timeout > 0 && time.Now().After(deadline) {
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
