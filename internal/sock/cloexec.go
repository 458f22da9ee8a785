//go:build linux || freebsd

package sock

import "golang.org/x/sys/unix"

// A descriptor that is close-on-exec from its first moment cannot leak into a
// child that another thread is just starting.

func socket(family int) (int, error) {
	return unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

func socketpair() ([2]int, error) {
	return unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
}

func accept(listener int, nonblocking bool) (int, unix.Sockaddr, error) {
	flags := unix.SOCK_CLOEXEC
	if nonblocking {
		flags |= unix.SOCK_NONBLOCK
	}
	return unix.Accept4(listener, flags)
}

// CmsgCloexec is MSG_CMSG_CLOEXEC: recvmsg(2) makes the descriptors that it receives
// close-on-exec. It is 0 where the system does not know it.
const CmsgCloexec = unix.MSG_CMSG_CLOEXEC
