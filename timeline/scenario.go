//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A client is what a client has done: when, from the begin of the scenario.
type client struct {
	name                          string
	port                          int // its own
	connect, request, first, last time.Duration
	err                           error
}

// A scene is one run of a server: what its clients have done, and the calls that strace has seen.
type scene struct {
	design  design
	clients []client
	calls   []call
	length  time.Duration
	rows    []row
	others  int // threads that touch no socket
}

// clock is the begin of the scenario. strace tells the time of day.
type clock time.Time

func (c clock) now() time.Duration { return time.Since(time.Time(c)) }

func (c clock) sleepUntil(t time.Duration) { time.Sleep(t - c.now()) }

// run connects at a time, asks at another one, and reads the reply: all at once, or, with a pause, a little at a time.
func (c *client) run(begin clock, port int, connect, request time.Duration, count int, pause time.Duration) {
	begin.sleepUntil(connect)
	c.connect = begin.now()
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		c.err = err
		return
	}
	defer conn.Close()
	c.port = conn.LocalAddr().(*net.TCPAddr).Port
	conn.(*net.TCPConn).SetReadBuffer(64 << 10)
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	begin.sleepUntil(request)
	c.request = begin.now()
	fmt.Fprintf(conn, "%d\n", count)
	buf := make([]byte, 64<<10)
	for got := 0; got < count && c.err == nil; time.Sleep(pause) {
		var n int
		n, c.err = conn.Read(buf[:min(len(buf), count-got)])
		if got == 0 {
			c.first = begin.now()
		}
		got += n
	}
	c.last = begin.now()
}

// traced are the calls that are looked at.
const traced = "accept4,read,recvfrom,write,sendto,close,shutdown,clone,clone3,execve,wait4,pselect6,poll,ppoll,epoll_pwait,io_uring_enter,sendmsg,recvmsg,fcntl"

// play starts a server under strace, plays the scenario, and ends it. Client 1 is silent for a while.
func play(ctx context.Context, dir string, d design, silence time.Duration) (s scene, err error) {
	trace := filepath.Join(dir, d.name+".trace")
	args := []string{"-f", "-ttt", "-T", "-yy", "-s", "32", "-e", "signal=none", "-e", "trace=" + traced, "-o", trace,
		filepath.Join(dir, d.name), "-q", "-i", "127.0.0.1", "-p", "0"}
	if d.pool {
		args = append(args, "-n", "3")
	}
	cmd := exec.CommandContext(ctx, "strace", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return s, err
	}
	if err := cmd.Start(); err != nil {
		return s, err
	}
	defer unix.Kill(-cmd.Process.Pid, unix.SIGKILL) // or it has ended
	var port int
	if _, err := fmt.Fscanf(stdout, "Listening on port %d ...\n", &port); err != nil {
		io.Copy(io.Discard, stdout)
		cmd.Wait()
		return s, errors.New(strings.TrimSpace(stderr.String()))
	}
	go io.Copy(io.Discard, stdout)
	quiet(trace)

	s = scene{design: d, clients: []client{{name: "client 1"}, {name: "client 2"}, {name: "client 3"}}}
	begin, ended := clock(time.Now()), make(chan bool)
	const ms = time.Millisecond
	go func() { s.clients[0].run(begin, port, 0, silence, 1000, 0); ended <- true }()
	go func() { s.clients[1].run(begin, port, 100*ms, 100*ms, 1000, 0); ended <- true }()
	go func() { s.clients[2].run(begin, port, 150*ms, 150*ms, 6_000_000, 3*ms); ended <- true }()
	for range s.clients {
		<-ended
	}
	s.length = begin.now() + 20*ms
	for _, c := range s.clients {
		if c.err != nil {
			return s, fmt.Errorf("%s: %s: %w", d.name, c.name, c.err)
		}
	}
	begin.sleepUntil(s.length)
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", cmd.Process.Pid))
	if err != nil {
		return s, err
	}
	var pid int
	fmt.Sscan(string(children), &pid)
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		return s, fmt.Errorf("end %s: %w", d.name, err)
	}
	cmd.Wait() // strace has the server's status, which does not matter here
	text, err := os.ReadFile(trace)
	if err != nil {
		return s, err
	}
	s.read(string(text), time.Time(begin))
	return s, nil
}

// quiet waits until the server makes no calls any more.
func quiet(trace string) {
	for before, still := int64(-1), 0; still < 10; time.Sleep(30 * time.Millisecond) {
		info, err := os.Stat(trace)
		if err != nil || info.Size() != before {
			still = 0
		}
		if err == nil {
			before = info.Size()
		}
		still++
	}
}
