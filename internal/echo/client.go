package echo

import (
	"bytes"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// Interest is what a client's connection waits for.
type Interest int

const (
	WantNothing Interest = iota // the client has ended, and its descriptor is to be closed
	WantRead                    // to read, when the socket is readable
	WantWrite                   // to write, when the socket is writable
)

// A Client is a client of a server that waits for many at once. It is a state machine:
// [Client.Interest] says which call to make, and [Client.Received] or [Client.Sent] takes
// what the call has returned. It is answered one request after the other until it closes.
type Client struct {
	table    *Table
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
	prev, next *Client   // in the list of the table
}

// Interest returns what the client's connection waits for.
func (c *Client) Interest() Interest { return c.interest }

// Chunk returns the next bytes to write, at most twice [ChunkSize], see [Reply.Chunk].
func (c *Client) Chunk() []byte { return c.reply.chunk(2 * ChunkSize) }

// End ends the connection. err says why, for the log.
func (c *Client) End(err error) {
	c.interest, c.err = WantNothing, err
}

// Received takes what read(2) has returned. data is empty at the end of the client's input.
// The read must have asked for [MaxRequest]+1 bytes.
func (c *Client) Received(data []byte, err error) {
	switch {
	case c.interest == WantNothing: // it has expired while the kernel made the call
	case err == unix.EAGAIN || err == unix.EINTR:
	case c.closing:
		// What comes now is thrown away.
		if err != nil || len(data) == 0 {
			c.interest = WantNothing
		}
	case err != nil:
		c.End(ReadError(err))
	case len(data) == 0 && !c.answered:
		c.End(errNoRequest)
	case len(data) == 0:
		c.End(nil)
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
func (c *Client) Sent(n int, err error) {
	err = c.reply.Sent(n, err)
	switch {
	case c.interest == WantNothing: // as in Received
	case err != nil:
		c.End(err)
	default:
		if n > 0 {
			c.active = time.Now()
		}
		c.advance()
	}
}

// trim removes n bytes, and the white space after them, from the input.
func (c *Client) trim(n int) { c.input = append(c.input[:0], bytes.TrimLeft(c.input[n:], space)...) }

// advance starts the next reply, if the last one is sent and there is a request. A newline
// ends a request, and so does the end of what one read has returned, if it was not cut there.
func (c *Client) advance() {
	for c.reply.Left() == 0 {
		size, count, ended := Parse(c.input)
		if !ended && (len(c.input) == 0 || c.partial) && len(c.input) <= MaxRequest {
			c.interest = WantRead
			c.closeIfShutdown()
			return
		}
		if count < 0 {
			c.close(badRequest(c.input[:size]))
			return
		}
		c.trim(size)
		c.answered = true
		c.reply = NewReply(c.reply.conn, count)
		LogRequest(count)
	}
	c.interest = WantWrite
}

// close ends the connection from the server's side. If the client could lose the end of its
// last reply, it does so by a lingering close, see [sock.Linger]: it reads, and throws away,
// what the client still sends. Replies before the last one may be unsent, too, so their size is
// taken to be the largest.
func (c *Client) close(err error) {
	if c.End(err); sock.MustLinger(c.reply.conn, MaxReply) && unix.Shutdown(c.reply.conn, unix.SHUT_WR) == nil {
		c.closing, c.interest, c.active = true, WantRead, time.Now()
	}
}

// closeIfShutdown closes a connection that waits for a request when the server ends. A request
// that has arrived is still answered.
func (c *Client) closeIfShutdown() {
	if c.table.ending() && c.interest == WantRead && !c.closing && sock.Queued(c.reply.conn, sock.Unread) == 0 {
		c.close(nil)
	}
}

// check ends a connection on which there was no progress for as long as the timeout. After a
// lingering close has begun, a second is enough for a client that has had its reply.
func (c *Client) check(now time.Time) {
	r := &c.reply
	if unacked := sock.Queued(r.conn, sock.Unacknowledged); unacked != r.unacked {
		r.unacked, c.active = unacked, now
	}
	c.closeIfShutdown()
	idle := now.Sub(c.active)
	switch {
	case c.closing && r.unacked == 0 && idle >= min(time.Second, sock.Timeout):
		c.interest = WantNothing
	case c.interest == WantNothing || idle < sock.Timeout:
	case r.unacked > 0:
		c.End(r.stalled(c.active, now))
	case c.interest == WantWrite || sock.Queued(r.conn, sock.Unread) > 0:
		// The server is late, not the client.
	default:
		c.End(ReadError(unix.EAGAIN))
	}
}
