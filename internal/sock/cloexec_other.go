//go:build !linux && !freebsd

package sock

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Where a descriptor cannot be made close-on-exec in the same call, a fork that
// falls between the two must be kept out. accept(2) is the exception: it may
// wait for hours, and so cannot hold the lock.

func socket(family int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	return fd, err
}

func socketpair() ([2]int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(pair[0])
		unix.CloseOnExec(pair[1])
	}
	return pair, err
}

func accept(listener int, nonblocking bool) (int, unix.Sockaddr, error) {
	fd, from, err := unix.Accept(listener)
	if err != nil {
		return -1, nil, err
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, nonblocking); err != nil {
		unix.Close(fd)
		return -1, nil, err
	}
	return fd, from, nil
}

// CmsgCloexec is MSG_CMSG_CLOEXEC: recvmsg(2) makes the descriptors that it receives
// close-on-exec. It is 0 where the system does not know it.
const CmsgCloexec = 0
