package main

import (
	"context"
	"embed"
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
)

// languages returns the languages of the option -with.
func languages(with string) (languages []string, err error) {
	known := map[string]string{"c": inC, "python": inPython}
	for name := range strings.FieldsFuncSeq(with, func(r rune) bool { return r == ',' }) {
		if known[name] == "" {
			return nil, fmt.Errorf("invalid value %q for flag -with: want c, python, or c,python", with)
		}
		languages = append(languages, known[name])
	}
	return languages, nil
}

// withPeers puts the peers of each design behind it.
func withPeers(designs []design, languages []string) (all []design) {
	for _, d := range designs {
		all = append(all, d)
		if slices.Contains(languages, inC) && d.c != "" {
			all = append(all, design{name: inC, words: d.c, of: d.name})
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
	if cc.Err != nil || !slices.ContainsFunc(designs, func(d design) bool { return d.name == inC }) {
		return nil
	}
	if out, err := cc.CombinedOutput(); err != nil {
		return fmt.Errorf("cc: %w\n%s", err, out)
	}
	return nil
}

// commandLine returns the program of a design and its arguments.
func (d design) commandLine(dir, addr string, l load) (path string, args []string) {
	peer := []string{d.words, addr, "0", fmt.Sprint(l.Pool)}
	switch {
	case d.name == inC:
		path = filepath.Join(dir, "peer")
		if _, err := os.Stat(path); err != nil {
			path = "cc" // which is what is missing: start says so
		}
		return path, peer
	case d.name == inPython:
		return "python3", append([]string{filepath.Join(dir, "peer.py")}, peer...)
	case d.pool:
		return filepath.Join(dir, d.name), []string{"-i", addr, "-p", "0", "-n", fmt.Sprint(l.Pool)}
	}
	return filepath.Join(dir, d.name), []string{"-i", addr, "-p", "0"}
}
