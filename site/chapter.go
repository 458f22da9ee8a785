package main

import (
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// A section is a part of a chapter under a heading of the second level.
type section struct{ heading, text string }

// sections splits a chapter at its headings. The first section is what comes before them.
func sections(text string) (all []section) {
	all = []section{{}}
	fenced := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if heading, is := strings.CutPrefix(line, "## "); is && !fenced {
			all = append(all, section{heading: strings.TrimSpace(heading)})
		}
		all[len(all)-1].text += line
	}
	return all
}

// blocks splits a text at its empty lines, but not inside of a fence.
func blocks(text string) (all []string) {
	fenced, open := false, false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		if strings.TrimSpace(line) == "" && !fenced {
			open = false
			continue
		}
		if !open {
			all, open = append(all, ""), true
		}
		all[len(all)-1] += line
	}
	return all
}

var named = regexp.MustCompile("\\*\\*`(\\w+)`\\*\\*")

// A comment is what a chapter says about functions: a paragraph that begins with their names, and
// those that follow it.
type comment struct {
	names []string
	text  string
}

// comments splits what a chapter says about the code. What comes before the first name is the
// introduction.
func comments(text string) (introduction string, all []comment) {
	for _, block := range blocks(text) {
		switch {
		case strings.HasPrefix(block, "**`"):
			c := comment{text: block}
			for _, match := range named.FindAllStringSubmatch(block, -1) {
				c.names = append(c.names, match[1])
			}
			all = append(all, c)
		case len(all) > 0:
			all[len(all)-1].text += "\n" + block
		default:
			introduction += block + "\n"
		}
	}
	return introduction, all
}

// sources returns the names of a program's files, main.go first.
func sources(root fs.FS, dir string) (names []string) {
	names, _ = fs.Glob(root, path.Join(dir, "*.go"))
	names = slices.DeleteFunc(names, func(name string) bool {
		return strings.HasSuffix(name, "_test.go") || path.Base(name) == "other.go"
	})
	slices.SortStableFunc(names, func(a, b string) int {
		return strings.Count(path.Base(b), "main.go") - strings.Count(path.Base(a), "main.go")
	})
	return names
}

// wayOn is the end of a chapter, which says what comes next. A page has links for that.
var wayOn = regexp.MustCompile(`\n(Previous: |Next: |Back to )[^#]*$`)

// newChapter returns the page of a directory. What the chapter says about a function is beside
// the function, if it has sections about the code. A program of misc has its code below.
func newChapter(root fs.FS, dir string, packages []*pkg) (*page, error) {
	text, err := fs.ReadFile(root, path.Join(dir, "README.md"))
	if err != nil {
		return nil, err
	}
	p := &page{Plain: strings.HasPrefix(dir, "misc/")}
	p.Title, _, _ = strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
	var before, after strings.Builder
	withCode := p.Plain
	if withCode || strings.HasPrefix(dir, "server") || dir == "client" {
		if err := p.readFiles(root, dir, packages); err != nil {
			return nil, err
		}
	}
	for _, s := range sections(wayOn.ReplaceAllString(string(text), "")) {
		switch {
		case strings.HasPrefix(s.heading, "The code") && len(p.Files) > 0:
			f := &p.Files[0]
			for i := range p.Files {
				if strings.HasSuffix(s.heading, " "+p.Files[i].Name) {
					f = &p.Files[i]
				}
			}
			_, body, _ := strings.Cut(s.text, "\n")
			introduction, said := comments(body)
			f.Words += markdown([]byte(introduction))
			f.place(said)
			withCode = true
		case withCode && s.heading != "" && (!p.Plain || s.heading == "Exercises"):
			after.WriteString(s.text)
		default:
			before.WriteString(s.text)
		}
	}
	if name, is := strings.CutPrefix(dir, "internal/"); is {
		before.WriteString("\n[The code of the package](../" + name + ".html)\n")
	}
	p.Before, p.After = markdown([]byte(before.String())), markdown([]byte(after.String()))
	return p, nil
}

// readFiles reads the sources of a program, and the functions of its original.
func (p *page) readFiles(root fs.FS, dir string, packages []*pkg) error {
	old := map[string]bool{}
	if p.Base = bases[dir]; p.Base != "" {
		for _, name := range sources(root, p.Base) {
			text, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(text)) {
				old[strings.TrimSpace(line)] = true
			}
		}
	}
	p.Originals = originals(dir)
	for _, name := range sources(root, dir) {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		f, err := newFile(path.Base(name), string(text), old, up(name), packages)
		if err != nil {
			return err
		}
		for i := range f.Rows {
			for j, o := range p.Originals {
				if o.Here == f.Rows[i].Name && o.Here != "" {
					f.Rows[i].Original = &p.Originals[j]
				}
			}
		}
		p.Files = append(p.Files, f)
	}
	return nil
}

// place puts each comment beside the function that it names first. One with a diagram, which is
// indented, is above the function, because it needs the width.
func (f *file) place(said []comment) {
	for _, c := range said {
		i := slices.IndexFunc(f.Rows, func(r row) bool { return slices.Contains(c.names, r.Name) })
		switch text := markdown([]byte(c.text)); {
		case i < 0: // about a function of another file
			f.Words += text
		case strings.Contains(c.text, "\n    "):
			f.Rows[i].Above += text
		default:
			f.Rows[i].Words += text
		}
	}
}
