package contract

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

func TestReplies(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		for _, size := range []int64{0, 1, 4096, 65537, 1048577} {
			// The client half-closes; nothing comes after the reply.
			s.Ask(fmt.Sprint(size), size)
			// The client waits until the server closes, or closes itself.
			conn := s.Send(fmt.Sprintf("%d\n", size))
			Receive(t, conn, int(size))
			if !d.keeps {
				if more, err := Rest(conn); more != 0 || err != nil {
					t.Errorf("%d bytes more than asked for, error %v", more, err)
				}
			}
			conn.Close()
			s.WaitFor("both requests are logged", func() bool {
				return s.Stdout.Count(fmt.Sprintf("Got request to send %d bytes. Sending them all...\n", size)) == 2
			})
		}
		if s.Stderr.String() != "" {
			t.Errorf("standard error: %s", &s.Stderr)
		}
	})
}

func TestRepliesAreRandom(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-timeout", "0")
		var replies [2][]byte
		for i := range replies {
			replies[i] = Receive(t, s.Send("100000"), 100000)
			values := make(map[byte]bool)
			for _, b := range replies[i] {
				values[b] = true
			}
			if len(values) < 250 {
				t.Errorf("a reply has only %d values of a byte", len(values))
			}
		}
		if bytes.Equal(replies[0], replies[1]) {
			t.Error("two replies are equal")
		}
	})
}

func TestCrowd(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		s.Crowd(d.crowd)
		if s.Stderr.String() != "" {
			t.Errorf("standard error: %s", &s.Stderr)
		}
	})
}

func TestRequests(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		for _, request := range []string{
			"9", "9\n", "9\r\n", " 9", "9 ", "\t 9 \v\f\r\n", "\n9", "009", "9" + strings.Repeat(" ", 1023),
		} {
			s.Ask(request, 9)
			// And without the end of input.
			conn := s.Send(request)
			Receive(t, conn, 9)
			conn.Close()
		}
	})
}

func TestKeepsConnections(t *testing.T) {
	each(t, keeps, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		conn := s.Connect()
		for _, size := range []int{1, 100000, 4096} {
			fmt.Fprintf(conn, "%d", size)
			Receive(t, conn, size)
		}
		// Two requests in segments of their own, which may well arrive as one.
		fmt.Fprintf(conn, "1000\n")
		fmt.Fprintf(conn, "200000\n")
		Receive(t, conn, 201000)
		// More than a request may be long.
		fmt.Fprint(conn, strings.Repeat("300\n", 1000))
		conn.CloseWrite()
		if got, err := Rest(conn); got != 300000 || err != nil {
			t.Errorf("%d bytes, error %v; want 300000", got, err)
		}
		if s.Stderr.String() != "" {
			t.Errorf("standard error: %s", &s.Stderr)
		}
	})
}

func TestLongReply(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		s.Crowd(d.crowd) // a process that needs memory has it now
		before := s.Memory()
		const size = 128 << 20
		conn := s.Send(fmt.Sprint(size))
		buf := make([]byte, 1<<20)
		most := 0
		for got := 0; got < size; {
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatalf("after %d bytes: %v", got, err)
			}
			if (got+n)>>24 > got>>24 { // every 16 MiB
				most = max(most, s.Memory())
			}
			got += n
		}
		if grown := most - before; most == 0 || !race && grown >= 16<<20 {
			t.Errorf("memory grew by %d KiB from %d KiB", grown>>10, before>>10)
		}
	})
}

func TestIPv6(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Listening(t, Run(t, d.name, "-i", "::1", "-p", "0"))
		c := Run(t, "client", "-i", "::1", "-p", fmt.Sprint(s.Port), "-c", "2", "-t", "5")
		if status := c.Status(); status != 0 {
			t.Errorf("client: status %d, %s", status, &c.Stderr)
		}
	})
}

// An address of a link has a zone: the interface.
func TestIPv6Zone(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		p := Sandbox(t, `
			ip link add d0 type veth peer name d1
			ip link set d0 up; ip link set d1 up
			ip -6 addr add fe80::1234/64 dev d0 nodad
			$BIN/`+d.name+` -i fe80::1234%d0 -p 2000 & server=$!
			until $BIN/client -i fe80::1234%d0 -p 2000 -c 1 -t 1 2>/dev/null; do kill -0 $server; done
			$BIN/client -i fe80::1234%d0 -p 2000 -c 2 -t 5
			kill $server; wait $server`)
		if status := p.Status(); status != 0 || !p.Stdout.Has("10 connections answered, 0 failed, 0 not made\n") {
			t.Errorf("status %d, %s, %s", status, &p.Stdout, &p.Stderr)
		}
	})
}

// A server that listens on an IPv4 address does not listen on IPv6.
func TestIPv4Only(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Listening(t, Run(t, d.name, "-i", "0.0.0.0", "-p", "0"))
		s.Ask("5\n", 5)
		if !refuses(fmt.Sprintf("[::1]:%d", s.Port)) {
			t.Error("it listens on [::1]")
		}
	})
}

// A server serves on when its standard output is closed.
func TestClosedOutput(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		Start(t, exec.Command("/bin/sh", "-c", fmt.Sprintf("exec %s -i 127.0.0.2 -p %d >&-", Path(d.name), s.Port)))
		addr := fmt.Sprintf("127.0.0.2:%d", s.Port)
		WaitFor(t, "it listens", func() bool { return !refuses(addr) })
		c := Run(t, "client", "-i", "127.0.0.2", "-p", fmt.Sprint(s.Port), "-c", "15", "-t", "5")
		if status := c.Status(); status != 0 {
			t.Errorf("client: status %d, %s", status, &c.Stderr)
		}
	})
}
