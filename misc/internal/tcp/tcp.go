//go:build linux

// Package tcp has what the programs of misc do in the same way. An error ends the program.
package tcp

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Must ends the program if there is an error.
func Must(what string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
		os.Exit(1)
	}
}

// Setting returns a setting of the kernel (sysctl(8)), or 0 if this kernel does not have it.
func Setting(name string) string {
	text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
	if os.IsNotExist(err) {
		return "0"
	}
	Must(name, err)
	return strings.TrimSpace(string(text))
}

// Listen returns a listener with this backlog on a loopback port that the kernel chooses, and
// its address. It has SO_REUSEADDR, as every server should.
func Listen(backlog int) (listener int, addr *unix.SockaddrInet4) {
	listener = Socket()
	Must("SO_REUSEADDR", unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	Must("bind", unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	Must("listen", unix.Listen(listener, backlog))
	return listener, Addr(listener)
}

// Socket returns a TCP socket.
func Socket() int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	Must("socket", err)
	return fd
}

// Addr returns the local address of a socket.
func Addr(fd int) *unix.SockaddrInet4 {
	addr, err := unix.Getsockname(fd)
	Must("getsockname", err)
	return addr.(*unix.SockaddrInet4)
}

// Connect returns a socket that is connected to a listener.
func Connect(to unix.Sockaddr) int {
	fd := Socket()
	Must("connect", unix.Connect(fd, to))
	return fd
}

// Accept returns the next connection.
func Accept(listener int) int {
	conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	Must("accept", err)
	return conn
}

// Pair returns both ends of a connection.
func Pair() (client, server int) {
	listener, addr := Listen(1)
	defer unix.Close(listener)
	client = Connect(addr)
	return client, Accept(listener)
}

var states = []string{"", "ESTABLISHED", "SYN-SENT", "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2", "TIME-WAIT", "CLOSE", "CLOSE-WAIT", "LAST-ACK", "LISTEN", "CLOSING"}

// State returns the state of a connection, as ss(8) names it.
func State(fd int) string {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	Must("getsockopt TCP_INFO", err)
	return states[info.State]
}
