//go:build linux

// Nagle sends a request in two small writes, and waits for the reply, with and without
// TCP_NODELAY.
//
// See tcp(7), and Stevens, UNIX Network Programming, section 7.9.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/misc/internal/tcp"
)

// serve answers each eight bytes with eight bytes.
func serve(server int) {
	conn, err := net.FileConn(os.NewFile(uintptr(server), "server"))
	tcp.Must("server", err)
	for buf := make([]byte, 8); err == nil; {
		if _, err = io.ReadFull(conn, buf); err == nil {
			_, err = conn.Write(buf)
		}
	}
}

// median returns the time of a request, the median of twenty.
func median(writes ...string) time.Duration {
	client, server := tcp.Pair()
	defer unix.Close(client)
	go serve(server)
	var times []time.Duration
	for range 20 {
		begin := time.Now()
		for _, text := range writes {
			if text == "" {
				tcp.Must("TCP_NODELAY", unix.SetsockoptInt(client, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
				continue
			}
			unix.Write(client, []byte(text))
		}
		for got, buf := 0, make([]byte, 8); got < 8; {
			n, err := unix.Read(client, buf)
			tcp.Must("read", err)
			got += n
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return times[10]
}

func main() {
	fmt.Printf("two writes:                   %5.1f ms\n", median("head", "body").Seconds()*1000)
	fmt.Printf("two writes, with TCP_NODELAY: %5.1f ms\n", median("", "head", "body").Seconds()*1000)
	fmt.Printf("one write:                    %5.1f ms\n", median("headbody").Seconds()*1000)
}
