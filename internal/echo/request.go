// Package echo is the protocol that every program here speaks: the client sends a decimal
// number, and the server replies with that many random bytes.
//
// A server whose calls block calls [ReadRequest] and [SendReply]. A server that waits for many
// clients at once makes its own calls, and keeps a [Client] for each: the client says whether to
// read or to write next, and is told what the call has returned. [Table] is a table of them.
package echo

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

const (
	// MaxReply is the most bytes that a client may ask for: 1 GiB.
	MaxReply = 1 << 30

	// MaxRequest is the most bytes that a request may have. A server reads one byte more, to
	// see that a request is too long.
	MaxRequest = 1024

	space = " \t\n\v\f\r"
)

var errNoRequest = errors.New("closed without a request")

// ParseRequest returns the number of bytes that the first request in data asks for. A request
// is a line of ASCII digits, with white space around them. data is what one call of read(2)
// has returned. The newline may be missing, because the original's client sends none; then
// the request ends where the data end.
func ParseRequest(data []byte) (count int64, err error) {
	size, count, _ := Parse(data)
	switch {
	case len(data) == 0:
		return 0, errNoRequest
	case count < 0:
		return 0, badRequest(data[:size])
	}
	return count, nil
}

// Parse returns the size of the first request in data, the number in it (-1 for a bad
// request), and whether it ends with a newline.
//
// A forked child must not call the Go runtime (see server01a), so Parse checks no stack
// (nosplit) and does not report to the race detector (norace).
//
//go:nosplit
//go:norace
func Parse(data []byte) (size int, count int64, ended bool) {
	for size < len(data) && isSpace(data[size]) {
		size++
	}
	digits := size
	for ; size < len(data) && '0' <= data[size] && data[size] <= '9' && count <= MaxReply; size++ {
		count = 10*count + int64(data[size]-'0')
	}
	bad := size == digits || count > MaxReply
	for ; size < len(data) && data[size] != '\n'; size++ {
		bad = bad || !isSpace(data[size])
	}
	if ended = size < len(data); ended {
		size++
	}
	if bad || size > MaxRequest {
		count = -1
	}
	return size, count, ended
}

//go:nosplit
//go:norace
func isSpace(c byte) bool { return c == ' ' || '\t' <= c && c <= '\r' }

func badRequest(request []byte) error {
	const most = 40
	more := ""
	if len(request) > most {
		more = fmt.Sprintf("... of %d bytes or more", len(request))
	}
	text := string(request) // a copy: the request itself stays on the stack
	return fmt.Errorf("bad request %.*q%s: want a decimal number of bytes from 0 to %d", most, text, more, MaxReply)
}

// ReadError explains why no request could be read. EAGAIN means that the client was silent
// for as long as [sock.Timeout].
func ReadError(err error) error {
	if err == unix.EAGAIN {
		return fmt.Errorf("no request within %v", sock.Timeout)
	}
	return fmt.Errorf("read request: %w", err)
}
