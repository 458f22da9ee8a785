// Compare runs every design under the same load and prints one table, as Stevens
// does in chapter 30 of UNIX Network Programming. It builds the servers and the client
// of this collection, and leaves nothing behind.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	"csdesign/internal/option"
)

// A design is a server, in a few words.
type design struct {
	name, words string
	pool        bool // has as many children, or threads, as -n says
}

var designs = []design{
	{"server01", "one child per client", false},
	{"server02", "multiplexing, select", false},
	{"server03", "preforked, children accept", true},
	{"server03a", "the same, and counts", true},
	{"server04", "preforked, parent passes", true},
	{"server05", "one thread per client", false},
	{"server06", "multiplexing, poll", false},
	{"server07", "multiplexing, epoll", false},
	{"server08", "prethreaded, threads accept", true},
}

// A load is what all servers have to bear: so many children of the client make so
// many connections each, and ask for so many bytes. A pool has so many children, or
// threads.
type load struct {
	Children int `json:"children"`
	Loops    int `json:"connections_of_each"`
	Bytes    int `json:"bytes"`
	Pool     int `json:"pool"`
}

func (l load) String() string {
	return fmt.Sprintf("clients: %d, connections of each: %d, bytes: %d, size of a pool: %d", l.Children, l.Loops, l.Bytes, l.Pool)
}

// A row is what is known of one server.
type row struct {
	design design
	rounds []figures
	err    error // why there are no more
}

// progress says on a terminal what is going on, in place of what it said before.
func progress(format string, args ...any) {
	if clear := option.ClearLine(); clear != "" {
		fmt.Fprintf(os.Stderr, clear+format, args...)
	}
}

// build builds the client and these servers.
func build(ctx context.Context, dir string, designs []design) error {
	args := []string{"build", "-o", dir + string(filepath.Separator), "csdesign/client"}
	for _, d := range designs {
		args = append(args, "csdesign/"+d.name)
	}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// compare runs every server once in each round, in turns, so that a machine that
// becomes slower does so for all of them. It ends early when ctx does.
func compare(ctx context.Context, dir string, designs []design, l load, rounds int) []row {
	rows := make([]row, len(designs))
	for i := range rows {
		rows[i].design = designs[i]
	}
	for round := range rounds {
		for i, d := range designs {
			r := &rows[i]
			if r.err != nil {
				continue
			}
			progress("round %d of %d: %s (%d of %d)", round+1, rounds, d.name,
				round*len(designs)+i+1, rounds*len(designs))
			f, err := measure(ctx, dir, d, l)
			if ctx.Err() != nil {
				return rows
			}
			if err != nil {
				r.err = err
				continue
			}
			r.rounds = append(r.rounds, f)
		}
	}
	return rows
}

// writeJSON prints the figures of every round, and their medians.
func writeJSON(rows []row, l load) error {
	type server struct {
		Name   string    `json:"name"`
		Design string    `json:"design"`
		Error  string    `json:"error,omitempty"`
		Median *figures  `json:"median"`
		Rounds []figures `json:"rounds"`
	}
	result := struct {
		Load    load     `json:"load"`
		Servers []server `json:"servers"`
	}{Load: l}
	for _, r := range rows {
		s := server{Name: r.design.name, Design: r.design.words, Rounds: append([]figures{}, r.rounds...)}
		if r.err != nil {
			s.Error = r.err.Error()
		}
		if len(r.rounds) > 0 {
			m := median(r.rounds)
			s.Median = &m
		}
		result.Servers = append(result.Servers, s)
	}
	enc := json.NewEncoder(os.Stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(result)
}

// chosen returns the designs with these names, all if there are none.
func chosen(names []string) []design {
	if len(names) == 0 {
		return designs
	}
	return slices.DeleteFunc(slices.Clone(designs), func(d design) bool { return !slices.Contains(names, d.name) })
}

func run(ctx context.Context, designs []design, l load, rounds int, asJSON bool, svg string) error {
	dir, err := os.MkdirTemp("", "compare")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	progress("building")
	if err := build(ctx, dir, designs); err != nil {
		progress("")
		return err
	}
	rows := compare(ctx, dir, designs, l, rounds)
	progress("")
	if asJSON {
		err = writeJSON(rows, l)
	} else {
		err = writeTable(os.Stdout, rows, l, rounds)
	}
	if svg != "" {
		err = errors.Join(err, writeSVG(svg, rows, l))
	}
	if slices.ContainsFunc(rows, func(r row) bool { return r.err != nil }) {
		err = errors.Join(err, errors.New("not all servers could be measured"))
	}
	return err
}

// Servers die with the thread that started them, and main is kept on the first one,
// which ends with the process.
func init() { runtime.LockOSThread() }

func main() {
	log.SetFlags(0)
	log.SetPrefix("compare: ")
	childNum := option.Int("c", "child-num", 15, 1, 1024, "number of children of the client")
	conNum := option.Int("t", "con-num", 100, 1, 1_000_000, "number of connections of each child")
	count := option.Int("b", "bytes", 4096, 0, 1<<30, "number of bytes to ask for")
	pool := option.Int("n", "pool", 10, 1, 1000, "number of children, or threads, in a pool")
	rounds := option.Int("", "rounds", 3, 1, 1000, "number of rounds")
	asJSON := option.Bool("json", "print JSON instead of the table, with the figures of every round")
	svg := option.String("", "svg", "FILE", "write a picture of the rates and CPU times to FILE")
	var names []string
	for _, d := range designs {
		names = append(names, d.name)
	}
	names = option.Parse(names...)
	l := load{Children: *childNum, Loops: *conNum, Bytes: *count, Pool: *pool}

	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer cancel()
	err := run(ctx, chosen(names), l, *rounds, *asJSON, *svg)
	if ctx.Err() != nil {
		os.Exit(130)
	}
	if err != nil {
		log.Fatal(err)
	}
}
