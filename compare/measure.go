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
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// while is about how long a run takes. Shorter ones differ by tens of percents.
	while = 250 * time.Millisecond

	// eachRun is about how long it takes to measure a server once.
	eachRun = time.Second

	// patience is how long a server may take to end: its -timeout, which is 30 s, and some
	// time more.
	patience = 40 * time.Second
)

// figures are what is measured in one run of a server, by the names of [columns]. What the
// system cannot tell is not in the map.
type figures map[string]float64

// median returns the median of each figure. Of an even number of values it is the mean of
// the two in the middle.
func median(rounds []figures) figures {
	m := figures{}
	for _, c := range columns {
		var values []float64
		for _, f := range rounds {
			if v, known := f[c.name]; known {
				values = append(values, v)
			}
		}
		if n := len(values); n > 0 {
			slices.Sort(values)
			m[c.name] = (values[(n-1)/2] + values[n/2]) / 2
		}
	}
	return m
}

// A server is one that runs.
type server struct {
	cmd    *exec.Cmd
	port   string
	stdout string // a file: a pipe would have to be read, at the cost of the server
	stderr strings.Builder
	ended  chan error
}

var listening = regexp.MustCompile(`(?m)^Listening on port (\d+) \.\.\.$`)

// start starts a server and waits until it listens.
func start(ctx context.Context, dir, addr string, d design, l load) (*server, error) {
	path, args := d.commandLine(dir, addr, l)
	s := &server{
		cmd:    command(ctx, path, args...),
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
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		select {
		case err := <-s.ended:
			return nil, s.failure(fmt.Errorf("it ended before it listened (%v)", err))
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

// failure returns what the server itself has said, or else err.
func (s *server) failure(err error) error {
	if line, _, _ := strings.Cut(s.stderr.String(), "\n"); line != "" {
		return errors.New(strings.TrimPrefix(line, filepath.Base(s.cmd.Path)+": "))
	}
	return err
}

// end ends the server, and returns what it has printed, and what it and its children have
// used from start to end.
func (s *server) end() (stdout string, cpu time.Duration, switches int64, err error) {
	late := time.AfterFunc(patience, func() { s.cmd.Process.Kill() })
	defer late.Stop()
	for running := true; running; {
		if err := s.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return "", 0, 0, err
		}
		select {
		case err := <-s.ended:
			if err != nil {
				return "", 0, 0, s.failure(err)
			}
			running = false
		case <-time.After(time.Second):
			// Python handles a signal before or after a call. One that comes just before a
			// call that blocks has no effect until another one comes.
		}
	}
	text, err := os.ReadFile(s.stdout)
	if err != nil {
		return "", 0, 0, err
	}
	// From wait4(2), which includes the children that the server has waited for.
	r := s.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return string(text), time.Duration(r.Utime.Nano() + r.Stime.Nano()), int64(r.Nvcsw), nil
}

var (
	answeredLine = regexp.MustCompile(`(?m)^(\d+) connections answered, \d+ failed, \d+ not made$`)
	rateLine     = regexp.MustCompile(`(?m)^\d+ bytes in [\d.]+ s, (\d+) connections per second$`)
	p99Line      = regexp.MustCompile(`(?m)^time of a connection: .* 99% within ([\d.]+) ms`)
	spreadLine   = regexp.MustCompile(`(?m)^\d+ connections; per \w+: fewest (\d+), mean [\d.]+, most (\d+)$`)
)

// drive has the client make its connections, and returns what it prints. It is an error if
// not all of them are answered.
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
	f := figures{}
	f.find("answered", answeredLine, string(out), 1)
	if want := float64(l.Children * l.Loops); f["answered"] != want {
		return "", fmt.Errorf("%v of %v connections were answered", f["answered"], want)
	}
	return string(out), nil
}

// address returns a loopback address for one run. A port that was used cannot be used again
// for a minute (TIME_WAIT), and when there are thousands of them between two addresses,
// connect(2) is slow. On Linux all of 127.0.0.0/8 is loopback.
func address() string {
	if runtime.GOOS != "linux" {
		return "127.0.0.1"
	}
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// measure runs a server twice, without a client and under load. The difference is what the
// connections cost.
func measure(ctx context.Context, dir string, d design, l load) (figures, error) {
	addr := address()
	s, err := start(ctx, dir, addr, d, l)
	if err != nil {
		return nil, err
	}
	_, idleCPU, idleSwitches, err := s.end()
	if err != nil {
		return nil, err
	}
	if s, err = start(ctx, dir, addr, d, l); err != nil {
		return nil, err
	}
	f := figures{}
	made, out, err := f.underLoad(ctx, s, dir, addr, l)
	stdout, cpu, switches, serverErr := s.end()
	if err := errors.Join(serverErr, err); err != nil {
		// If the server has failed, that is why the client did.
		err, _, _ := strings.Cut(err.Error(), "\n")
		return nil, errors.New(err)
	}
	f.find("answered", answeredLine, out, 1)
	f.find("connections_per_second", rateLine, out, 1)
	f.find("p99_ms", p99Line, out, 1)
	f.find("fewest_connections_of_child", spreadLine, stdout, 1)
	f.find("most_connections_of_child", spreadLine, stdout, 2)
	f["cpu_us_per_connection"] = max(0, float64((cpu-idleCPU).Microseconds())/float64(made))
	f["switches_per_connection"] = max(0, float64(switches-idleSwitches)/float64(made))
	return f, nil
}

// underLoad drives a server, first to warm up and then to count, while it watches the
// server's process tree. It returns how many connections were made in all, and what the
// client has printed at last.
func (f figures) underLoad(ctx context.Context, s *server, dir, addr string, l load) (made int, out string, err error) {
	warmUp := l
	warmUp.Loops = max(10, l.Loops/5)
	if l.Loops > 0 {
		warmUp.Loops = min(warmUp.Loops, l.Loops)
	}
	if out, err = drive(ctx, dir, addr, s.port, warmUp); err != nil {
		return 0, "", err
	}
	if l.Loops == 0 {
		f.find("rate", rateLine, out, 1)
		l.Loops = max(1, int(f["rate"]*while.Seconds())/l.Children)
		delete(f, "rate")
	}
	stop := f.watch(s.cmd.Process.Pid)
	defer stop()
	out, err = drive(ctx, dir, addr, s.port, l)
	return l.Children * (l.Loops + warmUp.Loops), out, err
}

// find sets a figure to the number that a group of the expression matches in a text.
func (f figures) find(name string, re *regexp.Regexp, text string, group int) {
	if match := re.FindStringSubmatch(text); match != nil {
		if n, err := strconv.ParseFloat(match[group], 64); err == nil {
			f[name] = n
		}
	}
}
