package sock

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

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
	return int(fd), Peer(&from), nil
}

// Peer returns the address that accept(2) has stored.
func Peer(sa *unix.RawSockaddrInet6) netip.AddrPort {
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
// the system does not tell. The call never blocks, so the scheduler is not told (RawSyscall).
func Queued(conn int, which uint) int64 {
	var n int32
	unix.RawSyscall(unix.SYS_IOCTL, uintptr(conn), uintptr(which), uintptr(unsafe.Pointer(&n)))
	return int64(n)
}

// hasReceived reports whether the client has sent anything (tcp(7), TCP_INFO).
func hasReceived(conn int) bool {
	info, err := unix.GetsockoptTCPInfo(conn, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && info.Bytes_received > 0
}

// zoneID returns the number of an interface (netdevice(7), SIOCGIFINDEX).
func zoneID(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifreq, err := unix.NewIfreq(zone)
	if err != nil {
		return 0, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifreq); err != nil {
		return 0, err
	}
	return ifreq.Uint32(), nil
}
