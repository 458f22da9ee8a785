// Package echo is the protocol that every program here speaks. The client sends
// a decimal number, the server replies with that many random bytes.
//
// It comes for both worlds. On a blocking socket [ReadRequest] and [SendReply]
// return when they are done. On a non-blocking one a [Conn] does what it can at
// once, and says what it has to wait for next.
package echo

import (
	"bytes"
	"fmt"
	"strconv"
)

const (
	// MaxReply is the most that a client may ask for, in bytes: 1 GiB.
	MaxReply = 1 << 30

	// MaxRequest is the size of the longest request, in bytes.
	MaxRequest = 1024

	space = " \t\n\v\f\r"
)

// ParseRequest returns the number of bytes that a request asks for: ASCII
// digits, with any white space around them. Anything else is an error.
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

func badRequest(request []byte) error {
	const most = 40
	what := strconv.Quote(string(request[:min(len(request), most)]))
	if len(request) > most {
		what += "..."
	}
	if len(request) > MaxRequest {
		what += fmt.Sprintf(" of more than %d bytes", MaxRequest)
	}
	return fmt.Errorf("bad request %s: want a decimal number of bytes from 0 to %d", what, MaxReply)
}
