package echo

import (
	"bytes"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
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
	input    []byte     // what the client has sent after the request under way
	more     bool       // a part of the last request of the input is still to be received
	answered bool       // the client has sent a good request
	closing  bool       // the server has shut down its side
	gone     bool       // the connection is no longer in the table
	room     *room      // for what is received, and
	gen      *generator // for what is sent, by a call under way; see Buffer
}

// Begin makes c the connection on a non-blocking socket, where the first request is still to
// come. Memory that c had for another connection is used again. The caller closes the socket.
func (c *Conn) Begin(fd int, peer netip.AddrPort, timeout time.Duration) {
	*c = Conn{stream: stream{fd: fd, socket: descriptor(fd), moved: time.Now()}, peer: peer, timeout: timeout, input: c.input[:0]}
}

// Step does what can be done without waiting, and returns what to wait for before the
// next step. It receives at most once and sends at most [ChunkSize] bytes, so that the
// other clients do not have to wait. An error says why the connection ends. A client that
// closes after its reply is not an error.
func (c *Conn) Step() (Want, error) {
	g := generators.Get().(*generator)
	defer generators.Put(g)
	if c.left() == 0 {
		buf := g.buf[:MaxRequest+1] // one more, to see that a request is too long
		n, err := c.Read(buf[copy(buf, c.input):])
		if want, err := c.received(buf, n, err); want != Write {
			return want, err
		}
	}
	// What the socket does not take is not kept: the next random bytes are as good.
	n, err := c.Write(g.chunk(c.left()))
	return c.written(n, err)
}

// Buffer is for a server that does not call read and write when the socket is ready, but has
// the kernel do it (io_uring(7)). It returns the room for the next read, or the bytes of the
// next write. The kernel uses them until the call is complete. Call [Conn.Complete] then.
func (c *Conn) Buffer(want Want) []byte {
	if want == Write {
		c.gen = generators.Get().(*generator)
		return c.gen.chunk(c.left())
	}
	c.room = rooms.Get().(*room)
	return c.room[copy(c.room[:], c.input):]
}

// A room has one byte more than a request, to see that one is too long.
type room [MaxRequest + 1]byte

var rooms = sync.Pool{New: func() any { return new(room) }}

// Complete does what Step does, after the kernel has read n bytes into the [Conn.Buffer], or
// written n of its bytes, or failed.
func (c *Conn) Complete(n int, err error) (Want, error) {
	if c.gen == nil {
		defer rooms.Put(c.room)
		return c.received(c.room[:], n, err)
	}
	generators.Put(c.gen)
	c.gen = nil
	return c.written(n, err)
}

// received takes what a read has put into a buffer behind the input.
func (c *Conn) received(buf []byte, n int, err error) (Want, error) {
	had := len(c.input)
	switch {
	case c.closing:
		if over, err := c.drained(n, err, c.timeout); over {
			return Done, err
		}
		return Read, nil
	case err == unix.EAGAIN:
		return Read, nil
	case err != nil:
		return Done, unread(err)
	case n == 0 && c.answered:
		return Done, nil
	case n == 0:
		return Done, errNoRequest
	}
	received := buf[:had+n]
	c.more = len(received) == len(buf) && sock.Queued(c.fd, sock.Unread) > 0
	c.moved = time.Now()
	if c.answered {
		received = bytes.TrimLeft(received, space) // also a newline that comes late
	}
	c.input = append(c.input[:0], received...)
	return c.next()
}

// written notes that a write has sent n bytes.
func (c *Conn) written(n int, err error) (Want, error) {
	if err := c.wrote(n, err); err != nil {
		return Done, err
	}
	return c.next()
}

// next begins the next reply, if there is a request, and returns what to wait for.
func (c *Conn) next() (Want, error) {
	for c.left() == 0 && c.hasRequest() {
		if err := c.reply(); err != nil {
			return c.Close(), err
		}
	}
	return c.wants(), nil
}

func (c *Conn) wants() Want {
	if c.left() > 0 {
		return Write
	}
	return Read
}

// Close ends the connection, and returns what to wait for: [Done] if the socket can be
// closed at once.
func (c *Conn) Close() Want {
	if c.finish() {
		return Done
	}
	c.closing, c.input, c.moved = true, c.input[:0], time.Now()
	return Read
}

// hasRequest reports whether the input has a complete request. A newline ends a request,
// and so does the end of what one recv(2) returns, if it has not filled the buffer.
func (c *Conn) hasRequest() bool {
	_, _, ended := parse(c.input)
	return ended || len(c.input) > 0 && !c.more || len(c.input) > MaxRequest
}

// reply begins the reply to the first request of the input.
func (c *Conn) reply() error {
	count, err := ParseRequest(c.input)
	if err != nil {
		return err
	}
	announce(count)
	c.answered = true
	c.begin(count)
	size, _, _ := parse(c.input)
	c.input = append(c.input[:0], bytes.TrimLeft(c.input[size:], space)...)
	return nil
}

// Check is for a connection that was not ready for some time, and returns what to wait for: it
// is [Done] if the client has sent no request, and taken nothing of its reply, for as long
// as the timeout.
func (c *Conn) Check() (Want, error) {
	if c.closing {
		if over, err := c.lingered(c.timeout); over {
			return Done, err
		}
		return Read, nil
	}
	err := c.stalled(c.timeout)
	switch {
	case err == nil, c.left() == 0 && sock.Queued(c.fd, sock.Unread) > 0: // the server is late
		return c.wants(), nil
	case c.taken == c.sent && c.left() == 0:
		err = silent(c.timeout)
	}
	return Done, err
}
