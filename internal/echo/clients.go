package echo

import (
	"log"
	"net/netip"
	"time"

	"csdesign/internal/reexec"
	"csdesign/internal/sock"
)

// Clients is the table of a server that waits for all its clients at once: their
// connections, by descriptor. It also knows what no descriptor tells: which client has
// been silent for too long, whether there is room for another one, and when the server
// has done its work. It never waits, and closes no descriptor.
type Clients struct {
	conns   []*Conn // by descriptor; those of clients that have gone are used again
	open    int
	full    bool      // there is no descriptor or memory for another client
	logged  time.Time // when that was last logged
	ended   time.Time // when End was called
	timeout time.Duration
	looked  time.Time // when Dismiss last looked
}

// NewClients returns an empty table. A client that is silent, or takes nothing of its
// reply, for as long as timeout has to go.
func NewClients(timeout time.Duration) *Clients {
	return &Clients{timeout: timeout}
}

// Add puts a new client into the table, by its socket. It waits for a request.
func (c *Clients) Add(fd int, peer netip.AddrPort) {
	for len(c.conns) <= fd {
		c.conns = append(c.conns, nil)
	}
	if c.conns[fd] == nil {
		c.conns[fd] = new(Conn)
	}
	c.conns[fd].Begin(fd, peer, c.timeout)
	c.open++
}

// Full notes that there is no room for another client, and logs err, which says so, once a
// second. There may be room again after a client has gone, or after some time.
func (c *Clients) Full(err error) {
	c.full = true
	if time.Since(c.logged) >= time.Second {
		log.Printf("%v: new clients wait", err)
		c.logged = time.Now()
	}
}

// End notes that no new client and no new request is to be served from now on.
func (c *Clients) End() {
	c.ended = time.Now()
	c.looked = time.Time{} // many clients may have to go now
}

func (c *Clients) ending() bool { return !c.ended.IsZero() }

// Serving reports whether the server has to go on. After [Clients.End] it does as long as
// there are replies under way, but at most for the timeout.
func (c *Clients) Serving() bool {
	reexec.Yield()
	return !c.ending() || c.open > 0 && time.Since(c.ended) < c.timeout
}

// Listener returns what to wait for at the listener: [Read], or [Done] while there is no
// room for another client.
func (c *Clients) Listener() Want {
	if c.full || c.ending() {
		return Done
	}
	return Read
}

// Step makes the next step with a client, and returns what to wait for then. When it
// returns [Done], the client is no longer in the table, and its descriptor has to be
// closed.
func (c *Clients) Step(fd int) Want {
	want, err := c.conns[fd].Step()
	return c.settle(fd, want, err)
}

// Buffer is [Conn.Buffer] of a client.
func (c *Clients) Buffer(fd int, want Want) []byte { return c.conns[fd].Buffer(want) }

// Complete is [Clients.Step] for a call that is complete, see [Conn.Complete]. The client may
// have been dismissed meanwhile.
func (c *Clients) Complete(fd, n int, err error) Want {
	if c.conns[fd].gone {
		return Done
	}
	want, err := c.conns[fd].Complete(n, err)
	return c.settle(fd, want, err)
}

// Dismiss looks for clients that have been silent for too long or, after [Clients.End], that
// have no reply under way. It returns the descriptors of those that are no longer in the
// table, which have to be closed, and how long the server may wait before the next call.
func (c *Clients) Dismiss() (fds []int, wait time.Duration) {
	if c.open == 0 && !c.full {
		return nil, time.Hour
	}
	if wait := tick(c.timeout) - time.Since(c.looked); wait > 0 {
		return nil, wait
	}
	c.looked = time.Now()
	c.full = false // another process may have given something back
	for fd, conn := range c.conns {
		if conn == nil || conn.gone {
			continue
		}
		if want, err := conn.Check(); c.settle(fd, want, err) == Done {
			fds = append(fds, fd)
		}
	}
	if c.ending() && c.open == 0 {
		return fds, 0
	}
	return fds, tick(c.timeout)
}

func (c *Clients) settle(fd int, want Want, err error) Want {
	conn := c.conns[fd]
	if err != nil {
		log.Printf("%v: %v", conn.peer, err)
	}
	// At the end a request that has arrived is still answered.
	if want == Read && c.ending() && !conn.closing && sock.Queued(fd, sock.Unread) == 0 {
		want = conn.Close()
	}
	if want == Done {
		conn.gone = true
		c.open--
		c.full = false
	}
	return want
}
