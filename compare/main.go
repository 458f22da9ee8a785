//go:build linux

// Compare runs every design under the same load and prints a table, as Stevens does in
// chapter 30 of UNIX Network Programming. It builds the servers of this collection, and leaves
// nothing behind. It needs Linux, because its clients wait in an epoll.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/option"
	"csdesign/internal/sock"
)

// A design is a server, in a few words.
type design struct {
	name, words string
	pool        bool   // has as many children, or threads, as -n says
	c, python   string // the same design in the peers, if they have it
	of          string // of a peer: the server to which it is compared
	command     string // of -run
}

var designs = []design{
	{name: "server00", words: "iterative", c: "iterative"},
	{name: "server01", words: "one child per client, exec", c: "fork", python: "fork"},
	{name: "server01a", words: "one child per client, fork", c: "fork", python: "fork"},
	{name: "server02", words: "multiplexing, select", c: "select", python: "select"},
	{name: "server03", words: "preforked, children accept", c: "prefork", python: "prefork", pool: true},
	{name: "server03a", words: "the same, and counts", pool: true},
	{name: "server03b", words: "the same, waiting in poll", pool: true},
	{name: "server03c", words: "the same, with a lock", pool: true},
	{name: "server03d", words: "the same, each in an epoll", pool: true},
	{name: "server04", words: "preforked, parent passes", c: "passfd", python: "passfd", pool: true},
	{name: "server05", words: "one thread per client", c: "thread"},
	{name: "server05a", words: "one goroutine per client"},
	{name: "server06", words: "multiplexing, poll", c: "poll"},
	{name: "server07", words: "multiplexing, epoll", c: "epoll"},
	{name: "server08", words: "prethreaded, threads accept", c: "prethread", pool: true},
	{name: "server08a", words: "prethreaded, main accepts", pool: true},
	{name: "server09", words: "preforked multiplexers"},
	{name: "server09a", words: "an event loop per thread"},
	{name: "server10", words: "completions, io_uring"},
}

// A load is the same for all servers: the number of clients, how many connections each of them
// makes (0: as many as take a while), the number of bytes that they ask for, how many idle
// connections there are beside them, and the size of a pool.
type load struct {
	Children int `json:"clients"`
	Loops    int `json:"connections_of_each"`
	Bytes    int `json:"bytes"`
	Idle     int `json:"idle"`
	Pool     int `json:"pool"`
}

func (l load) String() string { return l.describe(fmt.Sprint(l.Children), fmt.Sprint(l.Idle)) }

// describe describes loads that differ in the number of clients, or of idle connections.
func (l load) describe(clients, idle string) string {
	loops := fmt.Sprint(l.Loops)
	if l.Loops == 0 {
		loops = fmt.Sprintf("for %v", while)
	}
	if idle != "0" {
		clients += ", idle connections: " + idle
	}
	return fmt.Sprintf("clients: %s, connections of each: %s, bytes: %d, size of a pool: %d", clients, loops, l.Bytes, l.Pool)
}

// most returns how many clients a design serves at once, or a number of processes or threads that
// is enough, and the reason.
func (d design) most(pool int) (n int, why string) {
	kind := d.c
	if d.of != "" {
		kind = d.words
	}
	switch {
	case kind == "iterative":
		return 1, "it serves one client at a time"
	case d.pool || slices.Contains([]string{"prefork", "passfd", "prethread"}, kind):
		return pool, fmt.Sprintf("it serves %d clients at a time", pool)
	case kind == "fork":
		return 100, "each client needs a process"
	case kind == "select":
		return 1000, "select(2) takes descriptors below 1,024"
	case d.name == "server05":
		return 512, "it has at most 512 threads"
	case kind == "thread":
		return 1000, "each client needs a thread"
	}
	return 1 << 30, ""
}

// cannot returns the reason why a design cannot be measured under a load, or nil.
func (d design) cannot(l load) error {
	if n, why := d.most(l.Pool); l.Idle > 0 && l.Idle+min(l.Children, 1) > n {
		return impossible(why)
	}
	return nil
}

// impossible is the reason why a design cannot do what is to be measured.
type impossible string

func (i impossible) Error() string { return string(i) }

// A row has the results of one server under one load.
type row struct {
	design design
	load   load
	rounds []figures
	err    error // why there are no more rounds
}

// clearLine returns what removes a line that shows progress from the terminal. It is empty
// when standard error is not a terminal: then no progress is to be shown.
func clearLine() string {
	if _, err := unix.IoctlGetWinsize(unix.Stderr, unix.TIOCGWINSZ); err != nil {
		return ""
	}
	return "\r\x1b[K"
}

// progress shows on a terminal what is being done.
func progress(format string, args ...any) {
	if clear := clearLine(); clear != "" {
		fmt.Fprintf(os.Stderr, clear+format, args...)
	}
}

// build builds the client and these servers.
func build(ctx context.Context, dir string, designs []design) error {
	if module, err := command(ctx, "go", "list", "-m").Output(); err != nil || strings.TrimSpace(string(module)) != "csdesign" {
		return errors.New("it builds the servers, so run it in the directory of the collection")
	}
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	for _, d := range designs {
		if d.of == "" && d.command == "" {
			args = append(args, "csdesign/"+d.name)
		}
	}
	if len(args) == 3 {
		return nil
	}
	cmd := command(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOTMPDIR="+dir) // what go may leave there is removed, too
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// compare runs every server once in each round with each load, so that a machine that becomes
// slower does so for all of them. Every second round is in reverse order; the last one is not.
// When the rows of a server are complete, compare calls ready. It ends early when ctx does.
func compare(ctx context.Context, designs []design, loads []load, rounds int, ready func(rows []row)) ([]row, error) {
	dir, err := os.MkdirTemp("", "compare")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	defer progress("")
	progress("building; the rest will take about %v", (time.Duration(rounds*len(designs)*len(loads)) * eachRun).Round(time.Second))
	if err := build(ctx, dir, designs); err != nil {
		return nil, err
	}
	if err := buildPeers(ctx, dir, designs); err != nil {
		return nil, err
	}
	var rows []row
	for _, d := range designs {
		for _, l := range loads {
			rows = append(rows, row{design: d, load: l, err: d.cannot(l)})
		}
	}
	begin := time.Now()
	for round := range rounds {
		for i := range rows {
			done, all := round*len(rows)+i, rounds*len(rows)
			if (rounds-round)%2 == 0 {
				i = len(rows) - 1 - i
			}
			r := &rows[i]
			left := time.Duration(all-done) * eachRun
			if done > 0 {
				left = time.Since(begin) / time.Duration(done) * time.Duration(all-done)
			}
			progress("round %d of %d: %s (%d of %d), about %v left", round+1, rounds, r.design.name, done+1, all, left.Round(time.Second))
			if r.err == nil {
				f, err := measure(ctx, dir, r.design, r.load)
				switch {
				case ctx.Err() != nil:
					return rows, nil
				case err != nil:
					r.err = err
				default:
					r.rounds = append(r.rounds, f)
				}
			}
			if round+1 == rounds && (i+1)%len(loads) == 0 {
				progress("")
				ready(rows[i+1-len(loads) : i+1])
			}
		}
	}
	return rows, nil
}

// chosen returns the designs with these names, or all if there are none.
func chosen(names []string) []design {
	if len(names) == 0 {
		return designs
	}
	return slices.DeleteFunc(slices.Clone(designs), func(d design) bool { return !slices.Contains(names, d.name) })
}

// output is what is to be printed, or drawn.
type output struct {
	asJSON bool
	svg    string
}

func run(ctx context.Context, designs []design, loads []load, rounds int, out output) error {
	if out.svg != "" {
		// If the picture cannot be written, it is better to know now.
		_, missing := os.Stat(out.svg)
		file, err := os.OpenFile(out.svg, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		file.Close()
		if missing != nil {
			os.Remove(out.svg)
		}
	}
	growing := len(loads) > 1
	ready := func([]row) {}
	if growing && !out.asJSON {
		fmt.Print(growthHeader(loads, rounds))
		ready = func(rows []row) { fmt.Print(growthLine(rows)) }
	}
	rows, err := compare(ctx, designs, loads, rounds, ready)
	if err != nil {
		return err
	}
	draw := writeSVG
	switch {
	case out.asJSON:
		err = writeJSON(os.Stdout, rows)
	case growing:
		fmt.Print(kernelLine(rows))
	default:
		err = writeTable(os.Stdout, rows, rounds)
	}
	if growing {
		draw = writeGrowthSVG
	}
	if out.svg != "" && slices.ContainsFunc(rows, func(r row) bool { return len(r.rounds) > 0 }) {
		err = errors.Join(err, draw(out.svg, rows))
	}
	failed := func(r row) bool { return r.err != nil && !errors.As(r.err, new(impossible)) }
	if slices.ContainsFunc(rows, failed) {
		err = errors.Join(err, errors.New("not all servers could be measured"))
	}
	return err
}

// numbers reads a list of numbers.
func numbers(flag, list string, least, most int) (all []int) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			option.Fail(fmt.Sprintf("invalid value %q for flag -%s: want whole numbers from %d to %d, with commas between them", list, flag, least, most))
		}
		all = append(all, n)
	}
	return all
}

// loads returns a load for each number of clients, or of idle connections.
func loads(clients, idle []int, l load) (all []load) {
	if len(clients) > 1 && len(idle) > 1 {
		option.Fail("only one of -c and -idle can be several numbers")
	}
	for _, l.Children = range clients {
		for _, l.Idle = range idle {
			all = append(all, l)
		}
	}
	return all
}

// checkDescriptors requires that this process, and each server, can have as many descriptors
// as the largest load needs.
func checkDescriptors(loads []load) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return
	}
	for _, l := range loads {
		if need := uint64(l.Children + l.Idle + 50); need > limit.Max {
			option.Fail(fmt.Sprintf("%d clients need %d descriptors, and the limit is %d; as root, raise it with: ulimit -n %d", l.Children+l.Idle, need, limit.Max, need))
		}
	}
}

// A server dies with the thread that started it. The main thread lives as long as the
// process, and main stays on it.
func init() { runtime.LockOSThread() }

func main() {
	runtime.GOMAXPROCS(runtime.NumCPU() + 2) // a thread of the load keeps its processor while it waits
	signal.Ignore(unix.SIGPIPE)              // what was built is removed even if nobody reads the table
	children := option.String("c", "child-num", "N[,N...]", "15", "number of clients at a time; of several numbers it shows how the figures grow")
	loops := option.Int("t", "con-num", 0, 0, 1_000_000, fmt.Sprintf("number of connections of each client, 0 for as many as take %v", while))
	count := option.Int("b", "bytes", 4096, 0, 1<<30, "number of bytes to ask for")
	idle := option.String("", "idle", "N[,N...]", "0", "number of idle connections beside them, one or several as for -c")
	pool := option.Int("n", "pool", 10, 1, 1000, "number of children, or threads, in a pool")
	rounds := option.Int("", "rounds", 5, 1, 1000, "number of rounds")
	asJSON := option.Bool("", "json", "print JSON instead of the table, with the figures of every round")
	var own []design
	option.Func("run", "[NAME=]COMMAND", "measure a server of your own, too; {host}, {port} and {n} stand for the options -i, -p and -n", func(s string) error {
		d, err := parseCommand(s)
		own = append(own, d)
		return err
	})
	with := option.String("", "with", "c,python,static", "", "compare with the same designs in C, in Python, in C with constant bytes")
	svg := option.String("", "svg", "FILE", "", "draw the rates and CPU times into FILE")
	var names []string
	for _, d := range designs {
		names = append(names, d.name)
	}
	names = option.Parse(names...)
	languages, err := languages(*with)
	if err != nil {
		option.Fail(err.Error())
	}
	loads := loads(numbers("c", *children, 1, 10_000), numbers("idle", *idle, 0, 1_000_000), load{Loops: *loops, Bytes: *count, Pool: *pool})
	checkDescriptors(loads)
	var all []design
	if len(names) > 0 || len(own) == 0 {
		all = withPeers(chosen(names), languages)
	}

	ctx, cancel := context.WithCancel(context.Background())
	stop := sock.StopSignal()
	status := make(chan int, 1)
	go func() {
		sig := <-stop
		status <- 128 + int(sig.(unix.Signal))
		cancel()
	}()
	err = run(ctx, append(own, all...), loads, *rounds, output{*asJSON, *svg})
	if ctx.Err() != nil {
		os.Exit(<-status)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// command is a program in a process group of its own, because Ctrl-C is for compare to handle.
// When ctx ends the group gets SIGINT, and the program gets SIGKILL if it does not end then.
func command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGINT) }
	cmd.WaitDelay = patience
	cmd.SysProcAttr = attributes
	return cmd
}
