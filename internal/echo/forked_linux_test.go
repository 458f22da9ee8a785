package echo

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A forked child and the others take the same requests.
func TestForkedParses(t *testing.T) {
	alphabet := []string{"", "0", "7", "41", "1073741824", "1073741825", "99999999999999999999", " ", "\t", "\n", "\r\n", "\v", "x", "-", "\x00", "1_0"}
	check := func(request string) {
		f := &Forked{size: int64(len(request)), count: -1}
		copy(f.request[:], request)
		f.parse()
		want, err := ParseRequest([]byte(request))
		if bad := f.count < 0; bad != (err != nil) || !bad && f.count != want {
			t.Fatalf("request %.40q: %d, want %d, %v", request, f.count, want, err)
		}
	}
	for _, a := range alphabet {
		for _, b := range alphabet {
			for _, c := range alphabet {
				for _, d := range alphabet {
					check(a + b + c + d)
				}
			}
		}
	}
	for size := MaxRequest - 2; size <= MaxRequest+1; size++ {
		for _, end := range []string{"", "\n", " ", "5"} {
			check(strings.Repeat(" ", size-1-len(end)) + "7" + end)
			check("7" + strings.Repeat(" ", size-1-len(end)) + end)
		}
	}
}

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
