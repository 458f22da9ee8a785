package contract

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// answer listens, and lets reply answer every request with its number, from 1.
func answer(t *testing.T, reply func(conn net.Conn, number int)) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	var requests atomic.Int64
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := conn.Read(make([]byte, 1024)); err == nil {
					reply(conn, int(requests.Add(1)))
				}
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func zeros(conn net.Conn, count int) { conn.Write(make([]byte, count)) }

var summary = regexp.MustCompile(`(?m)^(\d+) connections answered, (\d+) failed, (\d+) not made
(\d+) bytes in \d+\.\d{3} s, \d+ connections per second$`)

// summarized requires that the client's output ends with these figures.
func (p *program) summarized(answered, failed, notMade, bytes string) {
	p.t.Helper()
	got := summary.FindStringSubmatch(p.stdout.String())
	want := []string{answered, failed, notMade, bytes}
	for i, w := range want {
		if got == nil || w != "*" && got[1+i] != w {
			p.t.Errorf("the summary is not %v: %s", want, &p.stdout)
			return
		}
	}
	last := "(?m)^time of a connection: 50% within \\d+\\.\\d{3} ms, 99% within \\d+\\.\\d{3} ms, at most \\d+\\.\\d{3} ms\n\\z"
	if has := regexp.MustCompile(last).MatchString(p.stdout.String()); has != (got[1] != "0") {
		p.t.Errorf("times after the summary: %v: %s", has, &p.stdout)
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	s := serve(t, "server03")
	c := run(t, "client", "-i", "localhost", "-p", fmt.Sprint(s.port))
	if status := c.status(); status != 0 || c.stderr.String() != "" {
		t.Fatalf("status %d, standard error: %s", status, &c.stderr)
	}
	for index := range 5 {
		if !strings.Contains(c.stdout.String(), fmt.Sprintf("Child %d is done\n", index)) {
			t.Errorf("nothing of child %d: %s", index, &c.stdout)
		}
	}
	c.summarized("2500", "0", "0", "7500000")
	waitFor(t, "the server has logged 2500 requests", func() bool {
		return strings.Count(s.stdout.String(), "Got request to send 3000 bytes.") == 2500
	})
}

func TestClientOfNothing(t *testing.T) {
	t.Parallel()
	s := serve(t, "server03")
	c := run(t, "client", "-host", "127.0.0.1", "-port", fmt.Sprint(s.port), "-child-num", "2", "-con-num", "3", "-bytes", "0")
	if status := c.status(); status != 0 {
		t.Errorf("status %d, standard error: %s", status, &c.stderr)
	}
	c.summarized("6", "0", "0", "0")
}

func TestClientCommandLine(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"":                          "options -i and -p are required",
		"-i localhost":              "options -i and -p are required",
		"-p 2000":                   "options -i and -p are required",
		"-i localhost -p 0":         `invalid value "0" for flag -p: want a whole number from 1 to 65535`,
		"-i localhost -p 2000 -c 0": `invalid value "0" for flag -c: want a whole number from 1 to 1024`,
		"-i localhost -p 2000 -b x": `invalid value "x" for flag -b: want a whole number from 0 to 1073741824`,
		"-i localhost -p 2000 2":    `unexpected argument "2"`,
	} {
		c := run(t, "client", strings.Fields(args)...)
		status, said := c.status(), c.stderr.String()
		if status != 2 || !strings.HasPrefix(said, "client: "+want+"\nUsage: client [options]\n") {
			t.Errorf("client %s: status %d, %s", args, status, said)
		}
	}
	c := run(t, "client", "-i", "no.such.host.invalid", "-p", "2000")
	if status := c.status(); status != 1 || !strings.HasPrefix(c.stderr.String(), "client: lookup no.such.host.invalid") ||
		strings.Count(c.stderr.String(), "\n") != 1 {
		t.Errorf("an unknown host: status %d, %s", status, &c.stderr)
	}
}

func TestClientIsRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	c := run(t, "client", "-i", "localhost", "-p", port, "-c", "4", "-t", "10")
	if status := c.status(); status != 1 {
		t.Errorf("status %d", status)
	}
	for index := range 4 {
		want := fmt.Sprintf("child %d: connection 1: connect 127.0.0.1:%s: connection refused\n", index, port)
		if !strings.Contains(c.stderr.String(), want) {
			t.Errorf("not said: %s in: %s", want, &c.stderr)
		}
	}
	c.summarized("0", "4", "36", "0")
}

func TestClientReadsPieces(t *testing.T) {
	t.Parallel()
	port := answer(t, func(conn net.Conn, _ int) {
		conn.(*net.TCPConn).SetNoDelay(true)
		for range 100 {
			zeros(conn, 1)
		}
		zeros(conn, 200000)
	})
	c := run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "2", "-t", "5", "-b", "200100")
	if status := c.status(); status != 0 {
		t.Errorf("status %d, %s", status, &c.stderr)
	}
	c.summarized("10", "0", "0", "2001000")
}

func TestClientWithOneFailure(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		size int
		want string
	}{
		"short": {99, `child \d: connection \d+: read reply: it ended after 99 of 100 bytes`},
		"long":  {101, `child \d: connection \d+: read reply: there is more than the 100 bytes asked for`},
	} {
		port := answer(t, func(conn net.Conn, number int) {
			if number == 17 {
				zeros(conn, test.size)
			} else {
				zeros(conn, 100)
			}
		})
		c := run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "3", "-t", "20", "-b", "100")
		if status := c.status(); status != 1 {
			t.Errorf("%s reply: status %d", what, status)
		}
		if !regexp.MustCompile("^" + test.want + "\n$").MatchString(c.stderr.String()) {
			t.Errorf("%s reply: %s", what, &c.stderr)
		}
		if n := strings.Count(c.stdout.String(), " is done\n"); n != 2 {
			t.Errorf("%s reply: %d children are done", what, n)
		}
		c.summarized("*", "1", "*", "*")
	}
}

func TestClientWithKilledChild(t *testing.T) {
	t.Parallel()
	hold := make(chan bool)
	port := answer(t, func(conn net.Conn, number int) {
		<-hold
		zeros(conn, 3000)
	})
	c := run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "2", "-t", "1")
	var children []int
	waitFor(t, "there are two children", func() bool {
		children = c.children()
		return len(children) == 2
	})
	kill(t, unix.SIGKILL, children[0])
	waitFor(t, "the death is reported", func() bool {
		return regexp.MustCompile(`^child \d: was killed by SIGKILL\n$`).MatchString(c.stderr.String())
	})
	close(hold)
	if status := c.status(); status != 1 {
		t.Errorf("status %d", status)
	}
	c.summarized("1", "1", "0", "3000")
}

func TestClientIsInterrupted(t *testing.T) {
	t.Parallel()
	for sig, want := range map[unix.Signal]int{unix.SIGINT: 130, unix.SIGTERM: 143} {
		answered := make(chan bool, 100)
		port := answer(t, func(conn net.Conn, number int) {
			if number <= 10 {
				zeros(conn, 3000)
				return
			}
			answered <- true
			io.Copy(io.Discard, conn) // for ever
		})
		c := run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "3")
		for range 3 {
			<-answered // every child waits
		}
		kill(t, sig, -c.cmd.Process.Pid)
		if status := c.status(); status != want {
			t.Errorf("%v: status %d, want %d", sig, status, want)
		}
		c.gone()
		c.summarized("10", "0", "1490", "30000")
		if c.stderr.String() != "" {
			t.Errorf("%v: standard error: %s", sig, &c.stderr)
		}
	}
}

// terminal returns the two sides of a pseudoterminal (pty(7)).
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestClientShowsProgressOnATerminal(t *testing.T) {
	t.Parallel()
	master, slave := terminal(t)
	hold := make(chan bool)
	port := answer(t, func(conn net.Conn, number int) {
		if number > 10 {
			<-hold
		}
		zeros(conn, 3000)
	})
	var shown output
	go io.Copy(&shown, master)
	cmd := exec.Command(filepath.Join(bin, "client"), "-i", "127.0.0.1", "-p", port, "-c", "1", "-t", "20")
	cmd.Stdout, cmd.Stderr = slave, slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const progress = "\r\x1b[K10 of 20 connections"
	waitFor(t, "progress is shown twice", func() bool { return strings.Count(shown.String(), progress) >= 2 })
	close(hold)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	waitFor(t, "the line is cleared for the results", func() bool {
		_, after, _ := strings.Cut(shown.String(), progress+"\r\x1b[KChild 0 is done\r\n")
		return strings.Contains(after, "20 connections answered")
	})
}

func TestClientShowsNoProgressElsewhere(t *testing.T) {
	t.Parallel()
	port := answer(t, func(conn net.Conn, number int) {
		time.Sleep(1500 * time.Millisecond) // longer than progress is held back
		zeros(conn, 3000)
	})
	c := run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "1", "-t", "1")
	if status := c.status(); status != 0 || c.stderr.String() != "" {
		t.Errorf("status %d, standard error: %q", status, &c.stderr)
	}
}
