package echo

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/reexec"
)

// ReadRequest waits on a blocking socket for a request, but not longer than timeout, and
// returns the number of bytes that it asks for.
//
// A request is the first line of what one recv(2) returns. ReadRequest cannot wait for the
// newline, because the original's client does not send one.
func ReadRequest(conn int, timeout time.Duration) (count int64, err error) {
	if reexec.InChild() {
		reexec.Yield()
	}
	if err := setTimeout(conn, unix.SO_RCVTIMEO, timeout); err != nil {
		return 0, err
	}
	var data [MaxRequest + 1]byte // one more, to see that a request is too long
	n, err := read(conn, data[:])
	switch {
	case err == unix.EAGAIN:
		return 0, silent(timeout)
	case err != nil:
		return 0, unread(err)
	case n == 0:
		return 0, errNoRequest
	}
	request, _, _ := cut(data[:n])
	return ParseRequest(request)
}

// SendReply sends count random bytes on a blocking socket. It gives up when the client takes
// nothing for as long as timeout. After SendReply the socket can be closed: the client does
// not lose the end of its reply.
func SendReply(conn int, count int64, timeout time.Duration) error {
	sending.RLock()
	defer sending.RUnlock()
	announce(count)
	// A write can wait for long while the client takes a little now and then, because the
	// kernel lets it go on when a third of the buffer is free.
	if err := setTimeout(conn, unix.SO_SNDTIMEO, tick(timeout)); err != nil {
		return err
	}
	g := generators.Get().(*generator)
	defer generators.Put(g)
	s := stream{fd: conn}
	s.begin(count)
	for s.left() > 0 {
		left := s.left()
		err := s.write(g.chunk(left))
		if err == nil && s.left() == left {
			err = s.stalled(timeout)
		}
		if err != nil {
			return err
		}
	}
	if s.finish() {
		return nil
	}
	err := setTimeout(conn, unix.SO_RCVTIMEO, tick(timeout))
	for over := false; !over && err == nil; {
		over, err = s.drain(g.buf[:], timeout)
	}
	return err
}

// sending is locked for reading by each SendReply that runs.
var sending sync.RWMutex

// Finish waits until all replies under way are sent, but not longer than timeout. No other
// reply begins after that.
func Finish(timeout time.Duration) {
	finished := make(chan bool)
	go func() {
		sending.Lock()
		close(finished)
	}()
	select {
	case <-finished:
	case <-time.After(timeout):
	}
}

// setTimeout sets SO_RCVTIMEO or SO_SNDTIMEO (socket(7)): a call that has received or sent
// nothing for as long as timeout fails with EAGAIN.
func setTimeout(conn, option int, timeout time.Duration) error {
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(conn, unix.SOL_SOCKET, option, &tv); err != nil {
		return fmt.Errorf("set the timeout of a socket: %w", err)
	}
	return nil
}

// read is read(2), repeated if a signal interrupts it. The kernel does not repeat it on a
// socket that has a timeout (signal(7), SA_RESTART).
func read(fd int, p []byte) (n int, err error) {
	for n, err = unix.Read(fd, p); err == unix.EINTR; {
		n, err = unix.Read(fd, p)
	}
	return n, err
}
