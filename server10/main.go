//go:build linux

// Server10 is a concurrent TCP server that works with completions, by io_uring. A multiplexer
// asks which descriptors are ready, and then calls accept, read and write on them. This server
// queues these calls, and the kernel tells it what they have returned. One system call in each
// round of the loop submits the new calls and waits for results, however many there are. While
// a call is under way, its buffer belongs to the kernel.
//
// See io_uring(7), io_uring_setup(2) and io_uring_enter(2).
package main

import (
	"fmt"
	"log"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

type server struct {
	ring      *ring
	listener  int
	clients   *echo.Clients
	accepting bool           // a call of accept is under way
	buffers   map[int][]byte // of calls under way: the kernel has them, which the garbage collector does not know
	failed    error
}

// queue queues a call. Its result comes with the descriptor and the operation.
func (s *server) queue(c call) {
	c.data = uint64(c.fd)<<8 | uint64(c.op)
	if err := s.ring.add(c); err != nil {
		s.failed = err
	}
}

// queueAccept queues one call that accepts all clients from now on (multishot). It ends when
// there is no descriptor for a client.
func (s *server) queueAccept() {
	s.accepting = true
	s.queue(call{op: opAccept, ioprio: acceptMultishot, fd: int32(s.listener), flags: unix.SOCK_CLOEXEC})
}

// queueStep queues what a client waits for: to receive a request, to send a part of its reply,
// or to be closed.
func (s *server) queueStep(conn int, want echo.Want) {
	if want == echo.Done {
		delete(s.buffers, conn)
		s.queue(call{op: opClose, fd: int32(conn)})
		return
	}
	buf := s.clients.Buffer(conn, want)
	s.buffers[conn] = buf
	c := call{op: opRecv, fd: int32(conn), addr: uint64(uintptr(unsafe.Pointer(&buf[0]))), len: uint32(len(buf))}
	if want == echo.Write {
		c.op, c.flags = opSend, unix.MSG_WAITALL|unix.MSG_NOSIGNAL // one result, when all is sent
	}
	s.queue(c)
}

// accepted handles the result of accept: a new client, or why there is none.
func (s *server) accepted(r result) {
	s.accepting = r.flags&more != 0
	switch err := unix.Errno(-r.res); {
	case r.res >= 0:
		s.clients.Add(int(r.res), sock.Peer(int(r.res))) // multishot accept does not tell the address
		s.queueStep(int(r.res), echo.Read)
	case sock.Exhausted(err):
		s.clients.Full(fmt.Errorf("accept: %w", err))
	}
}

// stepped handles the result of a call for a client.
func (s *server) stepped(conn int, r result) {
	n, err := int(r.res), error(nil)
	if n < 0 {
		n, err = 0, unix.Errno(-r.res)
	}
	s.queueStep(conn, s.clients.Complete(conn, n, err))
}

// dismiss makes the call that a dismissed client has under way return. Then it is closed.
func (s *server) dismiss(conn int) { unix.Shutdown(conn, unix.SHUT_RDWR) }

func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	ring, err := newRing(1024)
	if err != nil {
		return err
	}
	listener, bound, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	stop, err := sock.SignalPipe(sock.Stop(timeout))
	if err != nil {
		return err
	}
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	s := &server{ring: ring, listener: listener, clients: echo.NewClients(timeout), buffers: make(map[int][]byte)}
	s.buffers[stop] = make([]byte, 1)
	s.queue(call{op: opRead, fd: int32(stop), addr: uint64(uintptr(unsafe.Pointer(&s.buffers[stop][0]))), len: 1})
	for s.clients.Serving() && s.failed == nil {
		dismissed, limit := s.clients.Dismiss()
		for _, conn := range dismissed {
			s.dismiss(conn)
		}
		if !s.accepting && s.clients.Listener() == echo.Read {
			s.queueAccept()
		}
		if err := ring.submit(limit); err != nil {
			return err
		}
		for r, ok := ring.next(); ok; r, ok = ring.next() {
			switch fd := int(r.data >> 8); r.data & 0xff {
			case opAccept:
				s.accepted(r)
			case opRecv, opSend:
				s.stepped(fd, r)
			case opRead: // from the pipe for signals
				s.clients.End()
				if err := sock.Shutdown(listener); err != nil {
					return err
				}
			}
		}
	}
	return s.failed
}

func main() {
	host, port, timeout := option.Server()
	option.Parse()
	if err := serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout); err != nil {
		log.Fatal(err)
	}
}
