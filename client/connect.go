package main

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// connect returns a blocking socket that is connected to the server.
func connect(server netip.AddrPort) (conn int, err error) {
	to, family := sock.Sockaddr(server)
	if conn, err = unix.Socket(family, unix.SOCK_STREAM, 0); err == nil {
		err = unix.Connect(conn, to)
		if err == unix.EINTR {
			err = awaitConnect(conn)
		}
		if err != nil {
			unix.Close(conn)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("connect %v: %w", server, err)
	}
	return conn, nil
}

// awaitConnect waits for the end of a connect(2) that a signal has interrupted. The kernel
// goes on with it, and to call it again is an error (Stevens, section 5.9).
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
