//go:build linux

// Sendfile sends a file in three ways, and counts what each costs.
//
// See sendfile(2), splice(2), tcp(7), TCP_CORK, and Kerrisk, The Linux Programming Interface,
// section 61.4.
package main

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/misc/internal/tcp"
)

const size = 256 << 20

// discard reads from a connection until its end.
func discard(conn int, done chan<- bool) {
	for buf := make([]byte, 1<<20); ; {
		if n, err := unix.Read(conn, buf); n <= 0 && err != unix.EINTR {
			close(done)
			return
		}
	}
}

// measure has a function send the file, and prints what that costs.
func measure(name string, file int, send func(file, conn int) (calls int)) {
	_, err := unix.Seek(file, 0, 0)
	tcp.Must("seek", err)
	client, server := tcp.Pair()
	done := make(chan bool)
	go discard(client, done)
	var before, after unix.Rusage
	begin := time.Now()
	finished := make(chan int)
	go func() { // in a thread of its own, whose CPU time can be told from the client's
		runtime.LockOSThread()
		unix.Getrusage(unix.RUSAGE_THREAD, &before)
		calls := send(file, server)
		unix.Getrusage(unix.RUSAGE_THREAD, &after)
		finished <- calls
	}()
	calls := <-finished
	unix.Close(server)
	<-done
	cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	fmt.Printf("%-14s %6d calls, %4d ms of CPU time, %5.0f MB/s\n", name, calls, cpu.Milliseconds(), size/1e6/time.Since(begin).Seconds())
}

func readWrite(file, conn int) (calls int) {
	for buf := make([]byte, 64<<10); ; calls += 2 {
		n, err := unix.Read(file, buf)
		tcp.Must("read", err)
		if n == 0 {
			return calls + 1
		}
		_, err = unix.Write(conn, buf[:n]) // a blocking write writes all
		tcp.Must("write", err)
	}
}

func sendfile(file, conn int) (calls int) {
	for sent := 0; sent < size; calls++ {
		n, err := unix.Sendfile(conn, file, nil, size-sent)
		tcp.Must("sendfile", err)
		sent += n
	}
	return calls
}

func splice(file, conn int) (calls int) {
	var pipe [2]int
	tcp.Must("pipe", unix.Pipe(pipe[:]))
	for left := size; left > 0; {
		in, err := unix.Splice(file, nil, pipe[1], nil, 64<<10, unix.SPLICE_F_MOVE)
		tcp.Must("splice from the file", err)
		left -= int(in)
		for calls++; in > 0; calls++ {
			out, err := unix.Splice(pipe[0], nil, conn, nil, int(in), unix.SPLICE_F_MOVE|unix.SPLICE_F_MORE)
			tcp.Must("splice to the socket", err)
			in -= out
		}
	}
	return calls
}

// segments sends a header and a small file, and returns how many segments that takes.
func segments(file int, cork bool) uint32 {
	_, server := tcp.Pair()
	tcp.Must("TCP_NODELAY", unix.SetsockoptInt(server, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	sent := func() uint32 {
		info, err := unix.GetsockoptTCPInfo(server, unix.IPPROTO_TCP, unix.TCP_INFO)
		tcp.Must("TCP_INFO", err)
		return info.Data_segs_out
	}
	if cork {
		tcp.Must("TCP_CORK", unix.SetsockoptInt(server, unix.IPPROTO_TCP, unix.TCP_CORK, 1))
	}
	unix.Write(server, make([]byte, 200))
	offset := int64(0)
	_, err := unix.Sendfile(server, file, &offset, 1000)
	tcp.Must("sendfile", err)
	tcp.Must("TCP_CORK", unix.SetsockoptInt(server, unix.IPPROTO_TCP, unix.TCP_CORK, 0))
	return sent()
}

func main() {
	file, err := os.CreateTemp("", "sendfile")
	tcp.Must("file", err)
	defer file.Close()
	tcp.Must("file", os.Remove(file.Name()))
	for range size >> 20 {
		_, err := file.Write(make([]byte, 1<<20))
		tcp.Must("file", err)
	}
	fd := int(file.Fd())
	measure("read and write", fd, readWrite)
	measure("sendfile", fd, sendfile)
	measure("splice", fd, splice)
	fmt.Printf("a header and a small file are %d segments, and with TCP_CORK %d\n", segments(fd, false), segments(fd, true))
}
