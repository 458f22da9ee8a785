// Package echo is the protocol that every program here speaks. The client sends a
// decimal number, and the server replies with that many random bytes.
//
// It has the forms that the designs need. [ReadRequest] and [SendReply] work on a blocking
// socket, and return when they are done; [ReadRequestFrom] and [SendReplyTo] do the same on a
// connection of package net. A [Conn] works on a non-blocking socket. It does what can be done
// without waiting, and says what to wait for next; or the kernel makes its calls, and it is
// told what they have returned. [Clients] is a table of them. On Linux, Forked is for a forked
// child, which must stay away from the Go runtime.
package echo

import (
	"errors"
	"fmt"
	"time"
)

const (
	// MaxReply is the most bytes that a client may ask for: 1 GiB.
	MaxReply = 1 << 30

	// MaxRequest is the most bytes that a request may have.
	MaxRequest = 1024

	space = " \t\n\v\f\r"
)

// ParseRequest returns the number of bytes that the first request in data asks for. A request
// is a line that consists of ASCII digits, with white space around them.
func ParseRequest(data []byte) (count int64, err error) {
	size, count, _ := parse(data)
	if count < 0 {
		return 0, badRequest(data[:size])
	}
	return count, nil
}

// parse returns the size of the first request in data and the number in it, -1 for a bad
// request. A request ends with the first newline after its digits, or else with the data.
//
// parse is nosplit and norace for forked children, see Forked.
//
//go:nosplit
//go:norace
func parse(data []byte) (size int, count int64, ended bool) {
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
	return fmt.Errorf("bad request %.*q%s: want a decimal number of bytes from 0 to %d", most, request, more, MaxReply)
}

// Other errors of both forms.

var errNoRequest = errors.New("closed without a request")

func unread(err error) error { return fmt.Errorf("read request: %w", cause(err)) }

func silent(timeout time.Duration) error { return fmt.Errorf("no request within %v", timeout) }
