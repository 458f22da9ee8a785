package contract

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Server is a program that listens.
type Server struct {
	*Program
	Port int
	Host string // 127.0.0.1 if it is empty
}

// OwnHost returns an address of loopback that nobody else uses, for a server that cannot say which port it
// has.
func OwnHost() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// Serve starts a server on a free port and waits until it listens.
func Serve(t testing.TB, name string, args ...string) *Server {
	t.Helper()
	return Listening(t, Run(t, name, append([]string{"-i", "127.0.0.1", "-p", "0"}, args...)...))
}

// ServeAfter is [Serve] in a shell that does something else first, and then becomes the
// server.
func ServeAfter(t testing.TB, first, name string, args ...string) *Server {
	t.Helper()
	line := append([]string{first, "exec", Path(name), "-i", "127.0.0.1", "-p", "0"}, args...)
	return Listening(t, Start(t, exec.Command("/bin/sh", "-c", strings.Join(line, " "))))
}

// Listening waits until a program listens.
func Listening(t testing.TB, p *Program) *Server {
	t.Helper()
	s := &Server{Program: p}
	WaitFor(t, "it listens", func() bool {
		if p.HasEnded() {
			t.Fatal("it has ended")
		}
		_, after, _ := strings.Cut(p.Stdout.String(), "Listening on port ")
		n, err := fmt.Sscanf(after, "%d ...\n", &s.Port)
		return n == 1 && err == nil
	})
	return s
}

// Addr returns the server's address.
func (s *Server) Addr() string { return fmt.Sprintf("%s:%d", cmp.Or(s.Host, "127.0.0.1"), s.Port) }

// Connect returns a connection. It fails when it has to wait for too long.
func (s *Server) Connect() *net.TCPConn {
	s.T.Helper()
	conn, err := net.DialTimeout("tcp", s.Addr(), Patience)
	if err != nil {
		s.T.Fatal(err)
	}
	s.T.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(Patience))
	return conn.(*net.TCPConn)
}

// Send connects and sends a request.
func (s *Server) Send(request string) *net.TCPConn {
	s.T.Helper()
	conn := s.Connect()
	if _, err := io.WriteString(conn, request); err != nil {
		s.T.Fatal(err)
	}
	return conn
}

// Swallower returns the connection of a client that asks for 20,000,000 bytes, and reads
// nothing.
func (s *Server) Swallower() *net.TCPConn {
	s.T.Helper()
	conn := s.Connect()
	conn.SetReadBuffer(64 << 10)
	if _, err := io.WriteString(conn, "20000000\n"); err != nil {
		s.T.Fatal(err)
	}
	return conn
}

// Receive reads that many bytes of a reply.
func Receive(t testing.TB, conn net.Conn, count int) []byte {
	t.Helper()
	reply := make([]byte, count)
	if n, err := io.ReadFull(conn, reply); err != nil {
		t.Fatalf("%d of %d bytes: %v", n, count, err)
	}
	return reply
}

// Rest reads until the server closes.
func Rest(conn net.Conn) (count int64, err error) {
	count, err = io.Copy(io.Discard, conn)
	if errors.Is(err, unix.ECONNRESET) {
		err = nil // the server has closed without reading all that was sent
	}
	return count, err
}

// Ask sends a request, half-closes the connection, and requires a reply of that many bytes.
func (s *Server) Ask(request string, count int64) {
	s.T.Helper()
	conn := s.Send(request)
	defer conn.Close()
	if err := conn.CloseWrite(); err != nil {
		s.T.Fatal(err)
	}
	got, err := Rest(conn)
	if got != count || err != nil {
		s.T.Fatalf("request %.40q: %d bytes, error %v; want %d bytes", request, got, err, count)
	}
}

// Crowd makes connections: 15 children of the client make that many each.
func (s *Server) Crowd(each int) {
	s.T.Helper()
	c := Run(s.T, "client", "-i", "localhost", "-p", fmt.Sprint(s.Port), "-c", "15", "-t", fmt.Sprint(each), "-b", "4096")
	if status := c.Status(); status != 0 {
		s.T.Fatalf("client: status %d\n%s", status, &c.Stderr)
	}
	said := fmt.Sprintf("%d connections answered, 0 failed, 0 not made\n%d bytes in ", 15*each, 15*each*4096)
	if !c.Stdout.Has(said) {
		s.T.Fatalf("client: %s", &c.Stdout)
	}
}

// Free requires that the server's port is free.
func (s *Server) Free() {
	s.T.Helper()
	WaitFor(s.T, "the port is free", func() bool {
		l, err := net.Listen("tcp", s.Addr())
		if err != nil {
			return false
		}
		l.Close()
		return true
	})
}

// Pool waits until the server has that many children, and none of the old ones.
func (s *Server) Pool(size int, old []int) (children []int) {
	s.T.Helper()
	s.WaitFor(fmt.Sprintf("there are %d children", size), func() bool {
		children = s.Children()
		return len(children) == size &&
			!slices.ContainsFunc(children, func(pid int) bool { return slices.Contains(old, pid) })
	})
	return children
}

// Counts ends a server that counts its connections, and returns what it prints for each
// child or thread: what says which of them.
func (s *Server) Counts(what string) (counts []int) {
	s.T.Helper()
	s.Signal(unix.SIGINT)
	if status := s.Status(); status != 0 {
		s.T.Errorf("exit status %d", status)
	}
	lines := strings.Split(strings.TrimSuffix(s.Stdout.String(), "\n"), "\n")
	form := regexp.MustCompile("^" + what + ` (\d+) *: (\d+) times(?:, (\d+) switches)?$`)
	switches := 0
	want := []string{""}
	for _, line := range lines {
		match := form.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		count := Number(s.T, match[2])
		said := fmt.Sprintf("%s %-2d: %d times", what, len(counts), count)
		if match[3] != "" {
			said += fmt.Sprintf(", %s switches", match[3])
			switches += Number(s.T, match[3])
		}
		want = append(want, said)
		counts = append(counts, count)
	}
	if len(counts) == 0 {
		s.T.Fatalf("it does not count: %s", Tail(s.Stdout.String()))
	}
	sum, fewest, most := Sum(counts), slices.Min(counts), slices.Max(counts)
	mean := float64(sum) / float64(len(counts))
	want = append(want, "", fmt.Sprintf("%d connections; per %s: fewest %d, mean %.1f, most %d", sum, what, fewest, mean, most))
	// The context switches follow, where a server counts them.
	if last := lines[len(lines)-1]; strings.Contains(last, " context switches") {
		if switches > 0 && !strings.HasPrefix(last, fmt.Sprintf("%d context switches", switches)) {
			s.T.Errorf("%d switches add up to %s", switches, last)
		}
		want = append(want, last)
	}
	if got := lines[max(0, len(lines)-len(want)):]; !slices.Equal(got, want) {
		s.T.Errorf("it ends with\n%q\nwant\n%q", got, want)
	}
	return counts
}

// Sum returns the sum of all counts.
func Sum(counts []int) (sum int) {
	for _, count := range counts {
		sum += count
	}
	return sum
}
