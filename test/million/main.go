//go:build linux

// Million opens very many connections to server09, by default a million, and says what they cost.
// It looks at the limits of the system first, and opens no more than they allow.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/option"
	"csdesign/internal/reexec"
)

const (
	// perConnection is the memory for both ends of a connection, in the kernel and in the server.
	perConnection = 12 << 10

	// reserve is what is left for the rest of the system.
	reserve = 1 << 30

	// spare are the descriptors of a process beside its connections. The hash of SO_REUSEPORT is
	// not quite even, so it is many.
	spare = 1500

	// ports is how many connections come from one address. When half of its ports are used, the
	// kernel searches for a free one for a long time.
	ports = 5000
)

// number returns the number in a field of a file in /proc, or 0.
func number(file, name string) int {
	text, _ := os.ReadFile("/proc/" + file)
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.TrimSuffix(fields[0], ":") == name {
			n, _ := strconv.Atoi(fields[1])
			return n
		}
	}
	return 0
}

// setting returns a setting of the kernel (sysctl(8)), or 0.
func setting(name string) int {
	text, _ := os.ReadFile("/proc/sys/" + name)
	n, _ := strconv.Atoi(strings.TrimSpace(string(text)))
	return n
}

// A limit is how many connections the system allows, and why.
type limit struct {
	most   int
	reason string
}

// limits returns what limits the number of connections, the lowest limit first, and how many a
// process can have.
func limits() (all []limit, perProcess int, err error) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return nil, 0, fmt.Errorf("getrlimit: %w", err)
	}
	perProcess = int(min(files.Max, 1<<20)) - spare
	memory := number("meminfo", "MemAvailable") << 10
	all = append(all,
		limit{(memory - reserve) / perConnection, fmt.Sprintf("%d MiB of memory are free, and 1 GiB is left alone", memory>>20)},
		limit{1024 * perProcess, fmt.Sprintf("a process can have %d descriptors (ulimit -Hn), and server09 has at most 1024 children", files.Max)})
	if most := setting("fs/file-max"); most > 0 {
		all = append(all, limit{most/2 - spare, fmt.Sprintf("the system can have %d open files (fs.file-max)", most)})
	}
	if most := setting("net/netfilter/nf_conntrack_max"); setting("net/netfilter/nf_conntrack_count") > 0 {
		all = append(all, limit{most - spare, fmt.Sprintf("the firewall can track %d connections (net.netfilter.nf_conntrack_max)", most)})
	}
	slices.SortFunc(all, func(a, b limit) int { return cmp.Compare(a.most, b.most) })
	return all, max(perProcess, 1), nil
}

// childLoop opens its connections, keeps them until it is told to end, and counts them. Each is
// from an address that only this child uses, because an address has few ports.
func childLoop(index, port, connections int, opened *atomic.Int64, terminate <-chan os.Signal) error {
	server := &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}
	for i := range connections {
		conn, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			return fmt.Errorf("create socket %d: %w", i, err)
		}
		from := &unix.SockaddrInet4{Addr: [4]byte{127, byte(1 + index/250), byte(1 + index%250), byte(1 + i/ports)}}
		err = errors.Join(unix.SetsockoptInt(conn, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1), unix.Bind(conn, from))
		if err == nil {
			err = unix.Connect(conn, server)
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		opened.Add(1)
	}
	<-terminate
	return nil
}

// A server is server09.
type server struct {
	cmd    *exec.Cmd
	stderr strings.Builder
	port   int
}

// build builds server09 and the client.
func build(ctx context.Context, dir string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), "csdesign/server09", "csdesign/client")
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGINT) }
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

func start(dir string, children int) (*server, error) {
	s := &server{cmd: exec.Command(filepath.Join(dir, "server09"), "-q", "-i", "127.0.0.1", "-p", "0", "-n", strconv.Itoa(children), "-timeout", "1h")}
	s.cmd.Stderr = &s.stderr
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL, Setpgid: true}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := fmt.Fscanf(stdout, "Listening on port %d ...\n", &s.port); err != nil {
		return nil, fmt.Errorf("server09 does not listen: %w", err)
	}
	go func() {
		for buf := make([]byte, 4096); err == nil; _, err = stdout.Read(buf) {
		}
	}()
	return s, nil
}

// memory returns the proportional resident set of the server and its children, in bytes.
func (s *server) memory() (bytes int) {
	pids := []string{strconv.Itoa(s.cmd.Process.Pid)}
	children, _ := filepath.Glob(fmt.Sprintf("/proc/%s/task/*/children", pids[0]))
	for _, path := range children {
		text, _ := os.ReadFile(path)
		pids = append(pids, strings.Fields(string(text))...)
	}
	for _, pid := range pids {
		bytes += number(pid+"/smaps_rollup", "Pss") << 10
	}
	return bytes
}

// end ends the server, and returns how long that took, and its CPU time since its start.
func (s *server) end() (took, cpu time.Duration, err error) {
	begin := time.Now()
	if err := s.cmd.Process.Signal(unix.SIGTERM); err != nil {
		return 0, 0, err
	}
	err = s.cmd.Wait()
	usage := s.cmd.ProcessState
	return time.Since(begin), usage.UserTime() + usage.SystemTime(), err
}

// open has children open the connections, and shows how many there are.
func open(ctx context.Context, port, connections, perChild int) (pids []int, err error) {
	file, counters, err := reexec.CreateShared((connections + perChild - 1) / perChild)
	if err != nil {
		return nil, err
	}
	for index := range counters {
		share := min(perChild, connections-index*perChild)
		os.Setenv("MILLION", fmt.Sprintf("%d %d %d", port, share, len(counters)))
		pid, err := reexec.Start(index, file)
		if err != nil {
			return pids, err
		}
		pids = append(pids, pid)
	}
	for last, since := int64(-1), time.Now(); ; time.Sleep(10 * time.Millisecond) {
		sum := int64(0)
		for i := range counters {
			sum += counters[i].Load()
		}
		if sum == int64(connections) {
			return pids, nil
		}
		if sum > last {
			last, since = sum, time.Now()
		}
		if ctx.Err() != nil {
			return pids, ctx.Err()
		}
		if time.Since(since) > 30*time.Second {
			return pids, fmt.Errorf("no connection was made for 30 s, after %d", sum)
		}
	}
}

var rateLine = regexp.MustCompile(`(\d+) connections per second`)

// run opens the connections and prints what they cost.
func run(connections, perProcess int) error {
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer cancel()
	dir, err := os.MkdirTemp("", "million")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := build(ctx, dir); err != nil {
		return err
	}
	children := (connections + perProcess - 1) / perProcess
	s, err := start(dir, children)
	if err != nil {
		return err
	}
	defer s.cmd.Process.Kill()
	fmt.Printf("server09 -n %d, and %d processes with clients\n", children, children)
	slab, memory, begin := number("meminfo", "Slab"), s.memory(), time.Now()
	pids, err := open(ctx, s.port, connections, perProcess)
	defer func() {
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
			unix.Wait4(pid, nil, 0, nil)
		}
	}()
	if err != nil {
		return err
	}
	took := time.Since(begin)
	fmt.Printf("%d connections are open after %.1f s: %.0f a second\n", connections, took.Seconds(), float64(connections)/took.Seconds())
	out, err := exec.CommandContext(ctx, filepath.Join(dir, "client"), "-i", "127.0.0.1", "-p", strconv.Itoa(s.port), "-c", "1", "-t", "2000").CombinedOutput()
	if err != nil {
		return fmt.Errorf("client: %w\n%s", err, out)
	}
	fmt.Printf("beside them one client makes %s connections a second\n", rateLine.FindSubmatch(out)[1])
	used := s.memory() - memory
	fmt.Printf("the server needs %d MiB for them: %d bytes for each\n", used>>20, used/connections)
	kernel := (number("meminfo", "Slab") - slab) << 10
	fmt.Printf("the kernel needs %d MiB: %d bytes for each, with both ends\n", kernel>>20, kernel/connections)
	before := s.cpu()
	took, cpu, err := s.end()
	if err != nil {
		return fmt.Errorf("server09: %w\n%s", err, &s.stderr)
	}
	fmt.Printf("after SIGTERM the server ends in %.1f s, with %.1f s of CPU time\n", took.Seconds(), (cpu - before).Seconds())
	return nil
}

// cpu returns the CPU time of the server and its children until now (proc(5), stat).
func (s *server) cpu() (total time.Duration) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, _ := os.ReadFile(path)
		_, after, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(after) // from the third on: state, ppid, pgrp, ...
		if len(fields) > 12 && fields[2] == strconv.Itoa(s.cmd.Process.Pid) {
			user, _ := strconv.Atoi(fields[11])
			system, _ := strconv.Atoi(fields[12])
			total += time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
		}
	}
	return total
}

func main() {
	index, terminate, isChild := reexec.Child()
	connections := option.Int("c", "connections", 1_000_000, 1, 10_000_000, "number of connections")
	option.Parse()
	if isChild {
		var port, share, children int
		fmt.Sscan(os.Getenv("MILLION"), &port, &share, &children)
		counters, err := reexec.MapShared(reexec.FirstFile, children)
		if err == nil {
			err = childLoop(index, port, share, &counters[index], terminate)
		}
		if err != nil {
			log.Fatal(err)
		}
		return
	}
	all, perProcess, err := limits()
	if err != nil {
		log.Fatal(err)
	}
	if lowest := all[0]; lowest.most < *connections {
		if lowest.most < 1 {
			log.Fatalf("not one connection is possible: %s", lowest.reason)
		}
		fmt.Printf("%d connections are not possible here, %d are: %s\n", *connections, lowest.most, lowest.reason)
		*connections = lowest.most
	}
	if err := run(*connections, perProcess); err != nil {
		log.Fatal(err)
	}
}
