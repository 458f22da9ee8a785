package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"html"
	"html/template"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/alecthomas/chroma/v2"
	"github.com/alecthomas/chroma/v2/lexers"
)

// code is a source, a line of HTML each.
type code []string

func (c code) lines(from, to int) template.HTML { return template.HTML(strings.Join(c[from:to], "")) }

// class returns the class of a token, or nothing.
func class(t chroma.TokenType) string {
	switch {
	case t.InCategory(chroma.Comment):
		return "c"
	case t.InCategory(chroma.Keyword):
		return "k"
	case t.InSubCategory(chroma.LiteralString):
		return "s"
	case t.InSubCategory(chroma.LiteralNumber):
		return "m"
	case t == chroma.NameFunction:
		return "f"
	}
	return ""
}

// highlight returns a source with its tokens marked. links are where names lead to, by their
// offset; lines that are not among the old ones are new.
func highlight(name, text string, links map[int]string, old map[string]bool) (code, error) {
	iterator, err := chroma.Coalesce(lexers.Match(name)).Tokenise(&chroma.TokeniseOptions{State: "root"}, text)
	if err != nil {
		return nil, err
	}
	var lines code
	var line, plain strings.Builder
	end := func() {
		class := "l"
		if t := strings.TrimSpace(plain.String()); len(old) > 0 && len(t) > 1 && !old[t] {
			class = "l n"
		}
		lines = append(lines, `<span class="`+class+`">`+line.String()+"\n</span>")
		line.Reset()
		plain.Reset()
	}
	piece := func(text, class string) {
		for i, part := range strings.Split(text, "\n") {
			if i > 0 {
				end()
			}
			plain.WriteString(part)
			part = html.EscapeString(part)
			if class != "" && part != "" {
				part = `<span class="` + class + `">` + part + "</span>"
			}
			line.WriteString(part)
		}
	}
	offset := 0
	for _, t := range iterator.Tokens() {
		value := t.Value
		for at := 0; at < len(value); { // a token may have several names
			next := len(value)
			for linked := range links {
				if linked > offset+at && linked < offset+next {
					next = linked - offset
				}
			}
			to, is := links[offset+at]
			if !is {
				piece(value[at:next], class(t.Type))
				at = next
				continue
			}
			name := len(value) - at
			if i := strings.IndexFunc(value[at:], func(r rune) bool { return r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }); i >= 0 {
				name = i
			}
			line.WriteString(`<a href="` + html.EscapeString(to) + `">`)
			piece(value[at:at+name], class(t.Type))
			line.WriteString("</a>")
			at += name
		}
		offset += len(value)
	}
	if line.Len() > 0 {
		end()
	}
	return lines, nil
}

// newFile splits a Go file into rows: a declaration with its comment each.
func newFile(name, text string, old map[string]bool, root string, packages []*pkg) (file, error) {
	set := token.NewFileSet()
	tree, err := parser.ParseFile(set, name, text, parser.ParseComments)
	if err != nil {
		return file{}, err
	}
	links, calls := findLinks(set, tree, root, packages)
	lines, err := highlight(name, text, links, old)
	if err != nil {
		return file{}, err
	}
	f := file{ID: "file-" + name, Name: name}
	from := 0
	for i, decl := range tree.Decls {
		to := len(lines)
		if i+1 < len(tree.Decls) {
			to = set.Position(begin(tree.Decls[i+1])).Line - 1
		}
		r := row{ID: name + "-imports", Title: "imports", Declares: declared(decl)}
		if len(r.Declares) > 0 {
			r.ID, r.Title = name+"-"+r.Declares[0], strings.Join(r.Declares, ", ")
		}
		if function, is := decl.(*ast.FuncDecl); is {
			r.Name = function.Name.Name
			if r.ID = "fn-" + r.Name; name != "main.go" {
				r.ID = "fn-" + name + "-" + r.Name
			}
		}
		if i == 0 && begin(decl) > 0 { // the comment of the package
			head := set.Position(begin(decl)).Line - 1
			f.Rows = append(f.Rows, row{ID: name, Title: "package " + tree.Name.Name, Code: lines.lines(0, head)})
			from = head
		}
		if general, is := decl.(*ast.GenDecl); is && general.Tok == token.IMPORT {
			r.Folded = true
		}
		r.Code = lines.lines(from, to)
		for pos, call := range calls {
			if pos >= decl.Pos() && pos < decl.End() && !slices.Contains(r.Calls, call) {
				r.Calls = append(r.Calls, call)
			}
		}
		slices.SortFunc(r.Calls, func(a, b link) int { return strings.Compare(a.Name, b.Name) })
		f.Rows = append(f.Rows, r)
		from = to
	}
	return f, nil
}

// begin is where a declaration begins, with its comment.
func begin(decl ast.Decl) token.Pos {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Doc != nil {
			return d.Doc.Pos()
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return d.Doc.Pos()
		}
	}
	return decl.Pos()
}

// declared returns the names that a declaration declares, a method as Type.Method.
func declared(decl ast.Decl) (names []string) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		name := d.Name.Name
		if d.Recv != nil {
			receiver := d.Recv.List[0].Type
			if star, is := receiver.(*ast.StarExpr); is {
				receiver = star.X
			}
			if of, is := receiver.(*ast.Ident); is {
				name = of.Name + "." + name
			}
		}
		names = append(names, name)
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				names = append(names, s.Name.Name)
			case *ast.ValueSpec:
				for _, name := range s.Names {
					names = append(names, name.Name)
				}
			}
		}
	}
	return names
}

// A pkg is a package of internal.
type pkg struct {
	name    string
	chapter string // where it is explained, from internal
	files   []file
}

// readPackages reads the packages of internal.
func readPackages(root fs.FS) (all []*pkg, err error) {
	dirs, err := fs.Glob(root, "internal/*")
	if err != nil {
		return nil, err
	}
	for _, dir := range dirs {
		names := slices.DeleteFunc(sources(root, dir), func(name string) bool { return strings.HasSuffix(name, "_other.go") })
		if len(names) == 0 {
			continue
		}
		p := &pkg{name: path.Base(dir), chapter: "README.md"}
		if _, err := fs.Stat(root, path.Join(dir, "README.md")); err == nil {
			p.chapter = p.name + "/README.md"
		}
		for _, name := range names {
			text, err := fs.ReadFile(root, name)
			if err != nil {
				return nil, err
			}
			f, err := newFile(path.Base(name), string(text), nil, "../", all)
			if err != nil {
				return nil, err
			}
			for i := range f.Rows {
				if r := &f.Rows[i]; len(r.Declares) > 0 {
					r.ID = r.Declares[0]
				}
			}
			p.files = append(p.files, f)
		}
		all = append(all, p)
	}
	return all, nil
}

func (p *pkg) page() *page {
	return &page{
		Title:  "package " + p.name,
		Before: markdown([]byte("# Package " + p.name + "\n\n[What it is for](" + p.chapter + ")")),
		Files:  p.files,
		Plain:  true,
	}
}
