//go:build linux

// Server07 is a concurrent TCP server that multiplexes with epoll. It is server02, but
// for how it waits: the kernel keeps the list of what to wait for. A descriptor is
// added once, and changed when it waits for something else; epoll_wait(2) then
// returns those that can go on, and looks at no others. So an idle connection costs
// nothing but memory. It is level-triggered: what is not read is reported again.
//
// See Kerrisk, The Linux Programming Interface, 63.4.
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
	epoll  int                  // the descriptor of the kernel's list
	wants  []echo.Want          // by descriptor, what that list says
	events [256]unix.EpollEvent // room for what epoll_wait returns
	ready  []int                // descriptors that can go on

	listener int
	clients  []*echo.Conn // by descriptor
	open     int          // number of clients
	full     bool         // new clients wait for a descriptor
	ending   bool         // no new client, no new request
}

// add makes the kernel wait for a descriptor to become readable.
func (s *server) add(fd int) error {
	event := unix.EpollEvent{Fd: int32(fd), Events: unix.EPOLLIN}
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		return fmt.Errorf("add descriptor %d to epoll: %w", fd, err)
	}
	for len(s.wants) <= fd {
		s.wants = append(s.wants, echo.Done)
	}
	s.wants[fd] = echo.Read
	return nil
}

// watch says what a descriptor that was added waits for from now on.
func (s *server) watch(fd int, want echo.Want) {
	if want == s.wants[fd] {
		return // mostly, and it saves a system call
	}
	s.wants[fd] = want
	event := unix.EpollEvent{Fd: int32(fd)}
	switch want {
	case echo.Read:
		event.Events = unix.EPOLLIN
	case echo.Write:
		event.Events = unix.EPOLLOUT
	}
	if err := unix.EpollCtl(s.epoll, unix.EPOLL_CTL_MOD, fd, &event); err != nil {
		log.Fatalf("change descriptor %d in epoll: %v", fd, err) // fails only by a mistake here
	}
}

// wait returns the descriptors that can go on. It waits for one for at most so many
// milliseconds, -1 for ever.
func (s *server) wait(ms int) (ready []int, err error) {
	n, err := unix.EpollWait(s.epoll, s.events[:], ms)
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

// acceptClients takes in new clients, several at a time, since a round of the loop
// costs more than an accept, but not so many that the others notice. When there is no
// descriptor for one, the listener is not watched until a connection closes.
func (s *server) acceptClients() error {
	for range 64 {
		fd, peer, err := sock.TryAccept(s.listener, true)
		if errors.Is(err, unix.EAGAIN) {
			return nil // no more
		}
		if err == nil {
			if err = s.add(fd); err != nil {
				unix.Close(fd)
			}
		}
		if sock.Exhausted(err) || errors.Is(err, unix.ENOSPC) { // the list has a limit, too
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
		for len(s.clients) <= fd {
			s.clients = append(s.clients, nil)
		}
		s.clients[fd] = echo.NewConn(fd, peer)
		s.open++
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
	unix.Close(fd) // and with its last descriptor a socket leaves the kernel's list
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
	listener, bound, err := sock.Listen(addr)
	if err != nil {
		return err
	}
	if err := unix.SetNonblock(listener, true); err != nil {
		return fmt.Errorf("make the listener non-blocking: %w", err)
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("create the epoll: %w", err)
	}
	stop, err := sock.SignalPipe(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	if err != nil {
		return err
	}
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	s := &server{epoll: epoll, listener: listener}
	if err := errors.Join(s.add(stop), s.add(listener)); err != nil {
		return err
	}
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
	log.SetPrefix("server07: ")
	signal.Ignore(unix.SIGPIPE)
	host := option.Addr("i", "host", "0.0.0.0", "address to listen on: IPv4, IPv6 or localhost")
	port := option.Int("p", "port", 2000, 0, 65535, "port to listen on, 0 for any that is free")
	timeout := option.Duration("timeout", 30*time.Second, "how long a client may stay silent, or take nothing of its reply, 0 for ever")
	option.Parse()
	if err := serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout); err != nil {
		log.Fatal(err)
	}
}
