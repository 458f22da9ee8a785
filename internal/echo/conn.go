package echo

import (
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
	fd       int
	peer     netip.AddrPort
	input    []byte    // what the client has sent after the request under way
	more     bool      // input filled the buffer, so its last request may be incomplete
	answered bool      // the client has sent a good request
	total    int64     // bytes of the reply
	left     int64     // those that are still to be sent
	moved    time.Time // when bytes were last received or sent
}

// NewConn returns the connection on a non-blocking socket, where the first request is
// still to come. The caller closes the socket.
func NewConn(fd int, peer netip.AddrPort) *Conn {
	return &Conn{fd: fd, peer: peer, moved: time.Now()}
}

// Busy reports whether a reply is under way.
func (c *Conn) Busy() bool { return c.left > 0 || len(c.input) > 0 }

// Step does what can be done without waiting, and returns what to wait for before the
// next step. It receives at most once and sends at most [ChunkSize] bytes, so that the
// other clients do not have to wait. An error says why the connection is [Done]. A client
// that closes after its reply is not an error.
func (c *Conn) Step() (Want, error) {
	if c.left == 0 && !c.hasRequest() {
		if open, err := c.receive(); !open {
			return Done, err
		}
	}
	for c.left == 0 && c.hasRequest() {
		if err := c.reply(); err != nil {
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

// hasRequest reports whether the input has a complete request. A newline ends a request,
// or the end of what one recv(2) returns, if it has not filled the buffer.
func (c *Conn) hasRequest() bool {
	_, _, ended := cut(c.input)
	return ended || len(c.input) > 0 && !c.more
}

// receive receives what the client has sent, and reports whether the connection goes on.
func (c *Conn) receive() (open bool, err error) {
	var buf [MaxRequest + 1]byte // one more, to see that a request is too long
	had := copy(buf[:], c.input)
	n, err := retry(func() (int, error) { return unix.Read(c.fd, buf[had:]) })
	switch {
	case err == unix.EAGAIN, n == 0 && had > 0:
		c.more = false // the last request was complete
		return true, nil
	case err != nil:
		return false, unread(err)
	case n == 0 && c.answered:
		return false, nil
	case n == 0:
		return false, badRequest(nil)
	}
	c.input = append(c.input[:0], buf[:had+n]...)
	c.more = had+n == len(buf)
	c.moved = time.Now()
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
	c.total, c.left = count, count
	c.input = append(c.input[:0], rest...)
	return nil
}

// send sends the next chunk of the reply, or the part that the socket takes. The other part
// is not kept, because the next random bytes are as good.
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

// Expired returns an error if the client has sent no request, and taken nothing of its
// reply, for as long as timeout, where 0 means no limit.
func (c *Conn) Expired(timeout time.Duration) error {
	if timeout == 0 || time.Since(c.moved) < timeout {
		return nil
	}
	if c.Busy() {
		return refused(c.total, c.left, timeout)
	}
	return silent(timeout)
}
