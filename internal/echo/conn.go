package echo

import (
	"bytes"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Want is what a connection waits for before its next step.
type Want int

const (
	Done  Want = iota // nothing: the connection has to be closed
	Read              // the socket is readable
	Write             // the socket is writable
)

// A Conn is a connection of a server that waits for all its clients at once. It answers
// requests until the client closes.
type Conn struct {
	stream
	peer     netip.AddrPort
	timeout  time.Duration
	input    []byte // what the client has sent after the request under way
	more     bool   // input filled the buffer, so its last request may be incomplete
	answered bool   // the client has sent a good request
	closing  bool   // the server has shut down its side
}

// NewConn returns the connection on a non-blocking socket, where the first request is
// still to come. The caller closes the socket.
func NewConn(fd int, peer netip.AddrPort, timeout time.Duration) *Conn {
	return &Conn{stream: stream{fd: fd, socket: descriptor(fd), moved: time.Now()}, peer: peer, timeout: timeout}
}

// Busy reports whether a reply is under way.
func (c *Conn) Busy() bool { return c.left() > 0 || len(c.input) > 0 }

// Step does what can be done without waiting, and returns what to wait for before the
// next step. It receives at most once and sends at most [ChunkSize] bytes, so that the
// other clients do not have to wait. An error says why the connection ends. A client that
// closes after its reply is not an error.
func (c *Conn) Step() (Want, error) {
	g := generators.Get().(*generator)
	defer generators.Put(g)
	if c.closing {
		if over, err := c.drain(g.buf[:], c.timeout); over {
			return Done, err
		}
		return Read, nil
	}
	if c.left() == 0 && !c.hasRequest() {
		if open, err := c.receive(g.buf[:MaxRequest+1]); !open { // one more, to see that a request is too long
			return Done, err
		}
	}
	for c.left() == 0 && c.hasRequest() {
		if err := c.reply(); err != nil {
			return c.Close(), err
		}
	}
	if c.left() > 0 {
		// What the socket does not take is not kept: the next random bytes are as good.
		if err := c.write(g.chunk(c.left())); err != nil {
			return Done, err
		}
	}
	if c.Busy() {
		return Write, nil
	}
	return Read, nil
}

// Close ends the connection, and returns what to wait for: [Done] if the socket can be
// closed at once.
func (c *Conn) Close() Want {
	if c.finish() {
		return Done
	}
	c.closing, c.input, c.moved = true, nil, time.Now()
	return Read
}

// hasRequest reports whether the input has a complete request. A newline ends a request,
// or the end of what one recv(2) returns, if it has not filled the buffer.
func (c *Conn) hasRequest() bool {
	_, _, ended := cut(c.input)
	return ended || len(c.input) > 0 && !c.more
}

// receive receives what the client has sent, and reports whether the connection goes on.
func (c *Conn) receive(buf []byte) (open bool, err error) {
	had := copy(buf, c.input)
	n, err := c.Read(buf[had:])
	switch {
	case err == unix.EAGAIN, n == 0 && had > 0:
		c.more = false // the last request was complete
		return true, nil
	case err != nil:
		return false, unread(err)
	case n == 0 && c.answered:
		return false, nil
	case n == 0:
		return false, errNoRequest
	}
	received := buf[:had+n]
	c.more = len(received) == len(buf)
	c.moved = time.Now()
	if c.answered {
		received = bytes.TrimLeft(received, space) // also a newline that comes late
	}
	c.input = append(c.input[:0], received...)
	return true, nil
}

// reply begins the reply to the first request of the input.
func (c *Conn) reply() error {
	request, rest, _ := cut(c.input)
	count, err := ParseRequest(request)
	if err != nil {
		return err
	}
	announce(count)
	c.answered = true
	c.begin(count)
	c.input = append(c.input[:0], rest...)
	return nil
}

// Check is for a connection that was not ready for some time, and returns what to wait for: it
// is [Done] if the client has sent no request, and taken nothing of its reply, for as long
// as the timeout.
func (c *Conn) Check() (Want, error) {
	if c.closing {
		return c.Step()
	}
	err := c.stalled(c.timeout)
	switch {
	case err == nil && c.Busy():
		return Write, nil
	case err == nil:
		return Read, nil
	case c.taken == c.sent && !c.Busy():
		err = silent(c.timeout)
	}
	return Done, err
}
