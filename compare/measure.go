//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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
	design design
	addr   netip.AddrPort
	stdout string // a file: a pipe would have to be read, at the cost of the server
	stderr strings.Builder
	ended  chan error
}

var listening = regexp.MustCompile(`(?m)^Listening on port (\d+) \.\.\.$`)

// start starts a server and waits until it listens.
func start(ctx context.Context, dir, addr string, d design, l load) (*server, error) {
	port := uint16(0) // the servers here choose one, and print it
	if d.command != "" {
		var err error
		if port, err = freePort(addr); err != nil {
			return nil, err
		}
	}
	path, args := d.commandLine(dir, addr, port, l)
	s := &server{
		cmd:    command(ctx, path, args...),
		design: d,
		addr:   netip.AddrPortFrom(netip.MustParseAddr(addr), port),
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
	for deadline := time.Now().Add(patience); ctx.Err() == nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		select {
		case err := <-s.ended:
			return nil, s.failure(fmt.Errorf("it ended before it listened (%v)", err))
		default:
		}
		listens, err := s.listens()
		if err != nil {
			return nil, err
		}
		if listens {
			return s, nil
		}
	}
	unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL)
	<-s.ended
	return nil, s.failure(errors.New("it does not listen"))
}

// freePort returns a port that was free at an address.
func freePort(addr string) (port uint16, err error) {
	l, err := net.Listen("tcp", addr+":0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

// listens reports whether the server listens. The servers here print their port then; another
// one is tried.
func (s *server) listens() (bool, error) {
	if s.design.command != "" {
		_, err := load{Children: 1, Bytes: 1}.drive(context.Background(), s.addr, 1, 0)
		return !errors.Is(err, unix.ECONNREFUSED), nil
	}
	text, err := os.ReadFile(s.stdout)
	match := listening.FindSubmatch(text)
	if err != nil || match == nil {
		return false, err
	}
	port, err := strconv.ParseUint(string(match[1]), 10, 16)
	s.addr = netip.AddrPortFrom(s.addr.Addr(), uint16(port))
	return true, err
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
func (s *server) end() (stdout string, u used, err error) {
	group := -s.cmd.Process.Pid
	wait := patience
	foreign := s.design.command != ""
	if foreign { // it may ignore SIGINT, or leave children
		wait = 5 * time.Second
		defer unix.Kill(group, unix.SIGKILL)
	}
	late := time.AfterFunc(wait, func() { unix.Kill(group, unix.SIGKILL) })
	defer late.Stop()
	// Python handles a signal before or after a call. One that comes just before a call that
	// blocks has no effect until another one comes.
	var again <-chan time.Time
	if foreign || s.design.name == inPython {
		ticker := time.NewTicker(time.Second)
		defer ticker.Stop()
		again = ticker.C
	}
	for running := true; running; {
		if err := s.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return "", u, err
		}
		select {
		case err := <-s.ended:
			if err != nil && !foreign {
				return "", u, s.failure(err)
			}
			running = false
		case <-again:
		}
	}
	text, err := os.ReadFile(s.stdout)
	if err != nil {
		return "", u, err
	}
	return string(text), inAll(s.cmd.ProcessState), nil
}

var spreadLine = regexp.MustCompile(`(?m)^\d+ connections; per \w+: fewest (\d+), mean [\d.]+, most (\d+)$`)

// address returns a loopback address for one run. A port that was used cannot be used again
// for a minute (TIME_WAIT), and when there are thousands of them between two addresses,
// connect(2) is slow.
func address() string {
	return fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))
}

// used is what a server has used of the processors.
type used struct {
	cpu      time.Duration
	switches int64
}

// inAll returns what a process that has ended has used, and the children that it has waited for
// (wait4(2)).
func inAll(state *os.ProcessState) used {
	r := state.SysUsage().(*syscall.Rusage)
	return used{time.Duration(r.Utime.Nano() + r.Stime.Nano()), int64(r.Nvcsw)}
}

func (u used) minus(other used) used { return used{u.cpu - other.cpu, u.switches - other.switches} }

// run runs a server, with the idle connections of the load, and with its clients if busy. It
// returns what the server has printed, and what it has used since the idle connections were there.
func (f figures) run(ctx context.Context, dir, addr string, d design, l load, busy bool) (stdout string, u used, err error) {
	s, err := start(ctx, dir, addr, d, l)
	if err != nil {
		return "", u, err
	}
	before, kernel := settle(s.cmd.Process.Pid)["memory_mib"], slab()
	idle, err := l.connectIdle(ctx, s.addr)
	if err == nil && l.Idle > 0 {
		f["bytes_per_idle"] = (sample(s.cmd.Process.Pid)["memory_mib"] - before) * (1 << 20) / float64(l.Idle)
		f["kernel_bytes_per_idle"] = (slab() - kernel) / float64(l.Idle)
	}
	earlier := soFar(s.cmd.Process.Pid)
	if err == nil && busy {
		err = f.underLoad(ctx, s, l)
	}
	stdout, total, serverErr := s.end()
	for _, fd := range idle {
		unix.Close(fd)
	}
	if err := errors.Join(serverErr, err); err != nil {
		// If the server has failed, that is why the clients did.
		err, _, _ := strings.Cut(err.Error(), "\n")
		return "", u, errors.New(err)
	}
	return stdout, total.minus(earlier), nil
}

// settle waits until the processes of a server have started: until there are no more, and they
// need no more memory, but for two seconds at most. Ten Go runtimes need a while, also when no
// client comes.
func settle(pid int) (now figures) {
	before := sample(pid)
	for range 40 {
		time.Sleep(50 * time.Millisecond)
		if now = sample(pid); maps.Equal(before, now) {
			break
		}
		before = now
	}
	return now
}

// measure runs a server twice, without clients and under load. The difference is what the
// connections cost, without the end of the server.
func measure(ctx context.Context, dir string, d design, l load) (figures, error) {
	f, addr := figures{}, address()
	_, unloaded, err := f.run(ctx, dir, addr, d, l, false)
	if err != nil {
		return nil, err
	}
	stdout, loaded, err := f.run(ctx, dir, addr, d, l, true)
	if err != nil {
		return nil, err
	}
	f.find("fewest_connections_of_child", spreadLine, stdout, 1)
	f.find("most_connections_of_child", spreadLine, stdout, 2)
	cost := loaded.minus(unloaded)
	f["cpu_us_per_connection"] = max(0, float64(cost.cpu.Microseconds())/f["made"])
	f["switches_per_connection"] = max(0, float64(cost.switches)/f["made"])
	delete(f, "made")
	return f, nil
}

// underLoad drives a server, first to warm up and then to count, while it watches the
// server's process tree.
func (f figures) underLoad(ctx context.Context, s *server, l load) error {
	warmUp := l.Loops
	if warmUp > 0 {
		warmUp = max(1, warmUp/5)
	}
	before, err := l.drive(ctx, s.addr, warmUp, while/5)
	if err != nil {
		return err
	}
	stop := f.watch(s.cmd.Process.Pid)
	counted, err := l.drive(ctx, s.addr, l.Loops, while)
	stop()
	maps.Copy(f, counted)
	f["made"] = before["answered"] + counted["answered"]
	return err
}

// find sets a figure to the number that a group of the expression matches in a text.
func (f figures) find(name string, re *regexp.Regexp, text string, group int) {
	if match := re.FindStringSubmatch(text); match != nil {
		if n, err := strconv.ParseFloat(match[group], 64); err == nil {
			f[name] = n
		}
	}
}
