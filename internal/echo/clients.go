package echo

import (
	"fmt"
	"net/netip"
	"time"

	"csdesign/internal/sock"
)

// Clients is the table of a server that waits for many clients at once: their connections, by
// descriptor. It also tracks which clients are idle, whether to accept, and the shutdown. It
// closes no descriptor.
type Clients struct {
	timeout  time.Duration
	onStart  func(count int64)
	conns    []*Conn // by descriptor; those that have ended are used again
	list     Conn    // the head of a ring of those that are open, in the order in which they are due
	open     int
	paused   time.Time // when accept was paused, or zero
	shutdown time.Time // when Shutdown was called, or zero
	drained  time.Time // when all were checked after that
	next     time.Time // when Expire is to be called again
	expired  []int     // room for what Expire returns
}

// NewClients returns an empty table. A client expires when it is silent, or takes nothing of
// its reply, for as long as timeout. onStart is called with the size of each reply when it
// starts.
func NewClients(timeout time.Duration, onStart func(count int64)) *Clients {
	c := &Clients{timeout: timeout, onStart: onStart}
	c.list.prev, c.list.next = &c.list, &c.list
	return c
}

// Add puts a new client into the table, by its descriptor.
func (c *Clients) Add(fd int, peer netip.AddrPort) {
	for len(c.conns) <= fd {
		c.conns = append(c.conns, nil)
	}
	if c.conns[fd] == nil {
		c.conns[fd] = new(Conn)
	}
	conn, now := c.conns[fd], time.Now()
	*conn = Conn{peer: peer, table: c, reply: NewReply(fd, 0, c.timeout), interest: Read, input: conn.input[:0], active: now}
	c.pushBack(conn, now)
	c.open++
}

// pushBack puts a connection at the end of the list. All are due after the same time, so the
// list is in the right order.
func (c *Clients) pushBack(conn *Conn, now time.Time) {
	conn.due = now.Add(max(c.timeout/4, 10*time.Millisecond))
	conn.prev, conn.next = c.list.prev, &c.list
	conn.prev.next, conn.next.prev = conn, conn
}

func unlink(conn *Conn) { conn.prev.next, conn.next.prev = conn.next, conn.prev }

// Get returns the connection of a client.
func (c *Clients) Get(fd int) *Conn { return c.conns[fd] }

// Remove takes a client that has ended out of the table. Its descriptor is to be closed then.
// The error says which client it was, and why it has ended. It is nil after a client that was
// answered and has closed.
func (c *Clients) Remove(fd int) error {
	conn := c.conns[fd]
	unlink(conn)
	c.open--
	c.paused = time.Time{} // there is a descriptor again
	if conn.err != nil {
		return fmt.Errorf("%v: %w", conn.peer, conn.err)
	}
	return nil
}

// PauseAccept is for a server that has no descriptor or no memory for another client. It
// accepts again when a client has gone, or after a second.
func (c *Clients) PauseAccept() { c.paused = time.Now() }

// Listener returns what to wait for at the listener: [Read], or [None] while accept is paused
// and after [Clients.Shutdown].
func (c *Clients) Listener() Interest {
	if time.Since(c.paused) >= time.Second {
		c.paused = time.Time{}
	}
	if c.draining() || !c.paused.IsZero() {
		return None
	}
	return Read
}

// Shutdown begins the end of the server: no client is accepted. Requests that have arrived, and
// replies under way, are finished.
func (c *Clients) Shutdown() { c.shutdown = time.Now() }

func (c *Clients) draining() bool { return !c.shutdown.IsZero() }

// Serving reports whether the server has to go on. After [Clients.Shutdown] it has to while
// replies are under way, for at most the timeout.
func (c *Clients) Serving() bool {
	return !c.draining() || c.open > 0 && time.Since(c.shutdown) < c.timeout
}

// Expire checks the clients that are due: each of them four times in a timeout. It returns
// those that have ended, and how long the server may wait before the next call. A call checks
// at most 256, because other clients wait for their replies meanwhile.
func (c *Clients) Expire() (ended []int, wait time.Duration) {
	now, most := time.Now(), 256
	defer func() { c.next = now.Add(wait) }()
	if tick := sock.Tick(c.timeout); !c.next.IsZero() && now.Sub(c.next) > tick {
		return nil, 0 // the server was stopped for some time, and has to look first what clients have sent
	}
	wait = time.Hour
	if c.draining() {
		wait, most = sock.Tick(c.timeout), c.open
		if rest := wait - now.Sub(c.drained); rest > 0 && c.open > 0 {
			return nil, rest
		}
		c.drained = now
	} else if !c.paused.IsZero() {
		wait = time.Second
	}
	c.expired = c.expired[:0]
	for range most {
		conn := c.list.next
		if conn == &c.list || !c.draining() && conn.due.After(now) {
			break
		}
		unlink(conn)
		c.pushBack(conn, now)
		if conn.interest == None {
			continue // it has ended before, and the kernel still makes a call for it
		}
		if conn.check(now); conn.interest == None {
			c.expired = append(c.expired, conn.reply.conn)
		}
	}
	if conn := c.list.next; conn != &c.list && !c.draining() {
		wait = min(wait, max(0, conn.due.Sub(now)))
	}
	return c.expired, wait
}
