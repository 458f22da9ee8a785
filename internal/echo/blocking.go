package echo

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/reexec"
)

// ReadRequest waits on a blocking socket for a request, and returns the number of bytes
// that it asks for. It waits at most timeout, where 0 means no limit.
//
// A request is what one recv(2) returns. ReadRequest cannot wait for a newline, because
// the original's client does not send one.
func ReadRequest(conn int, timeout time.Duration) (count int64, err error) {
	if reexec.InChild {
		reexec.Yield()
	}
	if err := setTimeout(conn, unix.SO_RCVTIMEO, timeout); err != nil {
		return 0, err
	}
	var request [MaxRequest + 1]byte // one more, to see that a request is too long
	n, err := retry(func() (int, error) { return unix.Read(conn, request[:]) })
	switch {
	case err == unix.EAGAIN:
		return 0, silent(timeout)
	case err != nil:
		return 0, unread(err)
	}
	return ParseRequest(request[:n])
}

// SendReply sends count random bytes on a blocking socket. It gives up when the client
// takes nothing for as long as timeout, where 0 means no limit.
func SendReply(conn int, count int64, timeout time.Duration) error {
	sending.RLock()
	defer sending.RUnlock()
	announce(count)
	if err := setTimeout(conn, unix.SO_SNDTIMEO, timeout); err != nil {
		return err
	}
	g := generators.Get().(*generator)
	defer generators.Put(g)
	for left := count; left > 0; {
		p := g.chunk(left)
		begin := time.Now()
		n, err := retry(func() (int, error) { return unix.Write(conn, p) })
		left -= int64(max(n, 0))
		// A write that has sent a part before the timeout returns the size of the part.
		// (So does one that is interrupted by a signal, but earlier.)
		if err == nil && n < len(p) && timeout > 0 && time.Since(begin) >= timeout {
			err = unix.EAGAIN
		}
		switch {
		case err == unix.EAGAIN:
			return refused(count, left, timeout)
		case err != nil:
			return unsent(count, left, err)
		}
	}
	return nil
}

// sending is locked for reading by each SendReply that runs.
var sending sync.RWMutex

// Finish waits until all replies under way are sent, at most timeout, where 0 means no
// limit. No other reply begins after that.
func Finish(timeout time.Duration) {
	finished := make(chan bool)
	go func() {
		sending.Lock()
		close(finished)
	}()
	var deadline <-chan time.Time
	if timeout > 0 {
		deadline = time.After(timeout)
	}
	select {
	case <-finished:
	case <-deadline:
	}
}

// setTimeout sets SO_RCVTIMEO or SO_SNDTIMEO (socket(7)): a call that has received or sent
// nothing for as long as timeout fails with EAGAIN.
func setTimeout(conn, option int, timeout time.Duration) error {
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(conn, unix.SOL_SOCKET, option, &tv); err != nil {
		return fmt.Errorf("set the timeout of a socket: %w", err)
	}
	return nil
}

// retry repeats a call that was interrupted by a signal. The kernel does not repeat a call
// on a socket that has a timeout (signal(7), SA_RESTART).
func retry(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}
