//go:build linux

// Timewait shows which side of a connection keeps its port, and what SO_REUSEADDR does about it.
//
// See tcp(7), ip(7), and Stevens, UNIX Network Programming, sections 2.7 and 7.5.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/misc/internal/tcp"
)

// inTimeWait reports whether the end of a connection with this local port is in TIME_WAIT
// (proc_net(5), tcp).
func inTimeWait(local, remote int) bool {
	text, err := os.ReadFile("/proc/net/tcp")
	tcp.Must("/proc/net/tcp", err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", local)) && strings.HasSuffix(f[2], fmt.Sprintf(":%04X", remote)) && f[3] == "06" {
			return true
		}
	}
	return false
}

// closeBoth closes one side of a connection, then the other one, and says which port waits.
func closeBoth(what string, first, second, client, server int) {
	clientPort, serverPort := tcp.Addr(client).Port, tcp.Addr(server).Port
	unix.Close(first)
	unix.Read(second, make([]byte, 1)) // the end
	unix.Close(second)
	for !inTimeWait(clientPort, serverPort) && !inTimeWait(serverPort, clientPort) {
		time.Sleep(time.Millisecond)
	}
	fmt.Printf("%s closes first: TIME_WAIT at the client %v, at the server %v\n", what,
		inTimeWait(clientPort, serverPort), inTimeWait(serverPort, clientPort))
	addr := &unix.SockaddrInet4{Port: serverPort, Addr: [4]byte{127, 0, 0, 1}}
	fd := tcp.Socket()
	fmt.Println("  bind to the server's port:  ", unix.Bind(fd, addr))
	unix.Close(fd)
	fd = tcp.Socket()
	tcp.Must("SO_REUSEADDR", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	fmt.Println("  the same with SO_REUSEADDR: ", unix.Bind(fd, addr))
	unix.Close(fd)
}

func main() {
	client, server := tcp.Pair()
	closeBoth("the client", client, server, client, server)
	client, server = tcp.Pair()
	closeBoth("the server", server, client, client, server)

	var first, last int
	fmt.Sscan(tcp.Setting("net.ipv4.ip_local_port_range"), &first, &last)
	fmt.Printf("clients have %d ports, and each waits for 60 s: %d connections per second to one address\n", last-first+1, (last-first+1)/60)
	fmt.Println("net.ipv4.tcp_tw_reuse is", tcp.Setting("net.ipv4.tcp_tw_reuse"))
}
