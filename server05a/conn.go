package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// Package echo and package sock know descriptors and errors of the system. This file says what
// these are of a connection of package net.

// listen is net.ListenTCP with an option that the connections inherit: urgent bytes are bytes
// like the others, as with sock.Listen. Multipath TCP, which is package net's default, does not
// have it.
func listen(addr netip.AddrPort) (*net.TCPListener, error) {
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		controlErr := conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) })
		return errors.Join(controlErr, err)
	}}
	config.SetMultipathTCP(false)
	if err := sock.StartPoller(); err != nil {
		return nil, fmt.Errorf("listen %v: %w", addr, err)
	}
	network := "tcp"
	if addr.Addr().Is4() {
		network = "tcp4" // with "tcp", 0.0.0.0 would take clients on IPv6, too
	}
	listener, err := config.Listen(context.Background(), network, addr.String())
	if err != nil {
		return nil, err
	}
	return listener.(*net.TCPListener), nil
}

// descriptor returns the descriptor of a connection, for calls that do not wait.
func descriptor(conn *net.TCPConn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(f uintptr) { fd = int(f) })
	}
	return fd, err
}

// cause returns what read(2) or write(2) would have returned on a blocking socket.
func cause(err error) error {
	var errno unix.Errno
	switch {
	case err == io.EOF:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return unix.EAGAIN
	case errors.As(err, &errno):
		return errno
	}
	return err
}
