package echo

import (
	"io"
	"os"
	"sync"
	"time"

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
	return readRequest(descriptor(conn), timeout)
}

// ReadRequestFrom is [ReadRequest] for a connection of package net.
func ReadRequestFrom(conn NetConn, timeout time.Duration) (count int64, err error) {
	return readRequest(conn, timeout)
}

func readRequest(conn socket, timeout time.Duration) (count int64, err error) {
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	g := generators.Get().(*generator)
	defer generators.Put(g)
	data := g.buf[:MaxRequest+1] // one more, to see that a request is too long
	n, err := conn.Read(data)
	switch {
	case timedOut(err):
		return 0, silent(timeout)
	case n == 0 && (err == nil || err == io.EOF):
		return 0, errNoRequest
	case err != nil:
		return 0, unread(err)
	}
	return ParseRequest(data[:n])
}

// SendReply sends count random bytes on a blocking socket. It gives up when the client takes
// nothing for as long as timeout. After SendReply the socket can be closed: the client does
// not lose the end of its reply.
func SendReply(conn int, count int64, timeout time.Duration) error {
	return sendReply(stream{fd: conn, socket: descriptor(conn)}, count, timeout)
}

// SendReplyTo is [SendReply] for a connection of package net.
func SendReplyTo(conn NetConn, count int64, timeout time.Duration) error {
	s := stream{socket: conn}
	raw, err := conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { s.fd = int(fd) })
	}
	if err != nil {
		return err
	}
	return sendReply(s, count, timeout)
}

func sendReply(s stream, count int64, timeout time.Duration) error {
	sending.RLock()
	defer sending.RUnlock()
	announce(count)
	g := generators.Get().(*generator)
	defer generators.Put(g)
	s.begin(count)
	for s.left() > 0 {
		// A write can wait for long while the client takes a little now and then, because the
		// kernel lets it go on when a third of the buffer is free. So it waits for a tick.
		err := s.SetWriteDeadline(time.Now().Add(tick(timeout)))
		left := s.left()
		if err == nil {
			err = s.write(g.chunk(left))
		}
		if err == nil && s.left() == left {
			err = s.stalled(timeout)
		}
		if err != nil {
			return err
		}
	}
	for over := s.finish(); !over; {
		err := s.SetReadDeadline(time.Now().Add(tick(timeout)))
		if err == nil {
			over, err = s.drain(g.buf[:], timeout)
		}
		if err != nil {
			return err
		}
	}
	return nil
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

// ExitOn waits for a signal and, as [Finish] does, for the replies under way. Then it ends the
// process.
func ExitOn(terminate <-chan os.Signal, timeout time.Duration) {
	<-terminate
	Finish(timeout)
	os.Exit(0)
}
