//go:build linux

package main

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/sock"
)

// A client is the protocol on a connection, for a forked child. The child must not allocate,
// lock, log or start a goroutine, and its stack must not grow. So the functions that it calls
// are
//
//   - nosplit: there is no check whether the stack has to grow, which is also where the Go
//     scheduler would preempt the goroutine. The linker proves that the stack is large enough.
//   - norace: they do not report to the race detector.
//
// A function that is not nosplit must not be called either; a test looks for such calls. They
// use raw system calls, of which the scheduler is not told, and those of package syscall: the
// ones of unix report to the race detector. What the child has to say stays in the client, in
// memory that it shares with its parent (mmap(2), MAP_SHARED).
type client struct {
	conn    uintptr
	request [echo.MaxRequest + 1]byte
	size    int64 // of the request, -1 if it was not received
	count   int64 // of the reply, -1 for a bad request
	sent    int64
	unacked int64 // bytes that the client had not acknowledged, at the last look
	active  int64 // the time in ns when it last made progress
	errno   unix.Errno
	logErr  unix.Errno // why the request could not be logged
	random  [4]uint64  // the state of xoshiro256++
}

// start is for the parent, before it forks.
func (c *client) start(conn int) {
	*c = client{conn: uintptr(conn), size: -1, count: -1}
	c.random = [4]uint64{rand.Uint64(), rand.Uint64(), rand.Uint64(), rand.Uint64()}
}

// err is for the parent, when the child has failed: it returns why.
func (c *client) err() error {
	switch {
	case c.size < 0:
		return echo.ReadError(c.errno)
	case c.size == 0 || c.count < 0:
		_, err := echo.ParseRequest(c.request[:c.size])
		return err
	case c.errno != 0:
		return fmt.Errorf("send reply: %d of %d bytes sent: %w", c.sent, c.count, c.errno)
	}
	return fmt.Errorf("send reply: %d of %d bytes taken: none for %v", max(0, c.sent-c.unacked), c.count, sock.Timeout)
}

// Each child has its own copy of these.
var (
	tick       int64 // in ns, see sock.Tick
	butSIGTERM = ^uint64(1 << (unix.SIGTERM - 1))
	readable   unix.PollFd
	limit      unix.Timespec
	chunk      [echo.ChunkSize]byte
	line       [80]byte
	inQueue    int32
	now        unix.Timespec
)

//go:nosplit
//go:norace
func call(number, a, b, c, d, e uintptr) (int64, unix.Errno) {
	r, _, errno := syscall.RawSyscall6(number, a, b, c, d, e, 0)
	return int64(r), errno
}

// wait waits until there is something to read, but not longer than ns. The signals of the mask
// are blocked meanwhile.
//
//go:nosplit
//go:norace
func (c *client) wait(ns int64, mask *uint64) (errno unix.Errno) {
	readable = unix.PollFd{Fd: int32(c.conn), Events: unix.POLLIN}
	limit = unix.Timespec{Sec: ns / 1e9, Nsec: ns % 1e9}
	for errno = unix.EINTR; errno == unix.EINTR; {
		_, errno = call(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&readable)), 1, uintptr(unsafe.Pointer(&limit)), uintptr(unsafe.Pointer(mask)), 8)
	}
	return errno
}

// receive waits for a request, and reports whether it is a good one. SIGTERM, which is blocked
// at all other times, can end the process here.
//
//go:nosplit
//go:norace
func (c *client) receive() (ok bool) {
	if c.errno = c.wait(int64(sock.Timeout), &butSIGTERM); c.errno != 0 {
		return false
	}
	size, errno := call(unix.SYS_RECVFROM, c.conn, uintptr(unsafe.Pointer(&c.request)), uintptr(len(c.request)), unix.MSG_DONTWAIT, 0)
	if c.errno = errno; errno != 0 { // EAGAIN: the client was silent
		return false
	}
	c.size = size
	_, c.count, _ = echo.Parse(c.request[:size])
	return c.count >= 0
}

// reply sends the reply, and reports whether it is in the socket.
//
//go:nosplit
//go:norace
func (c *client) reply() (ok bool) {
	if !echo.Quiet {
		c.logErr = logRequest(c.count)
	}
	for c.sent < c.count {
		size := min(c.count-c.sent, echo.ChunkSize)
		c.fill(size)
		n, errno := call(unix.SYS_WRITE, c.conn, uintptr(unsafe.Pointer(&chunk)), uintptr(size), 0, 0)
		switch {
		case n > 0:
			c.sent += n
			c.active = 0
		case errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR: // EINTR: after SIGCONT
			c.errno = errno
			return false
		case c.idle() >= int64(sock.Timeout):
			return false
		}
	}
	return true
}

// linger is [sock.Linger]. It reports whether the client has the reply, or will.
//
//go:nosplit
//go:norace
func (c *client) linger() (ok bool) {
	if c.queued(unix.SIOCINQ) == 0 && (c.count <= sock.FirstWindow || c.queued(unix.SIOCOUTQNSD) == 0) {
		return true
	}
	if _, errno := call(unix.SYS_SHUTDOWN, c.conn, unix.SHUT_WR, 0, 0, 0); errno != 0 {
		return true // the client has gone
	}
	c.active = 0
	for {
		c.wait(tick, &allSignals)
		n, errno := call(unix.SYS_RECVFROM, c.conn, uintptr(unsafe.Pointer(&chunk)), echo.ChunkSize, unix.MSG_DONTWAIT, 0)
		idle := c.idle()
		switch {
		case n == 0 && errno == 0:
			return true
		case errno != 0 && errno != unix.EAGAIN:
			c.errno = errno
			return false
		case c.unacked == 0 && idle >= min(1e9, int64(sock.Timeout)):
			return true
		case idle >= int64(sock.Timeout):
			return false
		}
	}
}

// idle returns for how many ns the client has made no progress.
//
//go:nosplit
//go:norace
func (c *client) idle() int64 {
	call(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&now)), 0, 0, 0) // it cannot fail
	t := int64(now.Sec)*1e9 + int64(now.Nsec)
	if unacked := c.queued(unix.SIOCOUTQ); c.active == 0 || unacked != c.unacked {
		c.active, c.unacked = t, unacked
	}
	return t - c.active
}

// queued is [sock.Queued].
//
//go:nosplit
//go:norace
func (c *client) queued(which uintptr) int64 {
	inQueue = 0
	call(unix.SYS_IOCTL, c.conn, which, uintptr(unsafe.Pointer(&inQueue)), 0, 0)
	return int64(inQueue)
}

// fill makes the next random bytes. The generator is xoshiro256++ (Blackman and Vigna), because
// getrandom(2) is slower, and may return less than was asked for.
//
//go:nosplit
//go:norace
func (c *client) fill(size int64) {
	s0, s1, s2, s3 := c.random[0], c.random[1], c.random[2], c.random[3]
	for i := int64(0); i < size; i += 8 {
		sum := s0 + s3
		*(*uint64)(unsafe.Pointer(&chunk[i])) = (sum<<23 | sum>>41) + s0
		t := s1 << 17
		s2 ^= s0
		s3 ^= s1
		s1 ^= s2
		s0 ^= s3
		s2 ^= t
		s3 = s3<<45 | s3>>19
	}
	c.random = [4]uint64{s0, s1, s2, s3}
}

const before, after = "Got request to send ", " bytes. Sending them all...\n"

// logRequest logs a request on standard output. It fills the line from its end.
//
//go:nosplit
//go:norace
func logRequest(count int64) (errno unix.Errno) {
	start := len(line) - len(after)
	for i := range len(after) { // with the race detector, copy is a function that is not nosplit
		line[start+i] = after[i]
	}
	for digit := true; digit; digit = count > 0 {
		start--
		line[start] = byte('0' + count%10)
		count /= 10
	}
	start -= len(before)
	for i := range len(before) {
		line[start+i] = before[i]
	}
	_, errno = call(unix.SYS_WRITE, 1, uintptr(unsafe.Pointer(&line[start])), uintptr(len(line)-start), 0, 0)
	return errno
}
