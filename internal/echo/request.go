// Package echo is the protocol that every program here speaks. The client sends a
// decimal number, and the server replies with that many random bytes.
//
// It has a blocking and a non-blocking form. [ReadRequest] and [SendReply] work on a
// blocking socket, and return when they are done. A [Conn] works on a non-blocking one. It
// does what can be done without waiting, and says what to wait for next; [Clients] is a
// table of them.
package echo

import (
	"bytes"
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

// ParseRequest returns the number of bytes that a request asks for. A request consists of
// ASCII digits, with white space around them.
func ParseRequest(request []byte) (count int64, err error) {
	digits := bytes.Trim(request, space)
	if len(digits) == 0 || len(request) > MaxRequest {
		return 0, badRequest(request)
	}
	for _, digit := range digits {
		if digit < '0' || digit > '9' {
			return 0, badRequest(request)
		}
		count = 10*count + int64(digit-'0')
		if count > MaxReply {
			return 0, badRequest(request)
		}
	}
	return count, nil
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

func badRequest(request []byte) error {
	const most = 40
	sent := strconv.Quote(string(request[:min(len(request), most)]))
	if len(request) > most {
		sent += "..."
	}
	if len(request) > MaxRequest {
		sent += fmt.Sprintf(" of more than %d bytes", MaxRequest)
	}
	return fmt.Errorf("bad request %s: want a decimal number of bytes from 0 to %d", sent, MaxReply)
}

// The other errors of both forms.

func unread(err error) error { return fmt.Errorf("read request: %w", err) }

func silent(timeout time.Duration) error { return fmt.Errorf("no request within %v", timeout) }

func unsent(total, left int64, err error) error {
	return fmt.Errorf("send reply: %d of %d bytes sent: %w", total-left, total, err)
}

func refused(total, left int64, timeout time.Duration) error {
	return fmt.Errorf("send reply: %d of %d bytes sent, none taken for %v", total-left, total, timeout)
}
