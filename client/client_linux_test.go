package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"csdesign/test/contract"
)

func TestMain(m *testing.M) { contract.Main(m, "client", "server03") }

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
func summarized(p *contract.Program, answered, failed, notMade, bytes string) {
	p.T.Helper()
	got := summary.FindStringSubmatch(p.Stdout.String())
	want := []string{answered, failed, notMade, bytes}
	for i, w := range want {
		if got == nil || w != "*" && got[1+i] != w {
			p.T.Errorf("the summary is not %v: %s", want, &p.Stdout)
			return
		}
	}
	last := "(?m)^time of a connection: 50% within \\d+\\.\\d{3} ms, 99% within \\d+\\.\\d{3} ms, at most \\d+\\.\\d{3} ms\n\\z"
	if has := regexp.MustCompile(last).MatchString(p.Stdout.String()); has != (got[1] != "0") {
		p.T.Errorf("times after the summary: %v: %s", has, &p.Stdout)
	}
	if match := regexp.MustCompile(`bytes in ([\d.]+) s(?s:.*), at most ([\d.]+) ms`).FindStringSubmatch(p.Stdout.String()); match != nil {
		elapsed, _ := strconv.ParseFloat(match[1], 64)
		longest, _ := strconv.ParseFloat(match[2], 64)
		if 1000*elapsed+0.5 < longest { // both are rounded
			p.T.Errorf("a connection took longer than all: %s", &p.Stdout)
		}
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	s := contract.Serve(t, "server03")
	c := contract.Run(t, "client", "-i", "localhost", "-p", fmt.Sprint(s.Port))
	if status := c.Status(); status != 0 || c.Stderr.String() != "" {
		t.Fatalf("status %d, standard error: %s", status, &c.Stderr)
	}
	for index := range 5 {
		if !strings.Contains(c.Stdout.String(), fmt.Sprintf("Child %d is done\n", index)) {
			t.Errorf("nothing of child %d: %s", index, &c.Stdout)
		}
	}
	summarized(c, "2500", "0", "0", "7500000")
	contract.WaitFor(t, "the server has logged 2500 requests", func() bool {
		return strings.Count(s.Stdout.String(), "Got request to send 3000 bytes.") == 2500
	})
}

func TestNoBytes(t *testing.T) {
	t.Parallel()
	s := contract.Serve(t, "server03")
	c := contract.Run(t, "client", "-host", "127.0.0.1", "-port", fmt.Sprint(s.Port), "-child-num", "2", "-con-num", "3", "-bytes", "0")
	if status := c.Status(); status != 0 {
		t.Errorf("status %d, standard error: %s", status, &c.Stderr)
	}
	summarized(c, "6", "0", "0", "0")
}

// A report that cannot be printed is an error.
func TestFullDevice(t *testing.T) {
	t.Parallel()
	s := contract.Serve(t, "server03")
	for _, args := range [][]string{{"-h"}, {"-i", "127.0.0.1", "-p", fmt.Sprint(s.Port), "-c", "2", "-t", "3"}} {
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer full.Close()
		cmd := exec.Command(contract.Path("client"), args...)
		cmd.Stdout = full
		c := contract.Start(t, cmd)
		if status := c.Status(); status != 1 || c.Stderr.String() != "client: write /dev/stdout: no space left on device\n" {
			t.Errorf("%v: status %d, %s", args, status, &c.Stderr)
		}
	}
}

func TestCommandLine(t *testing.T) {
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
		c := contract.Run(t, "client", strings.Fields(args)...)
		status, said := c.Status(), c.Stderr.String()
		if status != 2 || !strings.HasPrefix(said, "client: "+want+"\nUsage: client [options]\n") {
			t.Errorf("client %s: status %d, %s", args, status, said)
		}
	}
	c := contract.Run(t, "client", "-i", "no.such.host.invalid", "-p", "2000")
	if status := c.Status(); status != 1 || !strings.HasPrefix(c.Stderr.String(), "client: lookup no.such.host.invalid") ||
		strings.Count(c.Stderr.String(), "\n") != 1 {
		t.Errorf("an unknown host: status %d, %s", status, &c.Stderr)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	c := contract.Run(t, "client", "-i", "localhost", "-p", port, "-c", "4", "-t", "10")
	if status := c.Status(); status != 1 {
		t.Errorf("status %d", status)
	}
	for index := range 4 {
		want := fmt.Sprintf("child %d: connection 1: connect 127.0.0.1:%s: connection refused\n", index, port)
		if !strings.Contains(c.Stderr.String(), want) {
			t.Errorf("not said: %s in: %s", want, &c.Stderr)
		}
	}
	summarized(c, "0", "4", "36", "0")
}

func TestPieces(t *testing.T) {
	t.Parallel()
	port := answer(t, func(conn net.Conn, _ int) {
		conn.(*net.TCPConn).SetNoDelay(true)
		for range 100 {
			zeros(conn, 1)
		}
		zeros(conn, 200000)
	})
	c := contract.Run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "2", "-t", "5", "-b", "200100")
	if status := c.Status(); status != 0 {
		t.Errorf("status %d, %s", status, &c.Stderr)
	}
	summarized(c, "10", "0", "0", "2001000")
}

func TestOneFailure(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		size int
		want string
	}{
		"short": {99, `child \d: connection \d+: read reply: it ended after 99 of 100 bytes`},
		"long":  {101, `child \d: connection \d+: read reply: it has more than the 100 bytes asked for`},
	} {
		port := answer(t, func(conn net.Conn, number int) {
			if number == 17 {
				zeros(conn, test.size)
			} else {
				zeros(conn, 100)
			}
		})
		c := contract.Run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "3", "-t", "20", "-b", "100")
		if status := c.Status(); status != 1 {
			t.Errorf("%s reply: status %d", what, status)
		}
		if !regexp.MustCompile("^" + test.want + "\n$").MatchString(c.Stderr.String()) {
			t.Errorf("%s reply: %s", what, &c.Stderr)
		}
		if n := strings.Count(c.Stdout.String(), " is done\n"); n != 2 {
			t.Errorf("%s reply: %d children are done", what, n)
		}
		summarized(c, "*", "1", "*", "*")
	}
}

// A child that is killed cannot say so, and neither can one whose Go runtime gives up: it does on
// SIGQUIT, with status 2.
func TestKilledChild(t *testing.T) {
	t.Parallel()
	for sig, said := range map[unix.Signal]string{unix.SIGKILL: "was killed by SIGKILL", unix.SIGQUIT: "exited with status 2"} {
		asked, hold := make(chan bool, 2), make(chan bool)
		port := answer(t, func(conn net.Conn, number int) {
			asked <- true
			<-hold
			zeros(conn, 3000)
		})
		c := contract.Run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "2", "-t", "1")
		for range 2 {
			<-asked // the children can handle signals now
		}
		contract.Kill(t, sig, c.Children()[0])
		contract.WaitFor(t, "the death is reported", func() bool {
			return regexp.MustCompile(`^child \d: ` + said + `\n$`).MatchString(c.Stderr.String())
		})
		close(hold)
		if status := c.Status(); status != 1 {
			t.Errorf("status %d", status)
		}
		summarized(c, "1", "1", "0", "3000")
	}
}

func TestInterrupt(t *testing.T) {
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
		c := contract.Run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "3")
		for range 3 {
			<-answered // every child waits
		}
		contract.Kill(t, sig, -c.PID)
		if status := c.Status(); status != want {
			t.Errorf("%v: status %d, want %d", sig, status, want)
		}
		c.Gone()
		summarized(c, "10", "0", "1490", "30000")
		if c.Stderr.String() != "" {
			t.Errorf("%v: standard error: %s", sig, &c.Stderr)
		}
	}
}

func TestMoreThanNoBytes(t *testing.T) {
	t.Parallel()
	port := answer(t, func(conn net.Conn, _ int) { zeros(conn, 2) })
	c := contract.Run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "1", "-t", "1", "-b", "0")
	if status := c.Status(); status != 1 || !c.Stderr.Has("more than the 0 bytes asked for") {
		t.Errorf("status %d, %s", status, &c.Stderr)
	}
}

// A child ends on SIGTERM, also while it waits for a reply.
func TestTerminatedChild(t *testing.T) {
	t.Parallel()
	asked := make(chan bool, 1)
	port := answer(t, func(conn net.Conn, _ int) {
		asked <- true
		io.Copy(io.Discard, conn) // for ever
	})
	c := contract.Run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "1", "-t", "5")
	<-asked
	contract.Kill(t, unix.SIGTERM, c.Children()...)
	if status := c.Status(); status != 143 || !c.Stdout.Has("Child 0 was terminated\n") || c.Stderr.String() != "" {
		t.Errorf("status %d, %s, %s", status, &c.Stdout, &c.Stderr)
	}
	summarized(c, "0", "0", "5", "0")
}

// A client that is interrupted while it starts its children does not start all of them.
func TestInterruptAtStart(t *testing.T) {
	t.Parallel()
	port := answer(t, func(conn net.Conn, _ int) { zeros(conn, 3000) })
	c := contract.Run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "1024")
	contract.WaitFor(t, "there are children", func() bool { return len(c.Children()) > 0 })
	contract.Kill(t, unix.SIGINT, -c.PID)
	most := 0
	contract.WaitFor(t, "it ends", func() bool {
		most = max(most, len(c.Children()))
		return c.HasEnded()
	})
	if status := c.Status(); status != 130 || most == 1024 {
		t.Errorf("status %d after %d children", status, most)
	}
	c.Gone()
	summarized(c, "*", "0", "*", "*")
}

// Only the parent asks the resolver.
func TestLookUpOnce(t *testing.T) {
	t.Parallel()
	s := contract.Serve(t, "server03")
	contract.Needs(t, "strace", "ptrace")
	trace := filepath.Join(t.TempDir(), "trace")
	if out, err := exec.Command("strace", "-f", "-e", "trace=openat", "-o", trace, contract.Path("client"), "-i", "localhost",
		"-p", fmt.Sprint(s.Port), "-c", "3", "-t", "1").CombinedOutput(); err != nil {
		t.Fatalf("strace: %v %s", err, out)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), `"/etc/hosts"`); n != 1 {
		t.Errorf("/etc/hosts was opened %d times", n)
	}
}

func TestNohup(t *testing.T) {
	t.Parallel()
	hold := make(chan bool)
	port := answer(t, func(conn net.Conn, _ int) {
		<-hold
		zeros(conn, 3000)
	})
	c := contract.Start(t, exec.Command("/bin/sh", "-c", "trap '' HUP; exec "+contract.Path("client")+" -i 127.0.0.1 -c 2 -t 1 -p "+port))
	contract.WaitFor(t, "there are two children", func() bool { return len(c.Children()) == 2 })
	contract.Kill(t, unix.SIGHUP, -c.PID)
	close(hold)
	if status := c.Status(); status != 0 {
		t.Errorf("status %d, %s", status, &c.Stderr)
	}
	summarized(c, "2", "0", "0", "6000")
}

// When no address of a name answers but the last, the client uses that. The first address is one
// to which there is no route.
func TestNextAddress(t *testing.T) {
	t.Parallel()
	p := sandbox(t, `
		ip addr add 10.8.0.1/32 dev lo
		printf '10.7.0.9 srv\n10.8.0.1 srv\n' > $DIR/hosts
		mount --bind $DIR/hosts /etc/hosts
		$BIN/server03 -i 10.8.0.1 -p 2000 & server=$!
		until $BIN/client -i 10.8.0.1 -p 2000 -c 1 -t 1 2>/dev/null; do kill -0 $server; done
		$BIN/client -i srv -p 2000 -c 2 -t 5
		kill $server; wait $server`)
	if status := p.Status(); status != 0 || !p.Stdout.Has("10 connections answered, 0 failed, 0 not made\n") {
		t.Errorf("status %d, %s, %s", status, &p.Stdout, &p.Stderr)
	}
}

func sandbox(t *testing.T, script string) *contract.Program {
	t.Helper()
	return contract.Sandbox(t, "DIR="+t.TempDir()+"; "+script)
}
