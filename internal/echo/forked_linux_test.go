package echo

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// What a forked child reports is what the other forms say.
func TestForkedErrors(t *testing.T) {
	for want, f := range map[string]*Forked{
		"no request within 2s":                        {timeout: 2e9, size: -1, count: -1, errno: unix.EAGAIN},
		"read request: connection reset by peer":      {size: -1, count: -1, errno: unix.ECONNRESET},
		"closed without a request":                    {count: -1},
		"send reply: 3 of 9 bytes taken: none for 2s": {timeout: 2e9, size: 1, count: 9, taken: 3},
		"send reply: 3 of 9 bytes taken: broken pipe": {size: 1, count: 9, taken: 3, errno: unix.EPIPE},
	} {
		if got := f.Err(); fmt.Sprint(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
