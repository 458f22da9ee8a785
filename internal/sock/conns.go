package sock

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Conns are the connections that a process serves with calls that block. The zero value is
// empty.
type Conns struct {
	lock   sync.Mutex
	open   map[int]bool
	closed chan bool // after Shutdown: receives when a connection is closed
}

// Add notes that a connection is being served.
func (c *Conns) Add(conn int) {
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.open == nil {
		c.open = make(map[int]bool)
	}
	c.open[conn] = true
	if c.closed != nil {
		stopReading(conn)
	}
}

// Close closes a connection that was added.
func (c *Conns) Close(conn int) {
	c.Remove(conn)
	unix.Close(conn)
}

// Remove notes that a connection is going to be closed.
func (c *Conns) Remove(conn int) {
	c.lock.Lock()
	defer c.lock.Unlock()
	delete(c.open, conn)
	select {
	case c.closed <- true:
	default:
	}
}

// Shutdown ends the service: on a connection without a request, read(2) returns 0 from now on.
// It waits until all connections are closed, but not longer than timeout.
func (c *Conns) Shutdown(timeout time.Duration) {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.closed = make(chan bool, 1)
	for conn := range c.open {
		stopReading(conn)
	}
	for late := time.After(timeout); len(c.open) > 0; {
		c.lock.Unlock()
		select {
		case <-c.closed:
			c.lock.Lock()
		case <-late:
			c.lock.Lock()
			return
		}
	}
}

// stopReading shuts down the reading side of a connection on which no request has come.
func stopReading(conn int) {
	if !hasReceived(conn) {
		unix.Shutdown(conn, unix.SHUT_RD) // it fails when the client has gone
	}
}

// FirstWindow is how many bytes of a reply TCP sends at once on a new connection, if the client has
// room for them: ten segments (RFC 6928), each of 536 bytes at least.
const FirstWindow = 10 * 536

// MustLinger reports whether close(2) could cost the client the end of a reply of count bytes.
// If something is unread, close resets the connection. If something is unsent, the kernel
// resets it when the client sends more.
func MustLinger(conn int, count int64) bool {
	return Queued(conn, Unread) > 0 || count > FirstWindow && Queued(conn, Unsent) > 0
}

// Linger makes close(2) safe after a reply of count bytes (lingering close). If necessary, it
// shuts down the server's side, and reads and throws away what the client still sends, until the
// client closes, or has had its reply for a second, or takes nothing of it for as long as timeout.
func Linger(conn int, count int64, timeout time.Duration) error {
	readable := []unix.PollFd{{Fd: int32(conn), Events: unix.POLLIN}}
	return LingerWith(conn, count, timeout, func(p []byte) (n int, err error) {
		if n, err := unix.Poll(readable, int(Tick(timeout).Milliseconds())); n <= 0 {
			return 0, cmp.Or(err, error(unix.EAGAIN))
		}
		return unix.Read(conn, p)
	})
}

// LingerWith is [Linger] with another read. It has to fail with EAGAIN after a [Tick].
func LingerWith(conn int, count int64, timeout time.Duration, read func(p []byte) (n int, err error)) error {
	if !MustLinger(conn, count) || unix.Shutdown(conn, unix.SHUT_WR) != nil { // the client has gone
		return nil
	}
	buf := make([]byte, 4096)
	active, unacked := time.Now(), Queued(conn, Unacknowledged)
	for {
		n, err := read(buf)
		if n == 0 && err == nil {
			return nil
		}
		if err != nil && err != unix.EAGAIN && err != unix.EINTR {
			return fmt.Errorf("close: %w", err)
		}
		if now := Queued(conn, Unacknowledged); now != unacked {
			active, unacked = time.Now(), now
		}
		switch idle := time.Since(active); {
		case unacked == 0 && idle >= min(time.Second, timeout):
			return nil
		case idle >= timeout:
			return fmt.Errorf("close: the client has not taken %d bytes: none for %v", unacked, timeout)
		}
	}
}

// Tick is how often to look whether a client makes progress. A call on a blocking socket
// waits for a tick at most, see [Listen]: a write may wait for long while the client takes a
// little now and then, because the kernel lets it go on when a third of the buffer is free.
func Tick(timeout time.Duration) time.Duration {
	return min(time.Second, max(timeout/4, 10*time.Millisecond))
}
