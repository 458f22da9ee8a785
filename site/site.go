package main

import (
	"bytes"
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
	URL        string // from the top
	Root       string // the way to the top
	Prev, Next *entry
	Before     template.HTML // over the full width
	Files      []file        // words and code side by side
	Plain      bool          // there are no words beside the code
	After      template.HTML
	Originals  []original
	Base       string  // the program whose lines are not new
	Contents   []entry // of all pages
	Headings   []link  // of this one
}

type link struct{ Name, URL string }

// An entry is a page in the list of all.
type entry struct{ Group, Name, Rest, URL string }

// A file is a source file of a program.
type file struct {
	ID, Name string
	Words    template.HTML // above it
	Rows     []row
}

// A row is a piece of a file, and what the chapter says about it.
type row struct {
	ID       string
	Name     string        // of a function
	Title    string        // stands for the code when it is folded
	Declares []string      // a method as Type.Method
	Above    template.HTML // words with a diagram, over the full width
	Words    template.HTML
	Code     template.HTML
	Folded   bool
	Calls    []link
	Original *original
}

// An original is a function of csdesign, and what has become of it.
type original struct{ Script, Name, URL, Here, Note string }

// upstream is the version of csdesign whose lines are linked.
const upstream = "https://github.com/rspivak/csdesign/blob/e64cdfa4566dc54a4cc55dd8f418365713d64bcb/"

// originals returns the functions of a program's script.
func originals(program string) (all []original) {
	text, err := assets.ReadFile("assets/originals.txt")
	if err != nil {
		panic(err) // it is in the program
	}
	for line := range strings.Lines(string(text)) {
		head, note, _ := strings.Cut(strings.TrimSpace(line), ": ")
		f := strings.Fields(head)
		if f[0] != program {
			continue
		}
		from, to, _ := strings.Cut(f[2], "-")
		all = append(all, original{f[0] + ".py", f[1], upstream + f[0] + ".py#L" + from + "-L" + to, strings.Trim(f[3], "-"), note})
	}
	return all
}

// bases are the programs which others differ from: what is new in these is marked.
var bases = map[string]string{
	"server01": "server00", "server01a": "server01", "server02": "server00", "server03": "server01",
	"server03a": "server03", "server03b": "server03a", "server03c": "server03a", "server03d": "server03b",
	"server04": "server03a", "server05": "server01", "server05a": "server05", "server06": "server02",
	"server07": "server06", "server08": "server05", "server08a": "server08", "server09": "server07",
	"server09a": "server07", "server10": "server07",
}

// readingOrder returns the directories with a chapter: the designs, as the table of the front page
// has them, the client, what stands below them, as the tables there have it, and what is about all.
func readingOrder(root fs.FS) (dirs []string, err error) {
	table := func(dir string) (names []string) {
		text, readErr := fs.ReadFile(root, path.Join(dir, "README.md"))
		if readErr != nil {
			err = readErr
		}
		for _, match := range regexp.MustCompile(`(?m)^\| \[(\w+)\]\(\S+\) \|`).FindAllSubmatch(text, -1) {
			names = append(names, path.Join(dir, string(match[1])))
		}
		return names
	}
	dirs = slices.Concat(table("."), []string{"client", "misc"}, table("misc"), []string{"internal"}, table("internal"),
		[]string{"test/contract", "test/million", "compare"})
	return dirs, err
}

// groups are the headings of the list of all pages, before these.
var groups = map[string]string{
	"server00/index.html": "The designs", "misc/index.html": "Below read and write", "internal/index.html": "What they share",
	"test/contract/index.html": "Tests and figures",
}

// up returns the way from a page to the top: "../" for each directory.
func up(name string) string { return strings.Repeat("../", strings.Count(name, "/")) }

// collect returns the pages in reading order.
func collect(root fs.FS) (all []*page, err error) {
	glossary, err := fs.ReadFile(root, "GLOSSARY.md")
	if err != nil {
		return nil, err
	}
	words = readGlossary(string(glossary))
	dirs, err := readingOrder(root)
	if err != nil {
		return nil, err
	}
	packages, err := readPackages(root)
	if err != nil {
		return nil, err
	}
	for _, dir := range append([]string{"."}, dirs...) {
		p, err := newChapter(root, dir, packages)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", dir, err)
		}
		p.URL = path.Join(dir, "index.html")
		all = append(all, p)
		for _, code := range packages {
			if dir == path.Dir("internal/"+code.chapter) {
				p := code.page()
				p.URL = "internal/" + code.name + ".html"
				all = append(all, p)
			}
		}
	}
	peers, err := peersPage(root)
	if err != nil {
		return nil, err
	}
	return append(all, peers, &page{Title: "The words", URL: "GLOSSARY.html", Before: anchorWords(markdown(glossary))}), nil
}

var heading = regexp.MustCompile(`<h2 id="([^"]+)">(.*?) <a class="anchor"`)

// finish sets what a page shows of the others, and the sizes of its pictures.
func finish(all []*page, pictures map[string][]byte) {
	var contents []entry
	for _, p := range all {
		e := entry{Group: groups[p.URL], Name: p.Title, URL: p.URL}
		if name, rest, is := strings.Cut(p.Title, ": "); is && !strings.Contains(name, " ") {
			e.Name, e.Rest = name, rest
		}
		contents = append(contents, e)
	}
	for i, p := range all {
		p.Root, p.Contents = up(p.URL), contents
		if i > 0 {
			p.Prev = &contents[i-1]
		}
		if i+1 < len(all) {
			p.Next = &contents[i+1]
		}
		p.Before, p.After = sized(p.Before, p.URL, pictures), sized(p.After, p.URL, pictures)
		add := func(part template.HTML) {
			for _, match := range heading.FindAllStringSubmatch(string(part), -1) {
				p.Headings = append(p.Headings, link{plain(match[2]), "#" + match[1]})
			}
		}
		add(p.Before)
		for _, f := range p.Files {
			p.Headings = append(p.Headings, link{f.Name, "#" + f.ID})
		}
		add(p.After)
	}
}

var (
	image = regexp.MustCompile(`<img src="([^"]+\.svg)"([^>]*)>`)
	size  = regexp.MustCompile(`<svg[^>]* viewBox="0 0 ([\d.]+) ([\d.]+)"`)
)

// sized says the size of each picture, so that nothing moves when it is loaded, and makes it a link
// to the picture alone.
func sized(part template.HTML, page string, pictures map[string][]byte) template.HTML {
	return template.HTML(image.ReplaceAllStringFunc(string(part), func(img string) string {
		match := image.FindStringSubmatch(img)
		of := append(size.FindSubmatch(pictures[path.Join(path.Dir(page), match[1])]), nil, nil, nil)
		return fmt.Sprintf(`<a class="zoom" href="%s"><img src="%[1]s" width="%s" height="%s" loading="lazy"%s></a>`, match[1], of[1], of[2], match[2])
	}))
}

func (p *page) render(name string) ([]byte, error) {
	var buf bytes.Buffer
	err := templates.ExecuteTemplate(&buf, name, p)
	return buf.Bytes(), err
}

// build returns all pages and assets, by name.
func build(root fs.FS) (pages map[string][]byte, err error) {
	pages = map[string][]byte{}
	for _, name := range []string{"style.css", "script.js", "favicon.svg"} {
		if pages[name], err = assets.ReadFile("assets/" + name); err != nil {
			return nil, err
		}
	}
	for _, pattern := range []string{"compare/*.svg", "*/when.svg"} {
		names, err := fs.Glob(root, pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if pages[name], err = fs.ReadFile(root, name); err != nil {
				return nil, err
			}
		}
	}
	all, err := collect(root)
	if err != nil {
		return nil, err
	}
	finish(all, pages)
	for _, p := range all {
		if pages[p.URL], err = p.render("page.html"); err != nil {
			return nil, err
		}
	}
	if pages["book.html"], err = book(all); err != nil {
		return nil, err
	}
	pages["index.js"], err = searchIndex(all)
	return pages, err
}

// peersPage has the programs in C and Python.
func peersPage(root fs.FS) (*page, error) {
	p := &page{Title: "The peers", URL: "compare/peers/index.html", Plain: true, Before: "<h1>The same designs in C and in Python</h1>"}
	for _, name := range []string{"peer.c", "peer.py"} {
		text, err := fs.ReadFile(root, "compare/peers/"+name)
		if err != nil {
			return nil, err
		}
		code, err := highlight(name, string(text), nil, nil)
		if err != nil {
			return nil, err
		}
		p.Files = append(p.Files, file{ID: "file-" + name, Name: name, Rows: []row{{ID: name, Title: name, Code: code.lines(0, len(code))}}})
	}
	return p, nil
}
