package contract

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The clients of these tests mistreat the server.

func TestBadRequests(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name, d.few()...)
		for _, request := range []string{
			" \n", "abc\n", "12a", "-1\n", "+1\n", "1.5", "1073741825\n", "99999999999999999999999",
			"1 2\n", "1\x00", "\x00\x00", strings.Repeat("1", 1025), strings.Repeat(" ", 1024) + "1",
		} {
			before := len(s.Stderr.String())
			quoted := strings.TrimSuffix(fmt.Sprintf("%q", request[:min(len(request), 40)]), `"`)
			for range few + 1 { // more than there are children
				conn := s.Send(request)
				if got, err := Rest(conn); got != 0 || err != nil {
					t.Fatalf("bad request %.20q: %d bytes, error %v", request, got, err)
				}
				said := fmt.Sprintf("%s: %v: bad request %s", d.name, conn.LocalAddr(), quoted)
				WaitFor(t, said, func() bool { return strings.Contains(s.Stderr.String()[before:], said) })
				conn.Close()
			}
			s.Ask("5\n", 5)
			said := s.Stderr.String()[before:]
			if strings.Count(said, "\n") != few+1 || strings.Count(said, "from 0 to 1073741824\n") != few+1 {
				t.Fatalf("bad request %.20q each time: %s", request, Tail(said))
			}
		}
	})
}

func TestResets(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		for range 20 {
			conn := s.Connect()
			conn.SetLinger(0)
			conn.Close()
		}
		for range 20 {
			conn := s.Send("20000000")
			Receive(t, conn, 100000)
			conn.SetLinger(0)
			conn.Close()
		}
		s.WaitFor("20 resets are reported", func() bool { return s.Stderr.Count("of 20000000 bytes") == 20 })
		s.Ask("5\n", 5)
		if d.pool > 0 && s.Stderr.Has("child ") {
			t.Errorf("a child has died: %s", &s.Stderr)
		}
	})
}

// many is more clients than there are children in a pool.
func (d design) many() int {
	if d.alone {
		return 3
	}
	return 25
}

func TestSilentClients(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-timeout", "1s")
		for range d.many() {
			s.Connect()
		}
		s.Ask("5\n", 5)
		s.WaitFor("all are reported", func() bool { return s.Stderr.Count(" within 1s\n") == d.many() })
	})
}

func TestClientsThatDoNotRead(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		swallowers := 5 // fewer than there are children
		if d.alone {
			swallowers = 0
		}
		for i := range swallowers {
			s.Swallower()
			s.WaitFor("the request is logged", func() bool { return s.Stdout.Count(" 20000000 bytes") == i+1 })
		}
		// The server gives a swallower up after 30 s. A good client does not wait for that.
		s.Ask("4096\n", 4096)
		if s.Stderr.String() != "" {
			t.Errorf("a good client was answered after %s", &s.Stderr)
		}
	})
}

func TestClientsThatNeverRead(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-timeout", "1s")
		for range d.many() {
			s.Swallower()
		}
		s.Ask("5\n", 5)
		s.WaitFor("all are reported", func() bool {
			return s.Stderr.Count("of 20000000 bytes") == d.many() && s.Stderr.Count("for 1s\n") == d.many()
		})
	})
}

// A client that reads slowly, but steadily, gets its whole reply.
func TestSlowClient(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-timeout", "2s")
		conn := s.Connect()
		conn.SetReadBuffer(16 << 10)
		const size = 600_000 + 4<<20
		fmt.Fprintf(conn, "%d\n", size)
		buf := make([]byte, 12_000)
		begin := time.Now()
		got := 0
		for time.Since(begin) < 5*time.Second {
			n, err := io.ReadFull(conn, buf)
			got += n
			if err != nil {
				t.Fatalf("after %v and %d bytes: %v; %s", time.Since(begin), got, err, &s.Stderr)
			}
			time.Sleep(100 * time.Millisecond)
		}
		conn.CloseWrite()
		if n, err := Rest(conn); got+int(n) != size || err != nil {
			t.Errorf("%d bytes, error %v; %s", got+int(n), err, &s.Stderr)
		}
	})
}

// A client sends more than its request, early or late. It gets its whole reply, and no reset.
func TestMoreThanTheRequest(t *testing.T) {
	const size = 1_000_000
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		for _, more := range []string{"\n", "5\n", strings.Repeat("x", 100_000)} {
			// At once.
			conn := s.Send(fmt.Sprintf("%d\n%s", size, more))
			want := int64(size)
			if d.keeps && more == "5\n" {
				want += 5
			}
			conn.CloseWrite()
			if got, err := io.Copy(io.Discard, conn); got != want || err != nil {
				t.Errorf("%.5q at once: %d bytes, error %v; want %d bytes", more, got, err, want)
			}
			// When the server has done what it can.
			conn = s.Connect()
			conn.SetReadBuffer(16 << 10)
			fmt.Fprint(conn, size)
			Receive(t, conn, 1)
			if !d.keeps {
				s.WaitFor("the server has shut down its side, or waits in write", func() bool {
					return s.State(conn) == "FIN_WAIT1" ||
						slices.ContainsFunc(s.Tree(), func(p Process) bool { return Calls(t, p.PID, unix.SYS_WRITE) })
				})
			}
			if _, err := io.WriteString(conn, more); err != nil {
				t.Fatal(err)
			}
			conn.CloseWrite()
			if got, err := io.Copy(io.Discard, conn); got != want-1 || err != nil {
				t.Errorf("%.5q late: %d bytes more, error %v; want %d", more, got, err, want-1)
			}
		}
		s.Ask("5\n", 5)
	})
}

// An urgent byte (send(2), MSG_OOB) is something to read, too.
func TestUrgentByte(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		for _, size := range []int{1000, 1_000_000} {
			conn := s.Connect()
			raw, err := conn.SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			send := func(data string, flags int) {
				if err := raw.Control(func(fd uintptr) { err = unix.Send(int(fd), []byte(data), flags) }); err != nil {
					t.Fatal(err)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			send(fmt.Sprintf("%d\n", size), unix.MSG_MORE)
			send("!", unix.MSG_OOB)
			conn.CloseWrite()
			if got, err := io.Copy(io.Discard, conn); got != int64(size) || err != nil {
				t.Errorf("%d of %d bytes, error %v", got, size, err)
			}
		}
	})
}

// The log names a client that has reset the connection.
func TestResetAfterRubbish(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		settled(s, d)
		pids := append(s.Children(), s.PID)
		Stop(t, pids...) // the server sees the connection when it has been reset
		var addrs []string
		for range 20 {
			conn := s.Send("rubbish\n")
			addrs = append(addrs, conn.LocalAddr().String())
			conn.SetLinger(0)
			conn.Close()
		}
		Kill(t, unix.SIGCONT, pids...)
		s.Ask("5\n", 5)
		for _, addr := range addrs {
			// accept may not return a connection that was reset.
			if lines := s.Stderr.Count(addr + ": "); lines > 1 {
				t.Errorf("%d lines for %s", lines, addr)
			}
		}
		if n := s.Stderr.Count("\n"); n > s.Stderr.Count(d.name+": 127.0.0.1:") {
			t.Errorf("a client without a name: %s", &s.Stderr)
		}
	})
}

// A bad request after a good one, and a lot more, do not cost the client its reply.
func TestBadRequestAfterAReply(t *testing.T) {
	each(t, keeps, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		conn := s.Send("1000000\nx" + strings.Repeat("y", 100_000))
		if got, err := io.Copy(io.Discard, conn); got != 1_000_000 || err != nil {
			t.Errorf("%d bytes, error %v", got, err)
		}
		s.WaitFor("the bad request is reported", func() bool { return s.Stderr.Has("bad request \"xyyy") })
	})
}

func TestClientsThatSayNothing(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		conn := s.Connect()
		conn.Close()
		said := fmt.Sprintf("%s: %v: closed without a request\n", d.name, conn.LocalAddr())
		s.WaitFor(said, func() bool { return s.Stderr.Has(said) })
	})
}

// A client sends its request in time, but the server, which was stopped, reads it late.
func TestLateServer(t *testing.T) {
	each(t, keeps, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-timeout", "5s")
		settled(s, d)
		pids := append(s.Children(), s.PID)
		conn := s.Send("1\n")
		Receive(t, conn, 1)
		Kill(t, unix.SIGSTOP, pids...)
		begin := time.Now()
		io.WriteString(conn, "100\n")
		WaitFor(t, "-timeout has passed", func() bool { return time.Since(begin) > 5*time.Second })
		Kill(t, unix.SIGCONT, pids...)
		Receive(t, conn, 100)
	})
}

// A client takes what is in the socket while the server is stopped for longer than -timeout. It
// gets the rest when the server goes on.
func TestStoppedServer(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-timeout", "8s")
		settled(s, d)
		const size = 8_000_000
		conns := []*net.TCPConn{s.Send(fmt.Sprint(size))}
		for !d.alone && len(conns) < 3 {
			conns = append(conns, s.Send(fmt.Sprint(size)))
		}
		for _, conn := range conns {
			Receive(t, conn, 1000)
		}
		pids := append(s.Children(), s.PID)
		Stop(t, pids...)
		begin := time.Now()
		var took, rest [3]int64
		var errs [3]error
		var clients sync.WaitGroup
		for i, conn := range conns {
			clients.Go(func() {
				conn.SetReadDeadline(begin.Add(9 * time.Second))
				took[i], _ = io.Copy(io.Discard, conn)
				conn.SetReadDeadline(begin.Add(Patience))
				rest[i], errs[i] = io.CopyN(io.Discard, conn, size-1000-took[i])
				conn.Close()
			})
		}
		WaitFor(t, "-timeout has passed", func() bool { return time.Since(begin) > 9*time.Second })
		Kill(t, unix.SIGCONT, pids...)
		clients.Wait()
		for i := range conns {
			if errs[i] != nil {
				t.Errorf("client %d took %d bytes, then %d: %v", i, took[i], rest[i], errs[i])
			}
		}
		if s.Stderr.String() != "" {
			t.Errorf("standard error: %s", &s.Stderr)
		}
	})
}

// At the limit of descriptors a server says nothing while no client waits.
func TestQuietAtTheLimit(t *testing.T) {
	each(t, keeps, func(t *testing.T, d design) {
		s := ServeAfter(t, "ulimit -n 40;", d.name, append([]string{"-timeout", "0"}, map[bool][]string{true: {"-n", "1"}}[d.pool > 0]...)...)
		var conns []*net.TCPConn
		for s.Stderr.String() == "" {
			conn := s.Send("1")
			conns = append(conns, conn)
			s.WaitFor("it is answered, or told to wait", func() bool {
				conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				n, err := conn.Read(make([]byte, 1))
				return n == 1 || err == nil || s.Stderr.String() != ""
			})
		}
		conns[len(conns)-1].Close()
		begin, before := time.Now(), s.Stderr.Count("\n")
		WaitFor(t, "some seconds", func() bool { return time.Since(begin) > 3*time.Second })
		// The one that waited may be accepted, and another one may be tried for.
		if n := s.Stderr.Count("\n") - before; n > 4 {
			t.Errorf("%d lines: %s", n, Tail(s.Stderr.String()))
		}
	})
}

// hasEpoll reports whether the server has a descriptor of an epoll (proc(5)).
func hasEpoll(s *Server) bool {
	s.T.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.PID))
	if err != nil {
		s.T.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		to, err := os.Readlink(file)
		return err == nil && to == "anon_inode:[eventpoll]"
	})
}

func TestDescriptorLimit(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := ServeAfter(t, "ulimit -n 64;", d.name)
		if !hasEpoll(s) {
			t.Error("the Go runtime has still to create its epoll, and will die if it cannot")
		}
		var silent []net.Conn
		for range 100 {
			silent = append(silent, s.Connect())
		}
		s.Sleeps()
		for _, conn := range silent {
			conn.Close()
		}
		s.Ask("5\n", 5)
		s.Crowd(d.crowd)
		s.Signal(unix.SIGTERM)
		if status := s.Status(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	})
}
