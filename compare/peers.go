//go:build linux

package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// peers are the same designs in other languages, one program for each language.
//
//go:embed peers/peer.c peers/peer.py
var peers embed.FS

const (
	inC      = "C"
	inPython = "Python"
	static   = "static" // C with constant bytes: the limit that no source of bytes can beat
)

// languages returns the languages of the option -with.
func languages(with string) (languages []string, err error) {
	known := map[string]string{"c": inC, "python": inPython, "static": static}
	for name := range strings.FieldsFuncSeq(with, func(r rune) bool { return r == ',' }) {
		if known[name] == "" {
			return nil, fmt.Errorf("invalid value %q for flag -with: want c, python, static, with commas between them", with)
		}
		languages = append(languages, known[name])
	}
	return languages, nil
}

// withPeers puts the peers of each design behind it.
func withPeers(designs []design, languages []string) (all []design) {
	for _, d := range designs {
		all = append(all, d)
		for _, language := range []string{inC, static} {
			if slices.Contains(languages, language) && d.c != "" {
				all = append(all, design{name: language, words: d.c, of: d.name})
			}
		}
		if slices.Contains(languages, inPython) && d.python != "" {
			all = append(all, design{name: inPython, words: d.python, of: d.name})
		}
	}
	return all
}

// buildPeers puts the peers into the directory. Where there is no C compiler, start says so.
func buildPeers(ctx context.Context, dir string, designs []design) error {
	for _, name := range []string{"peer.c", "peer.py"} {
		text, err := peers.ReadFile("peers/" + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o666)
		}
		if err != nil {
			return err
		}
	}
	cc := command(ctx, "cc", "-O2", "-pthread", "-o", filepath.Join(dir, "peer"), filepath.Join(dir, "peer.c"))
	if cc.Err != nil || !slices.ContainsFunc(designs, func(d design) bool { return d.name == inC || d.name == static }) {
		return nil
	}
	if out, err := cc.CombinedOutput(); err != nil {
		return fmt.Errorf("cc: %w\n%s", err, out)
	}
	return nil
}

// parseCommand reads the value of -run: a name, which may be missing, and a command.
func parseCommand(s string) (d design, err error) {
	d = design{words: "of -run"}
	name, command, named := strings.Cut(s, "=")
	if named && name != "" && !strings.ContainsAny(name, " /") {
		d.name, d.command = name, command
	} else if words := strings.Fields(s); len(words) > 0 {
		d.name, d.command = filepath.Base(words[0]), s
	}
	if strings.TrimSpace(d.command) == "" {
		return d, errors.New("want a command, or a name, = and a command")
	}
	return d, nil
}

// commandLine returns the program of a design and its arguments. The port is for commands; the
// other programs choose one.
func (d design) commandLine(dir, addr string, port uint16, l load) (path string, args []string) {
	peer := []string{d.words, addr, "0", fmt.Sprint(l.Pool)}
	args = []string{"-i", addr, "-p", "0"}
	switch {
	case d.command != "":
		values := strings.NewReplacer("{host}", addr, "{port}", fmt.Sprint(port), "{n}", fmt.Sprint(l.Pool))
		return "/bin/sh", []string{"-c", "exec " + values.Replace(d.command)}
	case d.name == inC, d.name == static:
		path = filepath.Join(dir, "peer")
		if _, err := os.Stat(path); err != nil {
			path = "cc" // which is what is missing: start says so
		}
		if d.name == static {
			peer = append(peer, static)
		}
		return path, peer
	case d.name == inPython:
		return "python3", append([]string{filepath.Join(dir, "peer.py")}, peer...)
	case d.pool:
		args = append(args, "-n", fmt.Sprint(l.Pool))
	}
	if l.Idle > 0 {
		args = append(args, "-timeout", "1h")
	}
	return filepath.Join(dir, d.name), args
}
