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
	"bytes"
	"errors"
	"fmt"
	"strconv"
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
	request, _, _ := cut(data)
	n, err := strconv.ParseUint(string(bytes.Trim(request, space)), 10, 63)
	if err != nil || n > MaxReply || len(request) > MaxRequest {
		return 0, badRequest(request)
	}
	return int64(n), nil
}

func badRequest(request []byte) error {
	const most = 40
	more := ""
	if len(request) > most {
		more = fmt.Sprintf("... of %d bytes or more", len(request))
	}
	return fmt.Errorf("bad request %.*q%s: want a decimal number of bytes from 0 to %d", most, request, more, MaxReply)
}

// cut cuts the first request off what a client has sent. It ends with the first newline
// after its digits, or else with the data.
func cut(data []byte) (request, rest []byte, ended bool) {
	start := len(data) - len(bytes.TrimLeft(data, space))
	end := bytes.IndexByte(data[start:], '\n')
	if end < 0 {
		return data, nil, false
	}
	end += start + 1
	return data[:end], bytes.TrimLeft(data[end:], space), true
}

// Other errors of both forms.

var errNoRequest = errors.New("closed without a request")

func unread(err error) error { return fmt.Errorf("read request: %w", cause(err)) }

func silent(timeout time.Duration) error { return fmt.Errorf("no request within %v", timeout) }
