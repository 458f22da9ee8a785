// Package sock has the socket calls that all designs make in the same way: listen and
// accept, on bare descriptors. It does not use package net. A socket of package net is
// non-blocking and waits in the epoll of the Go runtime, but how a server waits is what
// the designs here differ in.
package sock

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Whether a socket is blocking or not.
const (
	Blocking    = false
	Nonblocking = true
)

// Listen returns a listener and the address that it is bound to. If the port of addr is 0,
// the kernel chooses a free one.
//
// The backlog is [unix.SOMAXCONN], which Linux lowers to net.core.somaxconn. When the
// queue of a listener is full, the kernel drops a new connection, and its client tries
// again after a second (listen(2); Stevens, section 4.5).
func Listen(addr netip.AddrPort, nonblocking bool) (listener int, bound netip.AddrPort, err error) {
	return open(addr, nonblocking, false)
}

// ListenShared returns n non-blocking listeners on one port (SO_REUSEPORT, socket(7)). Each
// has a queue of its own, and the kernel puts a connection into one of them, by a hash of the
// addresses.
func ListenShared(addr netip.AddrPort, n int) (listeners []int, bound netip.AddrPort, err error) {
	bound = addr
	for len(listeners) < n {
		// The first one has the port alone until it listens: with SO_REUSEPORT a second server
		// could take a part of the connections.
		var listener int
		listener, bound, err = open(bound, Nonblocking, len(listeners) > 0)
		if err == nil {
			err = share(listener)
		}
		if err != nil {
			return nil, addr, err
		}
		listeners = append(listeners, listener)
	}
	return listeners, bound, nil
}

// share lets a listener share its port with others that do the same.
func share(listener int) error {
	return unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
}

func open(addr netip.AddrPort, nonblocking, shared bool) (listener int, bound netip.AddrPort, err error) {
	to, family := Sockaddr(addr)
	listener, err = unix.Socket(family, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(listener)
		if bound, err = listen(listener, to, nonblocking, shared); err != nil {
			unix.Close(listener)
		}
	}
	if err != nil {
		return -1, addr, fmt.Errorf("listen %v: %w", addr, err)
	}
	// The Go runtime creates its epoll with the first timer, and dies if it cannot have
	// a descriptor for it. So here is a timer, while there are descriptors.
	time.Sleep(time.Nanosecond)
	return listener, bound, nil
}

// listen makes a socket a listener.
func listen(listener int, to unix.Sockaddr, nonblocking, shared bool) (bound netip.AddrPort, err error) {
	err = errors.Join(
		unix.SetNonblock(listener, nonblocking),
		// The port can be taken again while connections of an earlier server are in
		// TIME_WAIT.
		unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		// Accepted connections inherit this. Without it the last segment of a reply, when it
		// is a short one, may have to wait for the client's delayed ACK.
		unix.SetsockoptInt(listener, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
	)
	if err != nil {
		return bound, err
	}
	if shared {
		if err := share(listener); err != nil {
			return bound, err
		}
	}
	if err := unix.Bind(listener, to); err != nil {
		return bound, err
	}
	if err := unix.Listen(listener, unix.SOMAXCONN); err != nil {
		return bound, err
	}
	if err := EnoughDescriptors(); err != nil {
		return bound, err
	}
	from, err := unix.Getsockname(listener)
	return addrPort(from), err
}

// EnoughDescriptors returns an error if there are fewer than 16 descriptors. A server needs
// some beside those of its clients, and the Go runtime ends the program when it lacks one.
func EnoughDescriptors() error {
	for range 8 {
		var pipe [2]int
		if err := unix.Pipe(pipe[:]); err != nil {
			return err
		}
		defer unix.Close(pipe[0])
		defer unix.Close(pipe[1])
	}
	return nil
}

// Accept waits for a connection on a blocking listener. After [Shutdown] it returns an
// error that wraps EINVAL. While there is no descriptor or no memory for another
// connection, clients wait in the backlog. A non-blocking listener may have no client: then
// the error is EAGAIN.
func Accept(listener int) (conn int, peer netip.AddrPort, err error) {
	conn, peer, err = TryAccept(listener, Blocking)
	for err != unix.EAGAIN && Exhausted(err) {
		Pause(err)
		conn, peer, err = TryAccept(listener, Blocking)
	}
	return conn, peer, err
}

// TryAccept accepts a connection on a non-blocking listener, without waiting. The
// connection is blocking or not, as the caller says. The error is EAGAIN when no client
// waits; [Exhausted] tells of another one whether there is no descriptor or no memory.
func TryAccept(listener int, nonblocking bool) (conn int, peer netip.AddrPort, err error) {
	for {
		conn, peer, err = accept(listener, nonblocking)
		if err == nil || err == unix.EAGAIN {
			return conn, peer, err
		}
		if !slices.Contains(passing, err) {
			return -1, peer, fmt.Errorf("accept: %w", err)
		}
	}
}

// passing are the errors of accept(2) that belong to one connection, or that pass: the
// next call may succeed (accept(2), "Error handling").
var passing = []error{
	unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.ENOPROTOOPT, unix.ENETDOWN,
	unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.EOPNOTSUPP, enonet,
}

// Exhausted reports whether err says that the system has run out of descriptors, memory,
// processes (EAGAIN from fork(2)) or watches of epoll (ENOSPC). The call may succeed
// when some have been given back.
func Exhausted(err error) bool {
	if err == nil {
		return false
	}
	var errno unix.Errno
	errors.As(err, &errno)
	return slices.Contains(scarce, errno)
}

var scarce = []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EAGAIN, unix.ENOSPC}

// Pause logs err and waits for a second.
func Pause(err error) {
	log.Print(err)
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		unix.Poll(nil, 100) // in ms; a timer may need a descriptor, see Listen
	}
}

// LimitDescriptors lowers the limit of descriptors (RLIMIT_NOFILE) to FD_SETSIZE. A
// descriptor that does not fit into a [unix.FdSet] cannot be had then: the call that
// would return one fails with EMFILE.
func LimitDescriptors() error {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	if err == nil {
		limit.Cur = min(limit.Cur, unix.FD_SETSIZE)
		err = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	}
	if err != nil {
		return fmt.Errorf("lower the limit of descriptors: %w", err)
	}
	return nil
}

// Shutdown stops a listener in all processes that have it. New clients are refused. On
// Linux every [Accept] returns EINVAL, also one that waits. Elsewhere shutdown(2) does
// not work on a listener, and the port is free when all processes have closed it.
func Shutdown(listener int) error {
	if err := unix.Shutdown(listener, unix.SHUT_RDWR); err != nil && err != unix.ENOTCONN {
		return fmt.Errorf("shut down the listener: %w", err)
	}
	return nil
}

// Peer returns the address at the other end of a connection. It is 0.0.0.0:0 when a reset has
// already ended the connection (ENOTCONN).
func Peer(conn int) netip.AddrPort {
	peer, err := getpeername(conn)
	if err != nil {
		return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	}
	return peer
}

// Sockaddr returns addr in the form that system calls take, and its address family.
func Sockaddr(addr netip.AddrPort) (sa unix.Sockaddr, family int) {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}, unix.AF_INET
	}
	return &unix.SockaddrInet6{Addr: addr.Addr().As16(), Port: int(addr.Port())}, unix.AF_INET6
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return ipv6(sa.Addr, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// ipv6 returns an address of an IPv6 socket. An IPv4 client has ::ffff:a.b.c.d there.
func ipv6(addr [16]byte, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(addr).Unmap(), port)
}
