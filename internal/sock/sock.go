// Package sock has the socket calls that every design makes in the same way:
// listen, accept, connect, all on bare descriptors. Package net is not used: its
// sockets are non-blocking and wait in the runtime's own epoll, and the designs
// here differ in just how they wait.
package sock

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Listen returns a blocking listening socket and its address, in which a port of
// 0 has become the free one that the kernel took.
//
// The backlog is [unix.SOMAXCONN], as long as the kernel allows: a connection
// that finds the queue full is not refused but dropped, and its client tries
// again only after a second (listen(2), Stevens 4.5).
func Listen(addr netip.AddrPort) (listener int, bound netip.AddrPort, err error) {
	fail := func(err error) (int, netip.AddrPort, error) {
		return -1, addr, fmt.Errorf("listen %v: %w", addr, err)
	}
	to, family, err := sockaddr(addr)
	if err != nil {
		return fail(err)
	}
	listener, err = socket(family)
	if err != nil {
		return fail(err)
	}
	if err := listen(listener, to); err != nil {
		unix.Close(listener)
		return fail(err)
	}
	from, err := unix.Getsockname(listener)
	if err != nil {
		unix.Close(listener)
		return fail(err)
	}
	// With the first timer, which may be one of its own, the Go runtime creates its
	// epoll, and it dies if there is no descriptor left for that.
	time.Sleep(time.Nanosecond)
	return listener, addrPort(from), nil
}

func listen(listener int, to unix.Sockaddr) error {
	// The port may be taken again while connections of an earlier server
	// are in TIME_WAIT.
	if err := unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	// Accepted connections inherit this. Without it the last, short segment
	// of a reply may wait for the client's delayed ACK.
	if err := unix.SetsockoptInt(listener, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		return err
	}
	if err := unix.Bind(listener, to); err != nil {
		return err
	}
	return unix.Listen(listener, unix.SOMAXCONN)
}

// Accept takes the next connection from the queue of a blocking listener, and
// waits for one. It returns an error that wraps EINVAL after [Shutdown]. While
// descriptors or memory have run out it says so, once a second, and leaves the
// clients in the queue.
func Accept(listener int) (conn int, peer netip.AddrPort, err error) {
	for {
		conn, peer, err = acceptNext(listener, false)
		if !Exhausted(err) {
			return conn, peer, err
		}
		log.Print(err)
		unix.Poll(nil, 1000) // ms; time.Sleep may itself need a descriptor, for the runtime's epoll
	}
}

// TryAccept takes the next connection from the queue of a non-blocking listener,
// and waits for nothing. Whether the connection is non-blocking too is up to the
// caller. An error wraps EAGAIN when no connection is waiting, and is one that
// [Exhausted] knows when there is nothing left to take it with.
func TryAccept(listener int, nonblocking bool) (conn int, peer netip.AddrPort, err error) {
	return acceptNext(listener, nonblocking)
}

// acceptNext tries again after an error that belongs to one connection or that will
// pass (accept(2), "Error handling").
func acceptNext(listener int, nonblocking bool) (conn int, peer netip.AddrPort, err error) {
	for {
		conn, from, err := accept(listener, nonblocking)
		if err == nil {
			return conn, addrPort(from), nil
		}
		if !slices.Contains(passing, err) {
			return -1, netip.AddrPort{}, fmt.Errorf("accept: %w", err)
		}
	}
}

// passing are the errors of accept(2) after which the next call may well succeed.
var passing = []error{
	unix.EINTR, unix.ECONNABORTED, unix.EPROTO, unix.ENOPROTOOPT, unix.ENETDOWN,
	unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.EOPNOTSUPP,
}

// LimitDescriptors lowers the limit of descriptors (RLIMIT_NOFILE) to FD_SETSIZE,
// unless it is lower already. A call that would have returned a descriptor that no
// [unix.FdSet] can hold now fails with EMFILE.
func LimitDescriptors() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("get the limit of descriptors: %w", err)
	}
	limit.Cur = min(limit.Cur, unix.FD_SETSIZE)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("set the limit of descriptors: %w", err)
	}
	return nil
}

// Exhausted reports whether err says that descriptors, memory or processes have
// run out, the last being EAGAIN from fork(2). What was tried will work once
// something is given back.
func Exhausted(err error) bool {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EAGAIN:
		return true
	}
	return false
}

// Shutdown ends the listening of every process that holds the listener: clients
// are refused from now on, and on Linux every [Accept] returns EINVAL, also one
// that is already waiting. Elsewhere shutdown(2) does not know listening
// sockets, and the port stays until the last process has closed it.
func Shutdown(listener int) error {
	if err := unix.Shutdown(listener, unix.SHUT_RDWR); err != nil && err != unix.ENOTCONN {
		return fmt.Errorf("shutdown listener: %w", err)
	}
	return nil
}

// Connect returns a blocking socket that is connected to addr.
func Connect(addr netip.AddrPort) (conn int, err error) {
	to, family, err := sockaddr(addr)
	if err == nil {
		conn, err = socket(family)
	}
	if err != nil {
		return -1, fmt.Errorf("connect %v: %w", addr, err)
	}
	err = unix.Connect(conn, to)
	if err == unix.EINTR {
		err = awaitConnect(conn)
	}
	if err != nil {
		unix.Close(conn)
		return -1, fmt.Errorf("connect %v: %w", addr, err)
	}
	return conn, nil
}

// awaitConnect waits for a connect(2) that a signal interrupted. It goes on by
// itself then, and calling it again is an error (Stevens 5.9).
func awaitConnect(conn int) error {
	fds := []unix.PollFd{{Fd: int32(conn), Events: unix.POLLOUT}}
	for {
		if _, err := unix.Poll(fds, -1); err == nil {
			break
		} else if err != unix.EINTR {
			return err
		}
	}
	errno, err := unix.GetsockoptInt(conn, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno != 0 {
		err = unix.Errno(errno)
	}
	return err
}

// Pair returns two UNIX-domain stream sockets that are connected to each other
// (socketpair(2)).
func Pair() (pair [2]int, err error) {
	if pair, err = socketpair(); err != nil {
		return pair, fmt.Errorf("create a socket pair: %w", err)
	}
	return pair, nil
}

// Peer returns the address at the other end of a connected socket.
func Peer(conn int) (netip.AddrPort, error) {
	from, err := unix.Getpeername(conn)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("getpeername: %w", err)
	}
	return addrPort(from), nil
}

func sockaddr(addr netip.AddrPort) (unix.Sockaddr, int, error) {
	ip := addr.Addr()
	if ip.Is4() {
		return &unix.SockaddrInet4{Addr: ip.As4(), Port: int(addr.Port())}, unix.AF_INET, nil
	}
	sa := &unix.SockaddrInet6{Addr: ip.As16(), Port: int(addr.Port())}
	if zone := ip.Zone(); zone != "" {
		id, err := strconv.ParseUint(zone, 10, 32)
		if err != nil {
			return nil, 0, fmt.Errorf("zone %q is not the number of an interface", zone)
		}
		sa.ZoneId = uint32(id)
	}
	return sa, unix.AF_INET6, nil
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		// A client of IPv4 comes to an IPv6 listener as ::ffff:a.b.c.d.
		ip := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 {
			ip = ip.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port))
	}
	return netip.AddrPort{}
}
