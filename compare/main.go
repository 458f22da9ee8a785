// Compare runs every design under the same load and prints a table, as Stevens does in
// chapter 30 of UNIX Network Programming. It builds the servers and the client of this
// collection, and leaves nothing behind.
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
	{name: "server04", words: "preforked, parent passes", c: "passfd", python: "passfd", pool: true},
	{name: "server05", words: "one thread per client", c: "thread"},
	{name: "server05a", words: "one goroutine per client"},
	{name: "server06", words: "multiplexing, poll", c: "poll"},
	{name: "server07", words: "multiplexing, epoll", c: "epoll"},
	{name: "server08", words: "prethreaded, threads accept", c: "prethread", pool: true},
	{name: "server08a", words: "prethreaded, main accepts", pool: true},
	{name: "server09", words: "preforked multiplexers"},
	{name: "server10", words: "completions, io_uring"},
}

// A load is the same for all servers: the number of the client's children, how many
// connections each of them makes (0: as many as take a while), the number of bytes that they
// ask for, and the size of a pool.
type load struct {
	Children int `json:"children"`
	Loops    int `json:"connections_of_each"`
	Bytes    int `json:"bytes"`
	Pool     int `json:"pool"`
}

func (l load) String() string {
	loops := fmt.Sprint(l.Loops)
	if l.Loops == 0 {
		loops = fmt.Sprintf("for %v", while)
	}
	return fmt.Sprintf("clients: %d, connections of each: %s, bytes: %d, size of a pool: %d", l.Children, loops, l.Bytes, l.Pool)
}

// A row has the results of one server.
type row struct {
	design design
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
	args := []string{"build", "-o", dir + string(filepath.Separator), "csdesign/client"}
	for _, d := range designs {
		if d.of == "" {
			args = append(args, "csdesign/"+d.name)
		}
	}
	cmd := command(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "GOTMPDIR="+dir) // what go may leave there is removed, too
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// compare runs every server once in each round, so that a machine that becomes slower does
// so for all of them. Every second round is in reverse order. compare ends early when ctx
// does.
func compare(ctx context.Context, designs []design, l load, rounds int) ([]row, error) {
	dir, err := os.MkdirTemp("", "compare")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	defer progress("")
	progress("building; the rest will take about %v", (time.Duration(rounds*len(designs)) * eachRun).Round(time.Second))
	if err := build(ctx, dir, designs); err != nil {
		return nil, err
	}
	if err := buildPeers(ctx, dir, designs); err != nil {
		return nil, err
	}
	rows := make([]row, len(designs))
	order := make([]*row, len(designs))
	for i, d := range designs {
		rows[i].design, order[i] = d, &rows[i]
	}
	begin := time.Now()
	for round := range rounds {
		for i, r := range order {
			if r.err != nil {
				continue
			}
			done, all := round*len(rows)+i, rounds*len(rows)
			left := time.Duration(all-done) * eachRun
			if done > 0 {
				left = time.Since(begin) / time.Duration(done) * time.Duration(all-done)
			}
			progress("round %d of %d: %s (%d of %d), about %v left", round+1, rounds, r.design.name, done+1, all, left.Round(time.Second))
			f, err := measure(ctx, dir, r.design, l)
			switch {
			case ctx.Err() != nil:
				return rows, nil
			case err != nil:
				r.err = err
			default:
				r.rounds = append(r.rounds, f)
			}
		}
		slices.Reverse(order)
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

func run(ctx context.Context, designs []design, l load, rounds int, asJSON bool, svg string) error {
	if svg != "" {
		// If the picture cannot be written, it is better to know now.
		_, missing := os.Stat(svg)
		file, err := os.OpenFile(svg, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		file.Close()
		if missing != nil {
			os.Remove(svg)
		}
	}
	rows, err := compare(ctx, designs, l, rounds)
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(os.Stdout, rows, l)
	} else {
		err = writeTable(os.Stdout, rows, l, rounds)
	}
	if svg != "" && slices.ContainsFunc(rows, func(r row) bool { return len(r.rounds) > 0 }) {
		err = errors.Join(err, writeSVG(svg, rows, l))
	}
	if slices.ContainsFunc(rows, func(r row) bool { return r.err != nil }) {
		err = errors.Join(err, errors.New("not all servers could be measured"))
	}
	return err
}

// A server dies with the thread that started it. The main thread lives as long as the
// process, and main stays on it.
func init() { runtime.LockOSThread() }

func main() {
	signal.Ignore(unix.SIGPIPE) // what was built is removed even if nobody reads the table
	children := option.Int("c", "child-num", 15, 1, 1024, "number of children of the client")
	loops := option.Int("t", "con-num", 0, 0, 1_000_000, fmt.Sprintf("number of connections of each child, 0 for as many as take %v", while))
	count := option.Int("b", "bytes", 4096, 0, 1<<30, "number of bytes to ask for")
	pool := option.Int("n", "pool", 10, 1, 1000, "number of children, or threads, in a pool")
	rounds := option.Int("", "rounds", 5, 1, 1000, "number of rounds")
	asJSON := option.Bool("", "json", "print JSON instead of the table, with the figures of every round")
	with := option.String("", "with", "c,python", "compare with the same designs in C, in Python, or in both")
	svg := option.String("", "svg", "FILE", "write a picture of the rates and CPU times to FILE")
	var names []string
	for _, d := range designs {
		names = append(names, d.name)
	}
	names = option.Parse(names...)
	languages, err := languages(*with)
	if err != nil {
		option.Fail(err.Error())
	}
	l := load{Children: *children, Loops: *loops, Bytes: *count, Pool: *pool}

	ctx, cancel := context.WithCancel(context.Background())
	stop := sock.Stop(option.NoLimit)
	status := make(chan int, 1)
	go func() {
		sig := <-stop
		status <- 128 + int(sig.(unix.Signal))
		cancel()
	}()
	err = run(ctx, withPeers(chosen(names), languages), l, *rounds, *asJSON, *svg)
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
