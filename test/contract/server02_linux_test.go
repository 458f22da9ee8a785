package contract

import (
	"net"
	"testing"
)

// There are more clients than select can wait for. The last ones wait in the backlog, and
// are served when others close.
func TestMoreClientsThanASetHolds(t *testing.T) {
	s := Serve(t, "server02")
	var idle []net.Conn
	for range 1100 {
		idle = append(idle, s.Connect())
	}
	last := s.Send("5\n")
	s.WaitFor("the limit is reached", func() bool {
		return s.Stderr.Has("server02: accept: too many open files")
	})
	for _, conn := range idle[:200] {
		conn.Close()
	}
	Receive(t, last, 5)
	idle[500].Write([]byte("7\n")) // one of the first is still served, too
	Receive(t, idle[500], 7)
}
