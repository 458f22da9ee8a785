package contract

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var yours = flag.String("server", "", "check the server that this command starts, and not ours; {host}, {port} and {n} stand for where it listens, and for 10")

// A check is one that holds for any server of the protocol.
type check struct {
	name    string
	want    string // what is expected
	chapter string // which explains it
	do      func(s *Server) error
}

// reply sends a request, and reads that many bytes. It waits for no more.
func reply(s *Server, request string, count int) (got []byte, err error) {
	conn, err := net.DialTimeout("tcp", s.Addr(), Patience)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(Patience))
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, err
	}
	got = make([]byte, count)
	n, err := io.ReadFull(conn, got)
	if err != nil {
		return nil, fmt.Errorf("after %d of %d bytes: %w", n, count, err)
	}
	return got, nil
}

// answers requires that a client is answered.
func answers(s *Server) error {
	_, err := reply(s, "100\n", 100)
	return err
}

// during requires that a client is answered while another one does something.
func during(s *Server, request string) error {
	conn := s.Connect()
	defer conn.Close()
	conn.SetReadBuffer(64 << 10)
	if _, err := io.WriteString(conn, request); err != nil {
		return err
	}
	if request != "" {
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			return fmt.Errorf("the first one: %w", err)
		}
	}
	for range 5 {
		if err := answers(s); err != nil {
			return err
		}
	}
	return nil
}

// started waits until the number of children stays the same: the first of a pool answers before
// its parent is ready for a signal.
func started(s *Server) {
	for children := -1; children != len(s.Children()); time.Sleep(100 * time.Millisecond) {
		children = len(s.Children())
	}
}

var checks = []check{
	{"Reply", "as many bytes as were asked for", "README.md", func(s *Server) error {
		_, err := reply(s, "4096\n", 4096)
		return err
	}},
	{"NoNewline", "a reply also to a request without a newline, as the original's client sends it", "internal/echo/README.md", func(s *Server) error {
		_, err := reply(s, "4096", 4096)
		return err
	}},
	{"Exactly", "not one byte more than was asked for", "README.md", func(s *Server) error {
		conn := s.Send("100\n")
		defer conn.Close()
		conn.CloseWrite()
		if got, err := Rest(conn); got != 100 || err != nil {
			return fmt.Errorf("%d bytes until the end, and %v", got, err)
		}
		return nil
	}},
	{"Random", "other bytes for each client", "README.md", func(s *Server) error {
		first, err := reply(s, "1000\n", 1000)
		if err != nil {
			return err
		}
		second, err := reply(s, "1000\n", 1000)
		if err == nil && bytes.Equal(first, second) {
			return errors.New("the same bytes twice")
		}
		return err
	}},
	{"LongReply", "all of 10,000,000 bytes", "server01/README.md", func(s *Server) error {
		_, err := reply(s, "10000000\n", 10_000_000)
		return err
	}},
	{"Memory", "a long reply is made while it is sent, and is not in memory", "internal/echo/README.md", func(s *Server) error {
		if err := answers(s); err != nil {
			return err
		}
		before := s.Memory()
		conn := s.Send("200000000\n")
		defer conn.Close()
		if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
			return err
		}
		if more := (s.Memory() - before) >> 20; more > 50 {
			return fmt.Errorf("%d MiB more for a reply of 200 MB", more)
		}
		return nil
	}},
	{"SilentClient", "a client that sends nothing does not stop the others", "server01/README.md", func(s *Server) error { return during(s, "") }},
	{"SlowClient", "a client that does not read its reply does not stop the others", "server02/README.md", func(s *Server) error { return during(s, "20000000\n") }},
	{"BadRequest", "a bad request harms nobody but its client", "server03/README.md", func(s *Server) error {
		for i := range 20 {
			conn := s.Send("x\n")
			conn.CloseWrite()
			_, err := Rest(conn)
			conn.Close()
			if err != nil {
				return fmt.Errorf("after bad request %d: %w", i+1, err)
			}
		}
		return answers(s)
	}},
	{"ClientGone", "a client that goes away in the middle of its reply harms nobody", "server03/README.md", func(s *Server) error {
		for range 20 {
			conn := s.Send("20000000\n")
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				return err
			}
			conn.SetLinger(0)
			conn.Close()
		}
		return answers(s)
	}},
	{"MoreThanTheRequest", "what a client sends beyond its request does not cost it its reply", "internal/sock/README.md", func(s *Server) error {
		for range 20 {
			conn := s.Send("300000\n")
			io.WriteString(conn, strings.Repeat(" ", 5000))
			n, err := io.ReadFull(conn, make([]byte, 300_000))
			conn.Close()
			if err != nil {
				return fmt.Errorf("after %d of 300000 bytes: %w", n, err)
			}
		}
		return nil
	}},
	{"Thousands", "4,000 connections, one after the other, are answered", "server03a/README.md", func(s *Server) error {
		for i := range 4000 {
			if err := answers(s); err != nil {
				return fmt.Errorf("connection %d: %w", i+1, err)
			}
		}
		return nil
	}},
	{"Crowd", "100 clients at a time, with 20 connections each, are answered", "server03/README.md", func(s *Server) error {
		var clients sync.WaitGroup
		errs := make([]error, 100)
		for i := range errs {
			clients.Go(func() {
				for range 20 {
					if errs[i] = answers(s); errs[i] != nil {
						break
					}
				}
			})
		}
		clients.Wait()
		err, _, _ := strings.Cut(fmt.Sprint(errors.Join(errs...)), "\n")
		if err != "<nil>" {
			return errors.New(err)
		}
		return nil
	}},
	{"Backlog", "a backlog of 100 or more", "internal/sock/README.md", func(s *Server) error {
		out, err := exec.Command("ss", "-Hltn", fmt.Sprintf("sport = :%d", s.Port)).Output()
		if err != nil {
			return nil // without ss nobody knows
		}
		var state string
		var queued, most int
		if fmt.Sscan(string(out), &state, &queued, &most); most < 100 {
			return fmt.Errorf("a backlog of %d", most)
		}
		return nil
	}},
	{"ChildKilled", "when a child is killed, clients are answered as before", "server04/README.md", func(s *Server) error {
		if err := answers(s); err != nil {
			return err
		}
		for _, child := range s.Children() {
			unix.Kill(child, unix.SIGKILL)
			break
		}
		for i := range 50 {
			if err := answers(s); err != nil && i > 0 { // the first one may have been in that child's hands
				return err
			}
		}
		if s.HasEnded() {
			return errors.New("the server has ended")
		}
		return nil
	}},
	{"Zombies", "children that have ended are reaped", "server01/README.md", func(s *Server) error {
		for range 50 {
			if err := answers(s); err != nil {
				return err
			}
		}
		for deadline := time.Now().Add(Patience); ; time.Sleep(10 * time.Millisecond) {
			left := len(s.Children())
			for _, running := range s.Tree() {
				if running.Parent == s.PID {
					left--
				}
			}
			if left <= 1 { // one may be left until the next client
				return nil
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("%d children that have ended are left", left)
			}
		}
	}},
	{"End", "after SIGINT it ends with status 0, and leaves no process", "server03/README.md", func(s *Server) error {
		if err := answers(s); err != nil {
			return err
		}
		started(s)
		s.Signal(unix.SIGINT)
		select {
		case <-s.Ended:
		case <-time.After(Patience):
			return errors.New("it does not end")
		}
		if !s.Cmd.ProcessState.Success() {
			return errors.New(s.Cmd.ProcessState.String())
		}
		for deadline := time.Now().Add(Patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			if len(s.Tree()) == 0 {
				return nil
			}
		}
		return fmt.Errorf("%d processes are left", len(s.Tree()))
	}},
	{"ReplyAtTheEnd", "a reply that is under way when SIGINT comes is finished", "server03/README.md", func(s *Server) error {
		conn := s.Swallower()
		defer conn.Close()
		if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
			return err
		}
		started(s)
		s.Signal(unix.SIGINT)
		n, err := io.ReadFull(conn, make([]byte, 20_000_000-1000))
		if err != nil {
			return fmt.Errorf("after %d of 20000000 bytes: %w", n+1000, err)
		}
		return nil
	}},
}

// needOurs are checks that need what only our servers have.
var needOurs = []struct{ name, reason string }{
	{"Timeout", "how long a client may be silent is the option -timeout of our servers"},
	{"SecondSignal", "only our servers say that a second SIGINT ends them with status 130"},
}

// startYours starts the server of -server, and waits until it can be reached.
func startYours(t *testing.T) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	values := strings.NewReplacer("{host}", "127.0.0.1", "{port}", fmt.Sprint(port), "{n}", "10")
	cmd := exec.Command("/bin/sh", "-c", "exec "+values.Replace(*yours))
	cmd.Dir = Root()
	s := &Server{Program: Start(t, cmd), Port: port}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if s.HasEnded() {
			t.Fatalf("expected: it listens on port %d\ncame: it has ended: %s%s", port, &s.Stdout, &s.Stderr)
		}
		err := answers(s)
		if err == nil {
			return s
		}
		most := Patience
		if errors.Is(err, unix.ECONNREFUSED) {
			most = time.Minute // on a busy machine an interpreter starts slowly
		}
		if time.Since(begin) > most {
			t.Fatalf("expected: it listens on port %d, and answers\ncame: nothing within %v", port, most)
		}
	}
}

// TestYourServer checks any server of the protocol, in any language:
//
//	go test ./test/contract -server 'python3 my.py -i {host} -p {port}'
func TestYourServer(t *testing.T) {
	if *yours == "" {
		t.Skip("-server says how to start it")
	}
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			if err := c.do(startYours(t)); err != nil {
				t.Errorf("expected: %s\ncame: %v\nsee: %s", c.want, err, c.chapter)
			}
		})
	}
	for _, n := range needOurs {
		t.Run(n.name, func(t *testing.T) { t.Skip(n.reason) })
	}
}

// The checks find what is wrong with a server that is not ours.
func TestCommand(t *testing.T) {
	t.Parallel()
	Needs(t, "python3")
	for command, want := range map[string][]string{
		Path("server03a") + " -q -i {host} -p {port}": {"--- PASS: TestYourServer/Reply ", "--- PASS: TestYourServer/BadRequest ", "--- SKIP: TestYourServer/Timeout "},
		"python3 compare/peers/peer.py prefork {host} {port} {n}": {"--- PASS: TestYourServer/Reply ", "--- FAIL: TestYourServer/BadRequest ",
			"expected: a bad request harms nobody but its client\n", "see: server03/README.md\n"},
		"sh -c 'echo no luck; exit 3'": {"--- FAIL: TestYourServer/Reply ", "came: it has ended: no luck\n"},
	} {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.v", "-test.run=^TestYourServer$/^(Reply|BadRequest|Timeout)$", "-server", command)
		out, _ := cmd.CombinedOutput()
		for _, want := range want {
			if !strings.Contains(string(out), want) {
				t.Errorf("-server '%s' does not say %q:\n%s", command, want, out)
			}
		}
	}
}
