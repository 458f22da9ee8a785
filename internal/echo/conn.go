package echo

import (
	"bytes"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// Interest is what a connection waits for.
type Interest int

const (
	None  Interest = iota // nothing: the connection has ended, and its descriptor is to be closed
	Read                  // to read, when the socket is readable
	Write                 // to write, when the socket is writable
)

// A Conn is a connection of a server that waits for many clients at once. It is a state
// machine: [Conn.Interest] says which call to make, and [Conn.Received] or [Conn.Sent] takes
// what the call has returned. It answers one request after the other until the client closes.
type Conn struct {
	table    *Clients
	peer     netip.AddrPort
	reply    Reply // the one under way, or the last one
	interest Interest
	input    []byte    // what the client has sent after the request under way
	partial  bool      // a part of the last request of the input is still to be received
	answered bool      // the client has sent a good request
	closing  bool      // lingering close: the server has shut down its side
	err      error     // why the connection has ended
	active   time.Time // when the client last sent something, or made progress with a reply

	due        time.Time // when to check it next
	prev, next *Conn     // in the list of the table
}

// Interest returns what the connection waits for.
func (c *Conn) Interest() Interest { return c.interest }

// Chunk returns the next bytes to write, at most twice [ChunkSize], see [Reply.Chunk].
func (c *Conn) Chunk() []byte { return c.reply.chunk(2 * ChunkSize) }

// end ends the connection. The descriptor can be closed.
func (c *Conn) end(err error) {
	c.interest, c.err = None, err
}

// Received takes what read(2) has returned. data is empty at the end of the client's input.
// The read must have asked for [MaxRequest]+1 bytes.
func (c *Conn) Received(data []byte, err error) {
	switch {
	case c.interest == None: // it has expired while the kernel made the call
	case err == unix.EAGAIN || err == unix.EINTR:
	case c.closing:
		// What comes now is thrown away.
		if err != nil || len(data) == 0 {
			c.interest = None
		}
	case err != nil:
		c.end(ReadError(err, c.reply.timeout))
	case len(data) == 0 && !c.answered:
		c.end(errNoRequest)
	case len(data) == 0:
		c.end(nil)
	default:
		c.active = time.Now()
		c.input = append(c.input, data...)
		if c.answered {
			c.trim(0) // a newline that comes late
		}
		c.partial = len(data) > MaxRequest && sock.Queued(c.reply.conn, sock.Unread) > 0
		c.advance()
	}
}

// Sent takes what write(2) of a chunk has returned.
func (c *Conn) Sent(n int, err error) {
	err = c.reply.Sent(n, err)
	switch {
	case c.interest == None: // as in Received
	case err != nil:
		c.end(err)
	default:
		if n > 0 {
			c.active = time.Now()
		}
		c.advance()
	}
}

// trim removes n bytes, and the white space after them, from the input.
func (c *Conn) trim(n int) { c.input = append(c.input[:0], bytes.TrimLeft(c.input[n:], space)...) }

// advance starts the next reply, if the last one is sent and there is a request. A newline
// ends a request, and so does the end of what one read has returned, if it was not cut there.
func (c *Conn) advance() {
	for c.reply.Left() == 0 {
		size, count, ended := Parse(c.input)
		if !ended && (len(c.input) == 0 || c.partial) && len(c.input) <= MaxRequest {
			c.interest = Read
			c.closeIfShutdown()
			return
		}
		if count < 0 {
			c.close(badRequest(c.input[:size]))
			return
		}
		c.trim(size)
		c.answered = true
		c.reply = NewReply(c.reply.conn, count, c.reply.timeout)
		c.table.onStart(count)
	}
	c.interest = Write
}

// close ends the connection from the server's side. If the client could lose the end of its
// last reply, it does so by a lingering close, see [sock.Linger]: it reads, and throws away,
// what the client still sends. Replies before the last one may be unsent, too, so their size is
// taken to be the largest.
func (c *Conn) close(err error) {
	if c.end(err); sock.MustLinger(c.reply.conn, MaxReply) && unix.Shutdown(c.reply.conn, unix.SHUT_WR) == nil {
		c.closing, c.interest, c.active = true, Read, time.Now()
	}
}

// closeIfShutdown closes a connection that waits for a request when the server ends. A request
// that has arrived is still answered.
func (c *Conn) closeIfShutdown() {
	if c.table.draining() && c.interest == Read && !c.closing && sock.Queued(c.reply.conn, sock.Unread) == 0 {
		c.close(nil)
	}
}

// check ends a connection on which there was no progress for as long as the timeout. After a
// lingering close has begun, a second is enough for a client that has had its reply.
func (c *Conn) check(now time.Time) {
	r := &c.reply
	if unacked := sock.Queued(r.conn, sock.Unacknowledged); unacked != r.unacked {
		r.unacked, c.active = unacked, now
	}
	c.closeIfShutdown()
	idle := now.Sub(c.active)
	switch {
	case c.closing && r.unacked == 0 && idle >= min(time.Second, r.timeout):
		c.interest = None
	case c.interest == None || idle < r.timeout:
	case r.unacked > 0:
		c.end(r.stalled(c.active, now))
	case c.interest == Write || sock.Queued(r.conn, sock.Unread) > 0:
		// The server is late, not the client.
	default:
		c.end(ReadError(unix.EAGAIN, r.timeout))
	}
}
