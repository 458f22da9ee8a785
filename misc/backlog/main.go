//go:build linux

// Backlog fills the queue of a listener, and shows what happens to the next client.
//
// See listen(2), and Stevens, UNIX Network Programming, section 4.5.
package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/misc/internal/tcp"
)

// dropped returns how many SYNs were dropped because a queue was full (proc_net(5), netstat).
func dropped() int {
	text, err := os.ReadFile("/proc/net/netstat")
	tcp.Must("netstat", err)
	lines := strings.Split(string(text), "\n")
	names, values := strings.Fields(lines[0]), strings.Fields(lines[1])
	for i, name := range names {
		if name == "ListenOverflows" {
			n, _ := strconv.Atoi(values[i])
			return n
		}
	}
	return 0
}

func main() {
	listener, addr := tcp.Listen(2)
	before := dropped()
	var clients []unix.PollFd
	for range 5 {
		fd := tcp.Socket()
		tcp.Must("nonblock", unix.SetNonblock(fd, true))
		unix.Connect(fd, addr) // EINPROGRESS: it does not wait
		clients = append(clients, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
	}
	for i := range clients { // a socket that is connected is writable
		n, err := unix.Poll(clients[i:i+1], 100)
		tcp.Must("poll", err)
		fmt.Printf("client %d: %s, %s\n", i+1, map[int]string{0: "waits", 1: "is connected"}[n], tcp.State(int(clients[i].Fd)))
	}
	// Of a listener, these fields have another meaning: the length of its queue, and the most.
	info, err := unix.GetsockoptTCPInfo(listener, unix.IPPROTO_TCP, unix.TCP_INFO)
	tcp.Must("getsockopt", err)
	fmt.Printf("the queue has %d connections, with a backlog of %d; dropped: %v\n", info.Unacked, info.Sacked, dropped() > before)

	begin := time.Now()
	for range 3 {
		tcp.Accept(listener)
	}
	_, err = unix.Poll(clients[4:5], 5000)
	tcp.Must("poll", err)
	fmt.Printf("after three accepts client 5 is connected: %v; it had to wait for longer than 0.3 s: %v\n",
		tcp.State(int(clients[4].Fd)) == "ESTABLISHED", time.Since(begin) > 300*time.Millisecond)
	fmt.Println("net.ipv4.tcp_syn_linear_timeouts is", tcp.Setting("net.ipv4.tcp_syn_linear_timeouts"))
}
