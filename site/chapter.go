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
		rank := func(name string) int {
			if path.Base(name) == "main.go" {
				return 0
			}
			return 1
		}
		return rank(a) - rank(b)
	})
	return names
}

// newChapter returns the page of a directory. What the chapter says about a function is beside
// the function, if it has a section about the code; a program of misc has its code below.
func newChapter(root fs.FS, dir string, packages []*pkg) (*page, error) {
	text, err := fs.ReadFile(root, path.Join(dir, "README.md"))
	if err != nil {
		return nil, err
	}
	p := &page{}
	title, _, _ := strings.Cut(strings.TrimPrefix(string(text), "# "), "\n")
	p.Title = title
	var before, after strings.Builder
	var said []comment
	withCode := strings.HasPrefix(dir, "misc/")
	for _, s := range sections(string(text)) {
		switch {
		case strings.HasPrefix(s.heading, "The code"):
			_, body, _ := strings.Cut(s.text, "\n")
			introduction, all := comments(body)
			if !withCode {
				before.WriteString("## The code\n\n")
			}
			before.WriteString(introduction + "\n")
			said, withCode = append(said, all...), true
		case withCode && !strings.HasPrefix(dir, "misc/"):
			after.WriteString(s.text)
		default:
			before.WriteString(s.text)
		}
	}
	if name, is := strings.CutPrefix(dir, "internal/"); is {
		before.WriteString("\n[The code of the package](../" + name + ".html)\n")
	}
	p.Before, p.After = markdown([]byte(before.String())), markdown([]byte(after.String()))
	if !withCode {
		return p, nil
	}
	old := map[string]bool{}
	if p.Base = bases[dir]; p.Base != "" {
		for _, name := range sources(root, p.Base) {
			text, err := fs.ReadFile(root, name)
			if err != nil {
				return nil, err
			}
			for line := range strings.Lines(string(text)) {
				old[strings.TrimSpace(line)] = true
			}
		}
	}
	for _, name := range sources(root, dir) {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return nil, err
		}
		f, err := newFile(path.Base(name), string(text), old, up(name), packages)
		if err != nil {
			return nil, err
		}
		p.Files = append(p.Files, f)
	}
	place(p.Files, said)
	if script, is := originals[dir]; is {
		name, functions, _ := strings.Cut(script, ": ")
		p.Original = &original{Name: name + ".py", URL: "https://github.com/rspivak/csdesign/blob/master/" + name + ".py"}
		for function := range strings.FieldsSeq(functions) {
			p.Original.Functions = append(p.Original.Functions, [2]string{function, mixedCaps(function)})
		}
	}
	return p, nil
}

// place puts each comment beside the function that it names first.
func place(files []file, said []comment) {
	var rest []string
	for _, c := range said {
		target := (*row)(nil)
		for _, name := range c.names {
			for i := range files {
				for j := range files[i].Rows {
					if r := &files[i].Rows[j]; target == nil && r.Name == name {
						target = r
					}
				}
			}
		}
		if target == nil {
			rest = append(rest, c.text)
			continue
		}
		target.Words += markdown([]byte(c.text))
	}
	if len(rest) > 0 { // about a function of another file
		files[0].Rows[0].Words += markdown([]byte(strings.Join(rest, "\n")))
	}
}
