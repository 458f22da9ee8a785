package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/sock"
)

// Package echo and package sock know descriptors and errors of the system. This file says what
// these are of a connection of package net.

// listen is net.ListenTCP with an option that the connections inherit: urgent bytes are bytes
// like the others, as with sock.Listen. Multipath TCP, which is package net's default, does not
// have it.
func listen(addr netip.AddrPort) (listener *net.TCPListener, port int, err error) {
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		controlErr := conn.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_OOBINLINE, 1) })
		return errors.Join(controlErr, err)
	}}
	config.SetMultipathTCP(false)
	if err := sock.StartPoller(); err != nil {
		return nil, 0, fmt.Errorf("listen %v: %w", addr, err)
	}
	network := "tcp"
	if addr.Addr().Is4() {
		network = "tcp4" // with "tcp", 0.0.0.0 would take clients on IPv6, too
	}
	l, err := config.Listen(context.Background(), network, addr.String())
	if err != nil {
		return nil, 0, err
	}
	bound, ok := l.Addr().(*net.TCPAddr)
	if !ok { // package net ignores an error of getsockname
		return nil, 0, fmt.Errorf("listen %v: the port is not known", addr)
	}
	return l.(*net.TCPListener), bound.Port, nil
}

// requests has room for requests. A goroutine gets it for as long as it serves.
var requests = sync.Pool{New: func() any { return new([echo.MaxRequest + 1]byte) }}

// readRequest is [echo.ReadRequest].
func readRequest(conn *net.TCPConn) (count int64, err error) {
	conn.SetReadDeadline(time.Now().Add(sock.Timeout))
	request := requests.Get().(*[echo.MaxRequest + 1]byte)
	defer requests.Put(request)
	n, err := conn.Read(request[:])
	if err = cause(err); err != nil {
		return 0, echo.ReadError(err)
	}
	return echo.ParseRequest(request[:n])
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
