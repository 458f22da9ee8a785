package echo

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Forked is a connection of a forked child, which must stay away from the Go runtime: it must
// not allocate, lock, log or start a goroutine, and its stack must not grow. So the methods
// that it calls are
//
//   - nosplit: they do not look whether the stack has to grow, which is also where a goroutine
//     looks whether it has to make room for another one. The linker proves that the stack is
//     large enough.
//   - norace: they do not tell the race detector what they do.
//
// A function that is not nosplit must not be called either; a test looks for such calls. They
// use raw system calls, of which the scheduler is not told. What the child has to say
// stays in the Forked, in memory that it shares with its parent (mmap(2), MAP_SHARED).
type Forked struct {
	conn     uintptr
	timeout  int64 // in ns
	readable unix.PollFd
	limit    unix.Timespec        // timeout, for ppoll
	request  [MaxRequest + 1]byte // one more, to see that it is too long
	size     int64                // of the request, -1 if it was not received
	count    int64                // of the reply, -1 for a bad request
	sent     int64
	taken    int64 // what the client's TCP has acknowledged
	moved    int64 // the time in ns when it last did
	errno    unix.Errno
}

// Begin is for the parent, before it forks.
func (f *Forked) Begin(conn int, timeout time.Duration) error {
	*f = Forked{conn: uintptr(conn), timeout: timeout.Nanoseconds(), size: -1, count: -1}
	f.readable = unix.PollFd{Fd: int32(conn), Events: unix.POLLIN}
	f.limit = unix.NsecToTimespec(f.timeout)
	t := time.Now().Add(tick(timeout))
	if err := descriptor(conn).SetReadDeadline(t); err != nil {
		return err
	}
	return descriptor(conn).SetWriteDeadline(t)
}

// Err is for the parent, when the child has ended: it returns why the child has failed.
func (f *Forked) Err() error {
	timeout := time.Duration(f.timeout)
	switch {
	case f.size < 0 && f.errno == unix.EAGAIN:
		return silent(timeout)
	case f.size < 0:
		return unread(f.errno)
	case f.size == 0:
		return errNoRequest
	case f.count < 0:
		_, err := ParseRequest(f.request[:f.size])
		return err
	}
	s := stream{end: f.count, taken: f.taken}
	if f.errno == 0 {
		return s.broken(fmt.Errorf("none for %v", timeout))
	}
	return s.broken(f.errno)
}

// Only one child uses its copy of these.
var (
	butSIGTERM = ^uint64(1 << (unix.SIGTERM - 1))
	random     [ChunkSize]byte
	line       [80]byte
	queued     int32
	now        unix.Timespec
)

//go:nosplit
//go:norace
func call(number, a, b, c, d, e uintptr) (int64, unix.Errno) {
	r, _, errno := unix.RawSyscall6(number, a, b, c, d, e, 0)
	return int64(r), errno
}

// Receive waits for a request, and reports whether it is a good one. In a process that blocks
// SIGTERM, it is only here that SIGTERM can end the process.
//
//go:nosplit
//go:norace
func (f *Forked) Receive() (ok bool) {
	call(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&f.readable)), 1, uintptr(unsafe.Pointer(&f.limit)), uintptr(unsafe.Pointer(&butSIGTERM)), 8)
	f.size, f.errno = call(unix.SYS_RECVFROM, f.conn, uintptr(unsafe.Pointer(&f.request)), MaxRequest+1, unix.MSG_DONTWAIT, 0)
	if f.errno == 0 {
		_, f.count, _ = parse(f.request[:f.size])
	}
	return f.count >= 0
}

// Reply sends the reply, and reports whether the client has taken it, or will. Then the
// connection can be closed.
//
//go:nosplit
//go:norace
func (f *Forked) Reply() (ok bool) {
	text := announcement(&line, f.count)
	call(unix.SYS_WRITE, 1, uintptr(unsafe.Pointer(&text[0])), uintptr(len(text)), 0, 0)
	f.progress()
	for f.sent < f.count {
		size := min(f.count-f.sent, ChunkSize)
		call(unix.SYS_GETRANDOM, uintptr(unsafe.Pointer(&random)), uintptr(size), 0, 0, 0)
		n, errno := call(unix.SYS_WRITE, f.conn, uintptr(unsafe.Pointer(&random)), uintptr(size), 0, 0)
		f.sent += max(n, 0)
		if errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR { // EINTR: after SIGCONT
			f.errno = errno
			return false
		}
		if n < size && f.progress() >= f.timeout {
			return false
		}
	}
	if f.waiting(unix.SIOCINQ) == 0 && f.waiting(unix.SIOCOUTQNSD) == 0 {
		return true
	}
	if _, errno := call(unix.SYS_SHUTDOWN, f.conn, unix.SHUT_WR, 0, 0, 0); errno != 0 {
		return true // the client has gone
	}
	for { // as stream.drain does
		n, errno := call(unix.SYS_READ, f.conn, uintptr(unsafe.Pointer(&random)), ChunkSize, 0, 0)
		idle := f.progress()
		switch {
		case n == 0 && errno == 0:
			return true
		case errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR:
			f.errno = errno
			return f.taken == f.count
		case f.taken == f.count && idle >= 1e9:
			return true
		case f.taken < f.count && idle >= f.timeout:
			return false
		}
	}
}

// progress notes what the client has taken, and returns for how many ns it has taken nothing.
//
//go:nosplit
//go:norace
func (f *Forked) progress() (idle int64) {
	call(unix.SYS_CLOCK_GETTIME, unix.CLOCK_MONOTONIC, uintptr(unsafe.Pointer(&now)), 0, 0, 0)
	t := int64(now.Sec)*1e9 + int64(now.Nsec)
	if taken := f.sent - f.waiting(unix.SIOCOUTQ); taken > f.taken || f.moved == 0 {
		f.taken, f.moved = taken, t
	}
	return t - f.moved
}

//go:nosplit
//go:norace
func (f *Forked) waiting(which uintptr) int64 {
	call(unix.SYS_IOCTL, f.conn, which, uintptr(unsafe.Pointer(&queued)), 0, 0)
	return int64(queued)
}
