package echo

import (
	"errors"
	"log"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// A Table has the clients of a server that waits for many at once, by their descriptors. It also
// tracks which of them are due to be checked, whether to accept, and the shutdown. It closes no
// descriptor. The zero value is empty.
type Table struct {
	clients  []*Client // by descriptor; those that have ended are used again
	list     Client    // the head of a ring of those that are open, in the order in which they are due
	open     int
	paused   time.Time // when accept was paused, or zero
	shutdown time.Time // when Shutdown was called, or zero
	next     time.Time // when Expire is to be called again
	expired  []int     // room for what Expire returns
}

// Add puts a new client into the table.
func (t *Table) Add(fd int, peer netip.AddrPort) {
	for len(t.clients) <= fd {
		t.clients = append(t.clients, nil)
	}
	if t.clients[fd] == nil {
		t.clients[fd] = new(Client)
	}
	c, now := t.clients[fd], time.Now()
	*c = Client{peer: peer, table: t, reply: NewReply(fd, 0), interest: WantRead, input: c.input[:0], active: now}
	t.pushBack(c, now)
	t.open++
}

// pushBack puts a client at the end of the list. All are due after the same time, so the list is in
// the right order.
func (t *Table) pushBack(c *Client, now time.Time) {
	if t.list.next == nil {
		t.list.prev, t.list.next = &t.list, &t.list
	}
	c.due = now.Add(max(sock.Timeout/4, 10*time.Millisecond))
	if t.ending() {
		c.due = now.Add(sock.Tick())
	}
	c.prev, c.next = t.list.prev, &t.list
	c.prev.next, c.next.prev = c, c
}

func unlink(c *Client) { c.prev.next, c.next.prev = c.next, c.prev }

// Client returns a client by its descriptor.
func (t *Table) Client(fd int) *Client { return t.clients[fd] }

// Remove takes a client that has ended out of the table, and logs why it has ended, unless it was
// answered and has closed. The caller has to close the descriptor.
func (t *Table) Remove(fd int) {
	c := t.clients[fd]
	unlink(c)
	t.open--
	t.paused = time.Time{} // there is a descriptor again
	if c.err != nil {
		log.Printf("%v: %v", c.peer, c.err)
	}
}

// AcceptFailed takes an error of accept on a non-blocking listener, and returns it only if it is
// [sock.Fatal]. At a resource limit and the like it logs the error, and accept is paused until a
// client has gone, or a second has passed.
func (t *Table) AcceptFailed(err error) error {
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, sock.ErrShutdown):
		return nil // no client waits
	case sock.Fatal(err):
		return err
	}
	log.Printf("%v: new clients wait", err)
	t.paused = time.Now()
	return nil
}

// ListenerInterest returns what to wait for at the listener: [WantRead], or [WantNothing] while
// accept is paused and after [Table.Shutdown].
func (t *Table) ListenerInterest() Interest {
	if t.ending() || t.isPaused() {
		return WantNothing
	}
	return WantRead
}

func (t *Table) isPaused() bool { return time.Since(t.paused) < time.Second }

// Shutdown begins the end of the server: no client is accepted. Requests that have arrived, and
// replies under way, are finished.
func (t *Table) Shutdown() {
	t.shutdown = time.Now()
	for c := t.list.next; c != nil && c != &t.list; c = c.next {
		c.due = t.shutdown
	}
}

func (t *Table) ending() bool { return !t.shutdown.IsZero() }

// Serving reports whether the server has to go on. After [Table.Shutdown] it has to while
// replies are under way, for at most [sock.Timeout].
func (t *Table) Serving() bool {
	return !t.ending() || t.open > 0 && time.Since(t.shutdown) < sock.Timeout
}

// Expire checks the clients that are due: each of them four times in a timeout. It returns
// those that have ended, and how long the server may wait before the next call. A call checks
// at most 256, because other clients wait for their replies meanwhile.
func (t *Table) Expire() (ended []int, wait time.Duration) {
	now, ended := time.Now(), t.expired[:0]
	defer func() { t.next = now.Add(wait) }()
	if !t.next.IsZero() && now.Sub(t.next) > sock.Tick() {
		return nil, 0 // the server was held up: it has to look first what clients have sent meanwhile
	}
	for range 256 {
		c := t.list.next
		if c == nil || c == &t.list || c.due.After(now) {
			break
		}
		unlink(c)
		t.pushBack(c, now)
		if c.interest == WantNothing {
			continue // it has ended before, and the kernel still makes a call for it
		}
		if c.check(now); c.interest == WantNothing {
			ended = append(ended, c.reply.conn)
		}
	}
	t.expired, wait = ended, time.Hour
	if t.isPaused() {
		wait = time.Second
	}
	if c := t.list.next; c != nil && c != &t.list {
		wait = min(wait, max(0, c.due.Sub(now)))
	}
	return ended, wait
}
