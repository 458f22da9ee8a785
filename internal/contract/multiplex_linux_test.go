package contract

import (
	"net"
	"strings"
	"testing"
)

// More clients than select can wait for: the last ones wait in the backlog, and are
// served when others leave.
func TestMoreClientsThanASetHolds(t *testing.T) {
	s := serve(t, "server02")
	var idle []net.Conn
	for range 1100 {
		idle = append(idle, s.connect())
	}
	last := s.send("5\n")
	waitFor(t, "the limit is reached", func() bool {
		return strings.HasPrefix(s.stderr.String(), "server02: accept: too many open files: new clients wait\n")
	})
	for _, conn := range idle[:200] {
		conn.Close()
	}
	receive(t, last, 5)
	idle[500].Write([]byte("7\n")) // one of the first is still served, too
	receive(t, idle[500], 7)
}
