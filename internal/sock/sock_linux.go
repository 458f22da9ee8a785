package sock

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const enonet = unix.ENONET

// accept is accept4(2). The connection is close-on-exec from the start. [unix.Accept4]
// would leave garbage, 165 bytes a connection, and make the heap of each child grow.
func accept(listener int, nonblocking bool) (conn int, peer netip.AddrPort, err error) {
	flags := uintptr(unix.SOCK_CLOEXEC)
	if nonblocking {
		flags |= unix.SOCK_NONBLOCK
	}
	var from unix.RawSockaddrInet6 // an IPv4 address fits in, too
	size := uint32(unix.SizeofSockaddrInet6)
	fd, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(listener), uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)), flags, 0, 0)
	if errno != 0 {
		return -1, peer, errno
	}
	return int(fd), rawAddrPort(&from), nil
}

// getpeername is getpeername(2). [unix.Getpeername] makes a second system call, and garbage.
func getpeername(conn int) (peer netip.AddrPort, err error) {
	var from unix.RawSockaddrInet6
	size := uint32(unix.SizeofSockaddrInet6)
	_, _, errno := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(conn), uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return peer, errno
	}
	return rawAddrPort(&from), nil
}

func rawAddrPort(sa *unix.RawSockaddrInet6) netip.AddrPort {
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	if sa.Family == unix.AF_INET {
		return netip.AddrPortFrom(netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(sa)).Addr), port)
	}
	return ipv6(sa.Addr, port)
}

// What [Queued] counts.
const (
	Unread         = unix.SIOCINQ     // received, and not read
	Unsent         = unix.SIOCOUTQNSD // written, and not sent
	Unacknowledged = unix.SIOCOUTQ    // written, and not acknowledged
)

// Queued returns the number of bytes that wait in a TCP connection (tcp(7)). It is 0 where
// the system does not tell.
func Queued(conn int, which uint) int64 {
	n, err := unix.IoctlGetInt(conn, which)
	if err != nil {
		return 0
	}
	return int64(n)
}
