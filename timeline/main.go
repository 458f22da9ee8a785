//go:build linux

// Timeline runs servers through one scenario, and draws what happened when. Client 1 connects and is silent for
// 300 ms. Client 2 connects after 100 ms and asks at once. Client 3 asks for 6 MB and reads slowly. The picture
// shows each client, and each process or thread that touches a socket, with the system calls that strace has
// seen. It needs strace.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/option"
)

// A design is a server, and the call in which it waits for clients.
type design struct {
	name, waits string
	pool        bool // has the option -n
}

var designs = []design{
	{"server00", "read", false}, {"server01", "read", false}, {"server01a", "ppoll", false}, {"server02", "pselect6", false},
	{"server03", "accept4", true}, {"server03a", "accept4", true}, {"server03b", "ppoll", true}, {"server03c", "fcntl", true},
	{"server03d", "epoll_pwait", true}, {"server04", "recvmsg", true}, {"server05", "read", false}, {"server05a", "epoll_pwait", false},
	{"server06", "ppoll", false}, {"server07", "epoll_pwait", false}, {"server08", "accept4", true}, {"server08a", "accept4", true},
	{"server09", "epoll_pwait", true}, {"server09a", "epoll_pwait", true}, {"server10", "io_uring_enter", false},
}

// kinds are the kinds of calls, each with its letter and its color. The colors are those of Okabe and Ito, which
// colour-blind people can tell apart.
var kinds = []struct {
	calls, words, letter, color string
}{
	{"accept4", "accept", "a", "#0072b2"},
	{"read recvfrom", "read", "r", "#e69f00"},
	{"write sendto", "write", "w", "#009e73"},
	{"pselect6 poll ppoll epoll_pwait io_uring_enter", "select, poll, epoll, io_uring", "s", "#cc79a7"},
	{"sendmsg recvmsg fcntl", "message, lock", "m", "#56b4e9"},
	{"clone clone3 execve wait4", "child", "c", "#d55e00"},
	{"close shutdown", "close", "x", "#888888"},
}

// kind returns the index of a call's kind.
func kind(name string) int {
	for i, k := range kinds {
		if slices.Contains(strings.Fields(k.calls), name) {
			return i
		}
	}
	return len(kinds) - 1
}

// build builds these servers.
func build(ctx context.Context, dir string, designs []design) error {
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	for _, d := range designs {
		args = append(args, "csdesign/"+d.name)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGINT) }
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// record plays the scenario with each of these servers.
func record(ctx context.Context, designs []design, each func(scene) error) error {
	if err := exec.CommandContext(ctx, "strace", "-o", os.DevNull, "true").Run(); err != nil {
		return fmt.Errorf("it needs strace, and that ptrace is allowed: %w", err)
	}
	dir, err := os.MkdirTemp("", "timeline")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := build(ctx, dir, designs); err != nil {
		return err
	}
	for _, d := range designs {
		s, err := play(ctx, dir, d, 300*time.Millisecond)
		if err == nil {
			err = each(s)
		}
		if err != nil || ctx.Err() != nil {
			return cmp.Or(ctx.Err(), err)
		}
	}
	return nil
}

// writeText prints a line for each row: a letter for a call, large if it works and small if it waits.
func writeText(w io.Writer, s scene) error {
	const columns = 68 // with the name, a terminal of 80
	at := func(t time.Duration) int { return int(t * columns / s.length) }
	text := fmt.Sprintf("%s, %d ms; %d more threads touch no socket\n", s.design.name, s.length.Milliseconds(), s.others)
	line := func(name string, cells []byte) {
		text += fmt.Sprintf("%-10s %s\n", name, strings.TrimRight(string(cells), " "))
	}
	for _, c := range s.clients {
		cells := []byte(strings.Repeat(" ", columns+1))
		for i := at(c.connect); i <= at(c.last); i++ {
			cells[i] = '-'
		}
		for i := at(c.request); i <= at(c.first); i++ {
			cells[i] = '.'
		}
		for i := at(c.first); i <= at(c.last); i++ {
			cells[i] = '='
		}
		line(c.name, cells)
	}
	for _, r := range s.rows {
		cells := []byte(strings.Repeat(" ", columns+1))
		for _, working := range []bool{false, true} { // what works is seen over what waits
			for _, c := range r.calls {
				letter := kinds[kind(c.name)].letter
				if working {
					letter = strings.ToUpper(letter)
				}
				for i := at(c.begin); i <= at(c.end) && c.waits() != working; i++ {
					cells[i] = letter[0]
				}
			}
		}
		line(r.name, cells)
	}
	_, err := io.WriteString(w, text+"\n")
	return err
}

func main() {
	out := option.String("o", "out", "FILE", "", "draw one server into FILE, as SVG")
	update := option.Bool("", "update", "draw each server into its directory, as when.svg")
	var names []string
	for _, d := range designs {
		names = append(names, d.name)
	}
	names = option.Parse(names...)
	chosen := slices.DeleteFunc(slices.Clone(designs), func(d design) bool { return len(names) > 0 && !slices.Contains(names, d.name) })
	if *out != "" && len(chosen) != 1 {
		option.Fail("with -o, name one server")
	}
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer cancel()
	err := record(ctx, chosen, func(s scene) error {
		switch {
		case *update:
			return os.WriteFile(filepath.Join(s.design.name, "when.svg"), s.svg(), 0o666)
		case *out != "":
			return os.WriteFile(*out, s.svg(), 0o666)
		}
		return writeText(os.Stdout, s)
	})
	if errors.Is(err, context.Canceled) {
		os.Exit(130)
	}
	if err != nil {
		log.Fatal(err)
	}
	if !*update && *out == "" {
		legend := "A client: - is silent, . waits for its reply, = reads it\n"
		for _, k := range kinds {
			legend += fmt.Sprintf("%s %s, ", strings.ToUpper(k.letter), k.words)
		}
		fmt.Println(strings.TrimSuffix(legend, ", ") + "\nA capital letter works, a small one waits.")
	}
}
