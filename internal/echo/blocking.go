package echo

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// ReadRequest waits on a blocking socket for a request, for at most timeout (0
// for ever), and returns the number of bytes that it asks for.
//
// A request is what one recv(2) returns. The newline that ends it in this
// collection cannot be waited for, as the original's client does not send one.
func ReadRequest(conn int, timeout time.Duration) (count int64, err error) {
	if err := setTimeout(conn, unix.SO_RCVTIMEO, timeout); err != nil {
		return 0, err
	}
	var request [MaxRequest + 1]byte // the one shows that there were too many
	n, err := retry(func() (int, error) { return unix.Read(conn, request[:]) })
	switch {
	case err == unix.EAGAIN:
		return 0, silent(timeout)
	case err != nil:
		return 0, unread(err)
	}
	return ParseRequest(request[:n])
}

// SendReply sends count random bytes on a blocking socket. It gives up on a
// client that for the time of timeout (0 for never) takes nothing.
func SendReply(conn int, count int64, timeout time.Duration) error {
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
		// A call that times out half-way returns what it has sent. (So does one
		// that a signal interrupts, but sooner.)
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

// setTimeout sets SO_RCVTIMEO or SO_SNDTIMEO (socket(7)): a call that has moved
// nothing for so long fails with EAGAIN.
func setTimeout(conn, option int, timeout time.Duration) error {
	tv := unix.NsecToTimeval(timeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(conn, unix.SOL_SOCKET, option, &tv); err != nil {
		return fmt.Errorf("set timeout: %w", err)
	}
	return nil
}

// retry repeats a call while a signal interrupts it: with a timeout on the
// socket the kernel does not restart it, SA_RESTART or not (signal(7)).
func retry(call func() (int, error)) (n int, err error) {
	for {
		if n, err = call(); err != unix.EINTR {
			return n, err
		}
	}
}
