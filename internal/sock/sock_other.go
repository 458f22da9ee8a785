//go:build !linux

package sock

import (
	"errors"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"
)

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

const (
	Unread = iota
	Unsent
	Unacknowledged
)

func Queued(conn int, which uint) int64 { return 0 }

func hasReceived(conn int) bool { return false }

func zoneID(zone string) (uint32, error) {
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), nil
	}
	return 0, errors.New("want its number as the zone")
}
