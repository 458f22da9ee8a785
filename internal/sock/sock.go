// Package sock has the socket calls that all designs make in the same way, on descriptors. It
// does not use package net: a socket of package net is non-blocking and waits in the epoll of
// the Go runtime, but how a server waits is what the designs here differ in.
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
// The connections inherit the listener's timeouts (SO_RCVTIMEO and SO_SNDTIMEO, socket(7)): on
// a blocking connection read(2) fails with EAGAIN when nothing has come for as long as timeout,
// and write(2) when nothing could be sent for a [Tick].
//
// The backlog is [unix.SOMAXCONN], which Linux lowers to net.core.somaxconn. When the
// queue of a listener is full, the kernel drops a new connection, and its client tries
// again after a second (listen(2); Stevens, section 4.5).
func Listen(addr netip.AddrPort, timeout time.Duration, nonblocking bool) (listener int, bound netip.AddrPort, err error) {
	return ListenWith(addr, timeout, nonblocking, 0)
}

// ListenWith is [Listen] with another socket option (SOL_SOCKET), or 0. It is set to 1.
func ListenWith(addr netip.AddrPort, timeout time.Duration, nonblocking bool, option int) (listener int, bound netip.AddrPort, err error) {
	to, family, err := Sockaddr(addr)
	if err == nil {
		listener, err = unix.Socket(family, unix.SOCK_STREAM, 0)
	}
	if err == nil {
		unix.CloseOnExec(listener)
		if err = StartPoller(); err == nil {
			bound, err = listen(listener, to, timeout, nonblocking, option)
		}
		if err != nil {
			unix.Close(listener)
		}
	}
	if err != nil {
		return -1, addr, fmt.Errorf("listen %v: %w", addr, err)
	}
	return listener, bound, nil
}

// StartPoller makes the Go runtime create its epoll and its eventfd, which it does with the first
// timer. It aborts with a long trace if it cannot, later, at the limit of descriptors.
// StartPoller returns an error instead if two descriptors are not free.
func StartPoller() error {
	var spare [2]int
	if err := unix.Pipe(spare[:]); err != nil {
		return err
	}
	unix.Close(spare[0])
	unix.Close(spare[1])
	time.Sleep(time.Nanosecond)
	return nil
}

// listen makes a socket a listener. Connections inherit all of these options.
func listen(listener int, to unix.Sockaddr, timeout time.Duration, nonblocking bool, option int) (bound netip.AddrPort, err error) {
	if err := unix.SetNonblock(listener, nonblocking); err != nil {
		return bound, err
	}
	for _, o := range []struct{ level, name int }{
		// The port can be taken again while connections of an earlier server are in TIME_WAIT.
		{unix.SOL_SOCKET, unix.SO_REUSEADDR},
		// Without this the last segment of a reply, when it is a short one, may have to wait for
		// the client's delayed ACK.
		{unix.IPPROTO_TCP, unix.TCP_NODELAY},
		// Urgent bytes are bytes like the others. Otherwise SIOCINQ would not count them.
		{unix.SOL_SOCKET, unix.SO_OOBINLINE},
		{unix.SOL_SOCKET, option},
	} {
		if o.name == 0 {
			continue
		}
		if err := unix.SetsockoptInt(listener, o.level, o.name, 1); err != nil {
			return bound, err
		}
	}
	receive, send := unix.NsecToTimeval(timeout.Nanoseconds()), unix.NsecToTimeval(Tick(timeout).Nanoseconds())
	if err := unix.SetsockoptTimeval(listener, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &receive); err != nil {
		return bound, err
	}
	if err := unix.SetsockoptTimeval(listener, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &send); err != nil {
		return bound, err
	}
	if err := unix.Bind(listener, to); err != nil {
		return bound, err
	}
	if err := unix.Listen(listener, unix.SOMAXCONN); err != nil {
		return bound, err
	}
	from, err := unix.Getsockname(listener)
	return addrPort(from), err
}

// Accept waits for a connection on a blocking listener, and returns it with the client's
// address. When the listener is shut down, it returns an error that wraps EINVAL. At a resource
// limit it logs the error and tries again after a second; clients wait in the backlog
// meanwhile.
func Accept(listener int) (conn int, peer netip.AddrPort, err error) {
	return await(listener, Blocking)
}

// AcceptNonblocking is [Accept], but the connection is non-blocking.
func AcceptNonblocking(listener int) (conn int, peer netip.AddrPort, err error) {
	return await(listener, Nonblocking)
}

func await(listener int, nonblocking bool) (conn int, peer netip.AddrPort, err error) {
	for {
		conn, peer, err = TryAccept(listener, nonblocking)
		if err == nil || !LimitReached(err) {
			return conn, peer, err
		}
		if err != unix.EAGAIN { // EAGAIN only says that the listener's SO_RCVTIMEO is over
			Pause(err)
		}
	}
}

// TryAccept accepts a connection on a non-blocking listener. The connection is blocking or
// not, as the caller says. The error is EAGAIN when no client waits.
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

// LimitReached reports whether err says that there are no descriptors, no memory or no
// processes left (EAGAIN from fork(2)). The call may succeed when some have been given back.
func LimitReached(err error) bool {
	if err == nil {
		return false
	}
	var errno unix.Errno // on the heap
	return errors.As(err, &errno) && slices.Contains(limits, errno)
}

var limits = []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EAGAIN}

// Pause logs err and waits for a second.
func Pause(err error) {
	log.Print(err)
	time.Sleep(time.Second)
}

// Shutdown stops a listener in all processes that have it: new clients are refused, and each
// [Accept] returns EINVAL, also one that waits. Elsewhere than on Linux, shutdown(2) does not
// work on a listener (ENOTCONN), and the port is free when all processes have closed it.
func Shutdown(listener int) error {
	if err := unix.Shutdown(listener, unix.SHUT_RDWR); err != nil && err != unix.ENOTCONN {
		return fmt.Errorf("shut down the listener: %w", err)
	}
	return nil
}

// LimitDescriptors lowers the limit of descriptors (RLIMIT_NOFILE) to FD_SETSIZE. At the
// limit accept(2) fails with EMFILE, instead of returning a descriptor that does not fit into a
// [unix.FdSet].
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

// Sockaddr returns addr in the form that system calls take, and its address family. A zone is
// the name of an interface, or its number.
func Sockaddr(addr netip.AddrPort) (sa unix.Sockaddr, family int, err error) {
	if addr.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())}, unix.AF_INET, nil
	}
	sa6 := &unix.SockaddrInet6{Addr: addr.Addr().As16(), Port: int(addr.Port())}
	if zone := addr.Addr().Zone(); zone != "" {
		if sa6.ZoneId, err = zoneID(zone); err != nil {
			return nil, 0, fmt.Errorf("interface %s: %w", zone, err)
		}
	}
	return sa6, unix.AF_INET6, nil
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
