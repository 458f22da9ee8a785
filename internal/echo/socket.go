package echo

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A socket is a connection on which calls wait until a deadline: a descriptor, or a
// connection of package net.
type socket interface {
	io.ReadWriter
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// A NetConn is a *net.TCPConn. Package echo cannot name it, because a program that imports
// package net starts in twice the time.
type NetConn interface {
	socket
	syscall.Conn
}

// A descriptor is a socket without package net. Its calls wait if it is blocking.
type descriptor int

// Read is read(2), repeated if a signal interrupts it. The kernel does not repeat it on a
// socket that has a timeout (signal(7), SA_RESTART).
func (fd descriptor) Read(p []byte) (n int, err error) {
	for n, err = unix.Read(int(fd), p); err == unix.EINTR; {
		n, err = unix.Read(int(fd), p)
	}
	return n, err
}

func (fd descriptor) Write(p []byte) (n int, err error) { return unix.Write(int(fd), p) }

func (fd descriptor) SetReadDeadline(t time.Time) error  { return fd.setTimeout(unix.SO_RCVTIMEO, t) }
func (fd descriptor) SetWriteDeadline(t time.Time) error { return fd.setTimeout(unix.SO_SNDTIMEO, t) }

// setTimeout sets SO_RCVTIMEO or SO_SNDTIMEO (socket(7)): a call that has received or sent
// nothing for that long fails with EAGAIN.
func (fd descriptor) setTimeout(option int, t time.Time) error {
	tv := unix.NsecToTimeval(max(time.Until(t), time.Millisecond).Nanoseconds()) // 0 would be no limit
	if err := unix.SetsockoptTimeval(int(fd), unix.SOL_SOCKET, option, &tv); err != nil {
		return fmt.Errorf("set the timeout of a socket: %w", err)
	}
	return nil
}

// cause returns what the system has said, without what package net adds.
func cause(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// timedOut reports whether a call has waited until its deadline.
func timedOut(err error) bool {
	return err == unix.EAGAIN || errors.Is(err, os.ErrDeadlineExceeded)
}
