package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// figures are what is measured in one run of a server. Those that the system cannot
// tell are not a number.
type figures struct {
	Answered  int    `json:"answered"`
	Rate      figure `json:"connections_per_second"`
	CPU       figure `json:"cpu_us_per_connection"`       // user and system, of the whole process tree
	Switches  figure `json:"switches_per_connection"`     // voluntary ones
	Memory    figure `json:"memory_mib"`                  // proportional resident set, at its peak
	P99       figure `json:"p99_ms"`                      // 99th percentile of a connection's time
	Processes figure `json:"processes"`                   // at their peak
	Threads   figure `json:"threads"`                     // at their peak
	Fewest    figure `json:"fewest_connections_of_child"` // or of a thread
	Most      figure `json:"most_connections_of_child"`
}

// usage is what a server and all its children have used from start to end.
type usage struct {
	cpu      time.Duration
	switches int64
}

// A server is one that runs.
type server struct {
	cmd    *exec.Cmd
	port   string
	stdout string // a file: a pipe would have to be read, at the expense of the server
	stderr strings.Builder
	ended  chan error
}

var listening = regexp.MustCompile(`(?m)^Listening on port (\d+) \.\.\.$`)

// start starts a server and waits until it listens. It is ended in order when ctx
// ends.
func start(ctx context.Context, dir, addr string, d design, l load) (*server, error) {
	args := []string{"-i", addr, "-p", "0"}
	if d.pool {
		args = append(args, "-n", strconv.Itoa(l.Pool))
	}
	s := &server{
		cmd:    command(ctx, filepath.Join(dir, d.name), args...),
		stdout: filepath.Join(dir, "stdout"),
		ended:  make(chan error, 1),
	}
	stdout, err := os.Create(s.stdout)
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	s.cmd.Stdout, s.cmd.Stderr = stdout, &s.stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.ended <- s.cmd.Wait() }()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		select {
		case err := <-s.ended:
			return nil, s.failure(fmt.Errorf("it has ended before it listened (%v)", err))
		default:
		}
		text, err := os.ReadFile(s.stdout)
		if err != nil {
			return nil, err
		}
		if match := listening.FindSubmatch(text); match != nil {
			s.port = string(match[1])
			return s, nil
		}
	}
	s.cmd.Process.Kill()
	<-s.ended
	return nil, s.failure(errors.New("it does not listen"))
}

// failure prefers what the server itself has to say.
func (s *server) failure(err error) error {
	if line, _, _ := strings.Cut(s.stderr.String(), "\n"); line != "" {
		return errors.New(strings.TrimPrefix(line, filepath.Base(s.cmd.Path)+": "))
	}
	return err
}

// end ends the server in order, and returns what it has printed and used.
func (s *server) end() (stdout string, u usage, err error) {
	if err := s.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return "", u, err
	}
	// Replies may take a server its -timeout, which is 30 s.
	late := time.AfterFunc(40*time.Second, func() { s.cmd.Process.Kill() })
	defer late.Stop()
	if err := <-s.ended; err != nil {
		return "", u, s.failure(err)
	}
	text, err := os.ReadFile(s.stdout)
	if err != nil {
		return "", u, err
	}
	// As wait4(2) returns it: with the children that the server has waited for.
	r := s.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	u.cpu = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	u.switches = int64(r.Nvcsw)
	return string(text), u, nil
}

// command is a program that gets SIGTERM when ctx ends, and SIGKILL when it does not
// heed that. It is in a process group of its own, so that Ctrl-C is for us to handle.
func command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = attributes()
	return cmd
}

var (
	answeredLine = regexp.MustCompile(`(?m)^(\d+) connections answered, \d+ failed, \d+ not made$`)
	rateLine     = regexp.MustCompile(`(?m)^\d+ bytes in [\d.]+ s, (\d+) connections per second$`)
	p99Line      = regexp.MustCompile(`(?m)^time of a connection: .* 99% within ([\d.]+) ms`)
	spreadLine   = regexp.MustCompile(`(?m)^\d+ connections; per \w+: fewest (\d+), mean [\d.]+, most (\d+)$`)
)

// drive has the client make its connections, and returns what it prints. Only a
// client that was answered in full is a success.
func drive(ctx context.Context, dir, addr, port string, l load) (stdout string, err error) {
	cmd := command(ctx, filepath.Join(dir, "client"), "-i", addr, "-p", port,
		"-c", strconv.Itoa(l.Children), "-t", strconv.Itoa(l.Loops), "-b", strconv.Itoa(l.Bytes))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		line, _, _ := strings.Cut(stderr.String(), "\n")
		return "", fmt.Errorf("client: %s (%w)", line, err)
	}
	return string(out), nil
}

// address returns a loopback address for one run. A port that was used is not to be
// had again for a minute (TIME_WAIT), and thousands of them on one pair of addresses
// make connect(2) slow. On Linux all of 127.0.0.0/8 is loopback.
func address() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// measure runs a server twice, without any client, and under load. The difference is
// what the connections cost.
func measure(ctx context.Context, dir string, d design, l load) (f figures, err error) {
	addr := address()
	s, err := start(ctx, dir, addr, d, l)
	if err != nil {
		return f, err
	}
	_, idle, err := s.end()
	if err != nil {
		return f, err
	}
	if s, err = start(ctx, dir, addr, d, l); err != nil {
		return f, err
	}
	warmUp := l
	warmUp.Loops = max(1, l.Loops/5)
	out, err := drive(ctx, dir, addr, s.port, warmUp)
	if err == nil {
		watch := watchTree(s.cmd.Process.Pid)
		out, err = drive(ctx, dir, addr, s.port, l)
		f.Processes, f.Threads, f.Memory = watch.stop()
	}
	stdout, used, serverErr := s.end()
	if serverErr != nil {
		return f, serverErr // which is why the client failed, if it did
	}
	if err != nil {
		return f, err
	}
	f.Answered = int(find(answeredLine, out, 1))
	if want := l.Children * l.Loops; f.Answered != want {
		return f, fmt.Errorf("%d of %d connections were answered", f.Answered, want)
	}
	f.Rate = find(rateLine, out, 1)
	f.P99 = find(p99Line, out, 1)
	f.Fewest, f.Most = find(spreadLine, stdout, 1), find(spreadLine, stdout, 2)
	connections := figure(l.Children * (l.Loops + warmUp.Loops))
	f.CPU = max(0, figure((used.cpu-idle.cpu).Microseconds())/connections)
	f.Switches = max(0, figure(used.switches-idle.switches)/connections)
	return f, nil
}

// find returns the number that a group of the expression matches in a text.
func find(re *regexp.Regexp, text string, group int) figure {
	match := re.FindStringSubmatch(text)
	if match == nil {
		return unknown
	}
	n, err := strconv.ParseFloat(match[group], 64)
	if err != nil {
		return unknown
	}
	return figure(n)
}
