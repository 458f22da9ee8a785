package main

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

//go:embed assets
var assets embed.FS

var templates = template.Must(template.ParseFS(assets, "assets/*.html"))

// A page is what a template shows.
type page struct {
	Title      string
	Root       string // the way to the top
	Prev, Next *link
	Before     template.HTML // over the full width
	Files      []file        // in two columns
	After      template.HTML
	Original   *original
	Base       string // the program whose lines are not new
}

type link struct{ Name, URL string }

// A file is a source file of a program.
type file struct {
	Name string
	Rows []row
}

// A row is a piece of a file, and what the chapter says about it.
type row struct {
	ID       string
	Name     string   // of a function
	Declares []string // a method as Type.Method
	Words    template.HTML
	Code     template.HTML
	Imports  bool // it is folded
	Calls    []link
}

// An original is a script of csdesign.
type original struct {
	Name, URL string
	Functions [][2]string // its name, and ours
}

// originals are the scripts and their functions.
var originals = map[string]string{
	"client":    "client: request main",
	"server01":  "server01: _reap_children handle serve_forever main",
	"server02":  "server02: serve_forever main",
	"server03":  "server03: handle child_loop create_child _cleanup serve_forever main",
	"server03a": "server03a: handle child_loop create_child _exit_handler create_array inc_counter print_stats serve_forever main",
	"server04":  "server04: write_fd read_fd handle child_loop create_child serve_forever main",
}

// bases are the programs which others differ from: what is new in these is marked.
var bases = map[string]string{
	"server01": "server00", "server01a": "server01", "server02": "server00", "server03": "server01",
	"server03a": "server03", "server03b": "server03a", "server03c": "server03a", "server03d": "server03b",
	"server04": "server03a", "server05": "server01", "server05a": "server05", "server06": "server02",
	"server07": "server06", "server08": "server05", "server08a": "server08", "server09": "server07",
	"server09a": "server07", "server10": "server07",
}

// readingOrder returns the directories of the table of designs, as the front page has them, and
// then the other chapters.
func readingOrder(root fs.FS) (dirs []string, err error) {
	front, err := fs.ReadFile(root, "README.md")
	if err != nil {
		return nil, err
	}
	for _, match := range regexp.MustCompile(`(?m)^\| \[(server\w+)\]\(\S+\) \|`).FindAllSubmatch(front, -1) {
		dirs = append(dirs, string(match[1]))
	}
	var others []string
	for _, pattern := range []string{"*/README.md", "*/*/README.md"} {
		found, err := fs.Glob(root, pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range found {
			if dir := path.Dir(name); !slices.Contains(dirs, dir) && dir != "site" {
				others = append(others, dir)
			}
		}
	}
	first := []string{"client", "compare", "internal", "misc"}
	slices.SortFunc(others, func(a, b string) int {
		rank := func(dir string) int { return (slices.Index(first, dir) + len(first) + 1) % (len(first) + 1) }
		return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
	})
	return append(dirs, others...), nil
}

// mixedCaps is the form in which the functions of the originals have their names here.
func mixedCaps(name string) string {
	words := strings.Split(strings.Trim(name, "_"), "_")
	for i, word := range words[1:] {
		words[i+1] = strings.ToUpper(word[:1]) + word[1:]
	}
	return strings.ReplaceAll(strings.Join(words, ""), "Fd", "FD")
}

func (p *page) render(template string) ([]byte, error) {
	var buf bytes.Buffer
	err := templates.ExecuteTemplate(&buf, template, p)
	return buf.Bytes(), err
}

// up returns the way from a page to the top: "../" for each directory.
func up(name string) string { return strings.Repeat("../", strings.Count(name, "/")) }

// build returns all pages and assets, by name.
func build(root fs.FS) (pages map[string][]byte, err error) {
	pages = map[string][]byte{}
	add := func(name string, p *page) error {
		p.Root = up(name)
		pages[name], err = p.render("page.html")
		return err
	}
	for _, name := range []string{"style.css", "script.js"} {
		if pages[name], err = assets.ReadFile("assets/" + name); err != nil {
			return nil, err
		}
	}
	dirs, err := readingOrder(root)
	if err != nil {
		return nil, err
	}
	packages, err := readPackages(root)
	if err != nil {
		return nil, err
	}
	for _, p := range packages {
		if err := add("internal/"+p.name+".html", p.page(packages)); err != nil {
			return nil, err
		}
	}
	all := append([]string{"."}, dirs...)
	for i, dir := range all {
		p, err := newChapter(root, dir, packages)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		name := path.Join(dir, "index.html")
		to := func(dir string) *link { return &link{path.Base(dir), up(name) + path.Join(dir, "index.html")} }
		if i > 0 {
			p.Prev = to(all[i-1])
			if i == 1 {
				p.Prev.Name = "all designs"
			}
		}
		if i+1 < len(all) {
			p.Next = to(all[i+1])
		}
		if err := add(name, p); err != nil {
			return nil, err
		}
	}
	glossary, err := fs.ReadFile(root, "GLOSSARY.md")
	if err != nil {
		return nil, err
	}
	if err := add("GLOSSARY.html", &page{Title: "The words", Before: markdown(glossary)}); err != nil {
		return nil, err
	}
	if err := addPeers(root, add); err != nil {
		return nil, err
	}
	pictures, err := fs.Glob(root, "compare/*.svg")
	if err != nil {
		return nil, err
	}
	when, err := fs.Glob(root, "*/when.svg")
	if err != nil {
		return nil, err
	}
	for _, name := range append(pictures, when...) {
		if pages[name], err = fs.ReadFile(root, name); err != nil {
			return nil, err
		}
	}
	return pages, nil
}

// addPeers adds a page with the programs in C and Python.
func addPeers(root fs.FS, add func(name string, p *page) error) error {
	p := &page{Title: "The peers", Before: "<h1>The same designs in C and in Python</h1>"}
	for _, name := range []string{"peer.c", "peer.py"} {
		text, err := fs.ReadFile(root, "compare/peers/"+name)
		if err != nil {
			return err
		}
		code, err := highlight(name, string(text), nil, nil)
		if err != nil {
			return err
		}
		p.Files = append(p.Files, file{Name: name, Rows: []row{{ID: name, Code: code.lines(0, len(code))}}})
	}
	return add("compare/peers/index.html", p)
}
