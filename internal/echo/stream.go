package echo

import (
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// A stream is what a server sends on a connection: one reply after the other.
type stream struct {
	socket
	fd         int
	start, end int64     // where the last reply starts and ends
	sent       int64     // bytes that were written to the socket
	taken      int64     // bytes that the client's TCP has acknowledged, when last looked at
	queued     int64     // bytes that it had still to acknowledge then
	moved      time.Time // when the client last sent a request, or took something
}

// begin begins a reply.
func (s *stream) begin(count int64) {
	s.start, s.end = s.end, s.end+count
	s.moved = time.Now()
}

// left returns how many bytes are still to be written.
func (s *stream) left() int64 { return s.end - s.sent }

// write writes bytes, or as many of them as the socket takes: none is not an error.
func (s *stream) write(p []byte) error {
	return s.wrote(s.Write(p))
}

func (s *stream) wrote(n int, err error) error {
	s.sent += int64(max(n, 0))
	if err == nil || timedOut(err) || err == unix.EINTR {
		return nil
	}
	return fmt.Errorf("send reply: %d of %d bytes sent: %w", s.sent-s.start, s.end-s.start, cause(err))
}

// look notes what the client has taken.
func (s *stream) look() {
	if s.taken == s.end {
		return
	}
	queued := sock.Queued(s.fd, sock.Unacknowledged)
	// While the kernel writes, sent is not known, but what is queued changes.
	if taken := s.sent - queued; taken > s.taken || queued != s.queued {
		s.taken, s.queued, s.moved = max(taken, s.taken), queued, time.Now()
	}
}

// stalled returns an error if the client has taken nothing for as long as timeout.
func (s *stream) stalled(timeout time.Duration) error {
	s.look()
	if time.Since(s.moved) < timeout {
		return nil
	}
	return s.broken(fmt.Errorf("none for %v", timeout))
}

func (s *stream) broken(err error) error {
	return fmt.Errorf("send reply: %d of %d bytes taken: %w", max(0, s.taken-s.start), s.end-s.start, cause(err))
}

// finish reports whether the socket can be closed at once. close(2) resets the connection if
// there is something that was not read, and so does the kernel later if something comes in.
// Then the client loses what was not sent yet. If that can happen, finish shuts down the
// server's side, and the server has to drain the connection (lingering close).
func (s *stream) finish() bool {
	return sock.Queued(s.fd, sock.Unread) == 0 && sock.Queued(s.fd, sock.Unsent) == 0 ||
		unix.Shutdown(s.fd, unix.SHUT_WR) != nil // the client has gone
}

// drain reads what the client still sends, and throws it away. It reports whether the socket
// can be closed.
func (s *stream) drain(buf []byte, timeout time.Duration) (over bool, err error) {
	n, err := s.Read(buf)
	return s.drained(n, err, timeout)
}

func (s *stream) drained(n int, err error, timeout time.Duration) (over bool, _ error) {
	s.look()
	switch {
	case n == 0 && (err == nil || err == io.EOF):
		return true, nil
	case err != nil && !timedOut(err) && s.taken < s.end:
		return true, s.broken(err)
	case err != nil && !timedOut(err):
		return true, nil
	}
	return s.lingered(timeout)
}

// lingered reports whether the client has had its reply for a second, or takes nothing for as
// long as timeout.
func (s *stream) lingered(timeout time.Duration) (over bool, err error) {
	s.look()
	if s.taken == s.end {
		return time.Since(s.moved) >= time.Second, nil
	}
	err = s.stalled(timeout)
	return err != nil, err
}

// tick is how often to look whether a client takes something.
func tick(timeout time.Duration) time.Duration {
	return min(time.Second, max(timeout/4, 10*time.Millisecond))
}
