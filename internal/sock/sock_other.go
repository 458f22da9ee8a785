//go:build !linux

package sock

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

const enonet = unix.ENETDOWN // there is no ENONET

func accept(listener int, nonblocking bool) (conn int, peer netip.AddrPort, err error) {
	conn, from, err := unix.Accept(listener)
	if err != nil {
		return -1, peer, err
	}
	unix.CloseOnExec(conn)
	if err := unix.SetNonblock(conn, nonblocking); err != nil {
		unix.Close(conn)
		return -1, peer, err
	}
	return conn, addrPort(from), nil
}

func getpeername(conn int) (peer netip.AddrPort, err error) {
	from, err := unix.Getpeername(conn)
	if err != nil {
		return peer, err
	}
	return addrPort(from), nil
}

const (
	Unread = iota
	Unsent
	Unacknowledged
)

func Queued(conn int, which uint) int64 { return 0 }
