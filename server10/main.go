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
	"net/netip"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

type server struct {
	ring     *ring
	listener int
	clients  echo.Table
	full     bool // accept has failed, and may fail again even if no client waits
	polling  bool // for a client, while full
	failed   error
}

// queue queues a call. Its result comes with the operation, and with id: the descriptor, or the
// number of an acceptCall.
func (s *server) queue(id int, c call) {
	c.data = uint64(id)<<8 | uint64(c.op)
	if err := s.ring.add(c); err != nil {
		s.failed = err
	}
}

// queueAccepts queues calls of accept, so that some are always under way. After accept has failed,
// at a resource limit for example, it first polls the listener: accept would fail again at once.
func (s *server) queueAccepts() {
	if s.clients.ListenerInterest() != echo.WantRead {
		return
	}
	if s.full {
		if !s.polling {
			s.polling = true
			s.queue(0, call{op: opPoll, fd: int32(s.listener), flags: unix.POLLIN})
		}
		return
	}
	for i := range s.ring.accepts {
		a := &s.ring.accepts[i]
		if a.underWay {
			continue
		}
		a.underWay, a.size = true, unix.SizeofSockaddrInet6
		s.queue(i, call{op: opAccept, fd: int32(s.listener), addr: uint64(uintptr(unsafe.Pointer(&a.addr))),
			addr2: uint64(uintptr(unsafe.Pointer(&a.size))), flags: unix.SOCK_CLOEXEC})
	}
}

// queueNext queues the call for which a client waits: to receive a request, to send a part of
// its reply, or to be closed.
func (s *server) queueNext(conn int) {
	client := s.clients.Client(conn)
	c := call{fd: int32(conn)}
	switch client.Interest() {
	case echo.WantRead:
		c.op, c.how = opRecv, selectBuffer
	case echo.WantWrite:
		chunk := client.Chunk()
		c.addr, c.len = uint64(uintptr(unsafe.Pointer(&chunk[0]))), uint32(len(chunk))
		c.op, c.flags = opSend, unix.MSG_WAITALL|unix.MSG_NOSIGNAL // one result, when all is sent
	case echo.WantNothing:
		s.clients.Remove(conn)
		c.op = opClose
	}
	s.queue(conn, c)
}

// accepted handles the result of accept: a new client, or why there is none.
func (s *server) accepted(a *acceptCall, r result) {
	a.underWay = false
	switch err := errorOf(r); {
	case err == nil:
		s.clients.Add(int(r.res), sock.Peer(&a.addr))
		s.queueNext(int(r.res))
	case err == unix.ECONNABORTED || err == unix.EINTR: // a client that has gone, or a signal: try again
	case s.clients.ListenerInterest() == echo.WantRead: // the first that fails, and not for the shutdown
		s.failed, s.full = s.clients.AcceptFailed(fmt.Errorf("accept: %w", err)), true
	}
}

// received handles the result of a receive: a request, the end of the input, or an error.
func (s *server) received(conn int, r result) {
	if r.res > 0 {
		data, id := s.ring.received(r)
		s.clients.Client(conn).Received(data, nil)
		s.ring.provide(id)
	} else if r.res != -int32(unix.ENOBUFS) { // there was no buffer: try again
		s.clients.Client(conn).Received(nil, errorOf(r))
	}
	s.queueNext(conn)
}

// sent handles the result of a send.
func (s *server) sent(conn int, r result) {
	s.clients.Client(conn).Sent(int(r.res), errorOf(r))
	s.queueNext(conn)
}

// errorOf returns the error of a call, as the system call would.
func errorOf(r result) error {
	if r.res < 0 {
		return unix.Errno(-r.res)
	}
	return nil
}

func serveForever(addr netip.AddrPort) error {
	runtime.LockOSThread() // only the thread that makes the ring may use it (setupSingle)
	ring, err := newRing(1024)
	if err != nil {
		return err
	}
	listener, port, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	stop, err := sock.SignalPipe(sock.StopSignal())
	if err != nil {
		return err
	}
	fmt.Printf("Listening on port %d ...\n", port)

	s := &server{ring: ring, listener: listener}
	s.queue(stop, call{op: opRead, fd: int32(stop), addr: uint64(uintptr(unsafe.Pointer(&ring.signal))), len: 1})
	for yield := sock.Yielder(); s.clients.Serving() && s.failed == nil; yield() { // lets the Go scheduler run now and then
		expired, limit := s.clients.Expire()
		for _, conn := range expired {
			unix.Shutdown(conn, unix.SHUT_RDWR) // the call that is under way returns, and then it is closed
		}
		s.queueAccepts()
		if err := ring.submit(limit); err != nil && !sock.Retry(err) {
			return err
		}
		for r, ok := ring.next(); ok; r, ok = ring.next() {
			switch id := int(r.data >> 8); r.data & 0xff {
			case opAccept:
				s.accepted(&ring.accepts[id], r)
			case opPoll: // a client waits
				s.full, s.polling = false, false
			case opRecv:
				s.received(id, r)
			case opSend:
				s.sent(id, r)
			case opRead: // from the pipe for signals: finish the replies under way
				s.clients.Shutdown()
				if err := sock.Shutdown(listener); err != nil {
					return err
				}
			}
		}
	}
	return s.failed
}

func main() {
	addr := option.Server()
	option.Parse()
	sock.Exit(serveForever(*addr))
}
