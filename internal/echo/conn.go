package echo

import (
	"bytes"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Want is what a connection has to wait for before its next step.
type Want int

const (
	Done  Want = iota // nothing: the client has gone, or has to go
	Read              // the socket is readable
	Write             // the socket is writable
)

// A Conn is one connection of a server that waits for many at once. It answers
// requests until the client closes.
type Conn struct {
	fd       int
	peer     fmt.Stringer
	left     int64     // bytes of the reply that are still to be sent
	total    int64     // bytes of the whole reply
	pending  []byte    // requests that came together with the one under way
	head     []byte    // start of a request whose end the last recv had no room for
	answered bool      // has sent a request that was none of the bad
	moved    time.Time // when bytes last went either way
}

// NewConn makes of a non-blocking socket a connection that waits for its first
// request. Errors name the peer. The socket remains the caller's to close.
func NewConn(fd int, peer fmt.Stringer) *Conn {
	return &Conn{fd: fd, peer: peer, moved: time.Now()}
}

// Busy reports whether a reply is under way.
func (c *Conn) Busy() bool { return c.left > 0 || len(c.pending) > 0 }

// Step does what can be done without waiting, and says what to wait for before
// the next. It receives at most once and sends at most [ChunkSize] bytes, so that
// no client keeps the others waiting. An error says why the connection is [Done];
// a client that was answered and has closed is none.
func (c *Conn) Step() (Want, error) {
	want, err := c.step()
	if err != nil {
		err = fmt.Errorf("%v: %w", c.peer, err)
	}
	return want, err
}

func (c *Conn) step() (Want, error) {
	if !c.Busy() {
		if want, err := c.receive(); want != Write {
			return want, err
		}
	}
	for c.left == 0 && len(c.pending) > 0 {
		if err := c.next(c.pending); err != nil {
			return Done, err
		}
	}
	if c.left > 0 {
		if err := c.send(); err != nil {
			return Done, err
		}
	}
	if c.Busy() {
		return Write, nil
	}
	return Read, nil
}

// receive takes what the client has sent, and begins to answer it.
func (c *Conn) receive() (Want, error) {
	var buf [MaxRequest + 1]byte // the one shows that there were too many
	had := copy(buf[:], c.head)
	n, err := retry(func() (int, error) { return unix.Read(c.fd, buf[had:]) })
	received := buf[:had+max(n, 0)]
	c.head = nil
	switch {
	case err == unix.EAGAIN:
		c.head = bytes.Clone(received)
		return Read, nil
	case err != nil:
		return Done, unread(err)
	case len(received) == 0 && c.answered:
		return Done, nil
	}
	c.moved = time.Now()
	// What one recv returns is a request, or several, each but the last with
	// its newline. Only where the buffer ends before the data does, the last
	// may be a part.
	if end := bytes.LastIndexByte(received, '\n') + 1; end > 0 && len(received) == len(buf) {
		c.head = bytes.Clone(received[end:])
		received = received[:end]
	}
	if err := c.next(received); err != nil {
		return Done, err
	}
	return Write, nil
}

// next begins the reply to the first of the requests, and keeps the others.
func (c *Conn) next(requests []byte) error {
	end := len(requests)
	start := end - len(bytes.TrimLeft(requests, space))
	if newline := bytes.IndexByte(requests[start:], '\n'); newline >= 0 {
		end = start + newline + 1
	}
	count, err := ParseRequest(requests[:end])
	if err != nil {
		return err
	}
	announce(count)
	c.answered = true
	c.left, c.total = count, count
	c.pending = append(c.pending[:0], bytes.TrimLeft(requests[end:], space)...)
	return nil
}

// send sends what the socket takes of the reply's next chunk. Bytes that it does
// not take need not be kept: other random ones do as well.
func (c *Conn) send() error {
	g := generators.Get().(*generator)
	defer generators.Put(g)
	p := g.chunk(c.left)
	n, err := retry(func() (int, error) { return unix.Write(c.fd, p) })
	switch {
	case err == unix.EAGAIN:
		return nil
	case err != nil:
		return unsent(c.total, c.left, err)
	}
	c.left -= int64(n)
	c.moved = time.Now()
	return nil
}

// Expired returns an error if the client has neither sent a request nor taken any
// of its reply for the time of timeout (0 for ever).
func (c *Conn) Expired(timeout time.Duration) error {
	if timeout == 0 || time.Since(c.moved) < timeout {
		return nil
	}
	err := silent(timeout)
	if c.Busy() {
		err = refused(c.total, c.left, timeout)
	}
	return fmt.Errorf("%v: %w", c.peer, err)
}
