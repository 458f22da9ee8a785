// Package sock has the socket calls that all designs make in the same way, on descriptors. It
// does not use package net: a socket of package net is non-blocking and waits in the epoll of
// the Go runtime. But the designs differ only in how they wait.
package sock

import (
	"cmp"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// NoLimit is a [Timeout] without end: 146 years.
const NoLimit = time.Duration(1 << 62)

// Timeout is how long a client may be silent, or take nothing of its reply. A process has one,
// which option -timeout sets.
var Timeout = NoLimit

// Tick is how often to look whether a client makes progress. A call on a blocking socket
// waits for a tick at most, see [Listen]: a write may wait for long while the client takes a
// little now and then, because the kernel lets it go on when a third of the buffer is free.
func Tick() time.Duration { return min(time.Second, max(Timeout/4, 10*time.Millisecond)) }

// Whether a socket is blocking or not.
const (
	Blocking    = false
	Nonblocking = true
)

// Listen returns a listener and its port, or the error of the call that has failed. If the port of
// addr is 0, the kernel chooses a free one. The options (SOL_SOCKET) are set to 1. A listener on
// [::] takes clients on IPv4, too.
//
// The connections inherit the listener's timeouts (SO_RCVTIMEO and SO_SNDTIMEO, socket(7)): on
// a blocking connection read(2) fails with EAGAIN when nothing has come for as long as [Timeout],
// and write(2) when nothing could be sent for a [Tick].
//
// The backlog is [unix.SOMAXCONN], which Linux lowers to net.core.somaxconn. When the
// queue of a listener is full, the kernel drops a new connection, and its client tries
// again after a second (listen(2); Stevens, section 4.5).
func Listen(addr netip.AddrPort, nonblocking bool, options ...int) (listener int, port uint16, err error) {
	to, family, err := Sockaddr(addr)
	if err == nil {
		listener, err = unix.Socket(family, unix.SOCK_STREAM, 0)
	}
	if err == nil {
		unix.CloseOnExec(listener)
		if port, err = listen(listener, to, family, nonblocking, options); err != nil {
			unix.Close(listener)
		}
	}
	if err != nil {
		return -1, 0, fmt.Errorf("listen %v: %w", addr, err)
	}
	return listener, port, nil
}

// listen makes a socket a listener. Connections inherit all of these options.
func listen(listener int, to unix.Sockaddr, family int, nonblocking bool, options []int) (port uint16, err error) {
	// SO_REUSEADDR: the port can be taken again while connections of an earlier server are in
	// TIME_WAIT. SO_OOBINLINE: urgent bytes are bytes like the others; otherwise SIOCINQ would not
	// count them.
	for _, option := range append(options, unix.SO_REUSEADDR, unix.SO_OOBINLINE) {
		err = cmp.Or(err, unix.SetsockoptInt(listener, unix.SOL_SOCKET, option, 1))
	}
	if family == unix.AF_INET6 {
		err = cmp.Or(err, unix.SetsockoptInt(listener, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0))
	}
	receive, send := unix.NsecToTimeval(Timeout.Nanoseconds()), unix.NsecToTimeval(Tick().Nanoseconds())
	if err = cmp.Or(err,
		StartPoller(),
		unix.SetNonblock(listener, nonblocking),
		// Otherwise the last segment of a reply, when it is a short one, may have to wait for the
		// client's delayed ACK.
		unix.SetsockoptInt(listener, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(listener, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &receive),
		unix.SetsockoptTimeval(listener, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &send),
	); err != nil {
		return 0, err
	}
	if err := unix.Bind(listener, to); err != nil {
		return 0, err
	}
	if err := unix.Listen(listener, unix.SOMAXCONN); err != nil {
		return 0, err
	}
	bound, err := unix.Getsockname(listener)
	return addrPort(bound).Port(), err
}

// StartPoller makes the Go runtime create its epoll and its eventfd, which it does with the first
// timer. If that fails later, at the limit of descriptors, the runtime aborts with a stack trace.
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

// Accept waits for a connection on a blocking listener, and returns it with the client's
// address. The error is [ErrShutdown] when the listener is shut down, or it is [Fatal]. After any
// other error, at a resource limit for example, Accept logs it and tries again after a second;
// clients wait in the backlog meanwhile.
func Accept(listener int) (conn int, peer netip.AddrPort, err error) {
	for {
		conn, peer, err = TryAccept(listener, Blocking)
		if err != unix.EAGAIN && !Retry(err) { // EAGAIN: the listener's SO_RCVTIMEO is over
			return conn, peer, err
		}
	}
}

// TryAccept accepts a connection (accept4(2)), and makes it blocking or not. The error is EAGAIN
// when the listener is non-blocking and no client waits, and [ErrShutdown] when the listener is
// shut down.
func TryAccept(listener int, nonblocking bool) (conn int, peer netip.AddrPort, err error) {
	for {
		conn, peer, err = accept(listener, nonblocking)
		switch {
		case err == nil || err == unix.EAGAIN:
			return conn, peer, err
		case err == unix.EINTR || err == unix.ECONNABORTED: // a signal, or a client that has gone
		case err == unix.EINVAL && !listens(listener):
			return -1, peer, ErrShutdown
		default:
			return -1, peer, fmt.Errorf("accept: %w", err)
		}
	}
}

// listens reports whether a socket is still a listener.
func listens(socket int) bool {
	is, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err != nil || is != 0
}

// Fatal reports whether a call that has failed with err can never succeed, because the program
// has passed it something wrong. All other errors of accept(2), select(2) and the like pass: a
// resource limit, a client that has gone, a network that is down, a firewall's rule.
func Fatal(err error) bool { return isOneOf(err, unix.EBADF, unix.ENOTSOCK, unix.EFAULT, unix.EINVAL) }

// Retry reports whether to make a call again that has failed with err: at once after a signal
// (EINTR), or after a second, for which Retry waits, with err in the log. It is false for nil,
// [ErrShutdown] and errors that are [Fatal].
func Retry(err error) bool {
	if err == nil || errors.Is(err, ErrShutdown) || Fatal(err) {
		return false
	}
	if !errors.Is(err, unix.EINTR) {
		Pause(err)
	}
	return true
}

// LimitReached reports whether err says that there are no descriptors, no memory or no
// processes left (EAGAIN from fork(2)). The call may succeed when some have been given back.
func LimitReached(err error) bool {
	return isOneOf(err, unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.EAGAIN)
}

func isOneOf(err error, all ...unix.Errno) bool {
	if err == nil {
		return false
	}
	var errno unix.Errno // on the heap
	return errors.As(err, &errno) && slices.Contains(all, errno)
}

// Pause logs err and waits for a second.
func Pause(err error) {
	log.Print(err)
	time.Sleep(time.Second)
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
