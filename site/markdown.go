package main

import (
	"bytes"
	"html"
	"html/template"
	"regexp"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer"
	goldmarkhtml "github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// converter makes HTML of Markdown as GitHub does, with links between pages, and blocks of code
// that can be copied. The chapters have HTML for answers that are folded.
var converter = goldmark.New(
	goldmark.WithExtensions(extension.GFM),
	goldmark.WithParserOptions(parser.WithAutoHeadingID(), parser.WithASTTransformers(util.Prioritized(linker{}, 100))),
	goldmark.WithRendererOptions(goldmarkhtml.WithUnsafe(), renderer.WithNodeRenderers(util.Prioritized(codeBlocks{}, 100))),
)

var (
	marks     = regexp.MustCompile(`\s*<!--.*?-->`)
	wordLinks = regexp.MustCompile(`<a href="([./]*GLOSSARY.html)">(.*?)</a>`)
	titles    = regexp.MustCompile(`<h([23]) id="([^"]+)">(.*?)</h[23]>`)
	wordRows  = regexp.MustCompile(`<tr>(\n<td>(.*?)</td>)`)
	commands  = regexp.MustCompile(`^(go|git|test/exercises/)\b`)
)

func markdown(source []byte) template.HTML {
	var buf bytes.Buffer
	if err := converter.Convert(marks.ReplaceAll(source, nil), &buf); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	text := wordLinks.ReplaceAllStringFunc(buf.String(), func(link string) string {
		match := wordLinks.FindStringSubmatch(link)
		w, is := lookUp(plain(match[2]))
		if !is {
			return link
		}
		return `<a href="` + match[1] + "#" + w.id + `" title="` + html.EscapeString(w.meaning) + `">` + match[2] + "</a>"
	})
	return template.HTML(titles.ReplaceAllString(text, `<h$1 id="$2">$3 <a class="anchor" href="#$2" aria-label="link to this section">#</a></h$1>`))
}

// A word of the glossary has an id on its page, and a meaning.
type word struct{ id, meaning string }

// words is the glossary, by what a chapter may call them.
var words map[string]word

func slug(name string) string {
	return strings.Trim(regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(name), "-"), "-")
}

// readGlossary reads the rows of its table. A row may have several words, and the meaning another
// one, in italics.
func readGlossary(text string) map[string]word {
	all := map[string]word{}
	for _, match := range regexp.MustCompile(`(?m)^\| ([^|]+) \| ([^|]+) \|`).FindAllStringSubmatch(text, -1) {
		w := word{slug(match[1]), strings.TrimSpace(plain(string(markdown([]byte(match[2])))))}
		names := strings.Split(match[1], ", ")
		for _, italic := range regexp.MustCompile(`\*([\w-]+)\*`).FindAllStringSubmatch(match[2], -1) {
			names = append(names, italic[1])
		}
		for _, name := range names {
			all[strings.ToLower(name)] = w
		}
	}
	return all
}

// lookUp finds a word in the singular or the plural.
func lookUp(name string) (w word, is bool) {
	name = strings.ToLower(name)
	for _, name := range []string{name, strings.TrimSuffix(name, "s"), strings.TrimSuffix(name, "es")} {
		if w, is = words[name]; is {
			break
		}
	}
	return w, is
}

// anchorWords gives each row of the glossary its id.
func anchorWords(table template.HTML) template.HTML {
	return template.HTML(wordRows.ReplaceAllStringFunc(string(table), func(row string) string {
		match := wordRows.FindStringSubmatch(row)
		return `<tr id="` + slug(plain(match[2])) + `">` + match[1]
	}))
}

// linker makes the links to chapters links to their pages.
type linker struct{}

func pageOf(to string) string {
	to, fragment, _ := strings.Cut(to, "#")
	switch {
	case strings.Contains(to, "://") || to == "":
	case strings.HasSuffix(to, "README.md"):
		to = strings.TrimSuffix(to, "README.md") + "index.html"
	case strings.HasSuffix(to, ".md"):
		to = strings.TrimSuffix(to, ".md") + ".html"
	case !strings.Contains(to[strings.LastIndex(to, "/")+1:], "."):
		to += "/index.html"
	}
	if fragment != "" {
		to += "#" + fragment
	}
	return to
}

func (linker) Transform(document *ast.Document, _ text.Reader, _ parser.Context) {
	ast.Walk(document, func(node ast.Node, entering bool) (ast.WalkStatus, error) {
		if link, is := node.(*ast.Link); is && entering {
			link.Destination = []byte(pageOf(string(link.Destination)))
		}
		return ast.WalkContinue, nil
	})
}

// codeBlocks renders a console with a button that copies its commands, and a diagram in a box that
// scrolls.
type codeBlocks struct{}

func (codeBlocks) RegisterFuncs(r renderer.NodeRendererFuncRegisterer) {
	block := func(w util.BufWriter, source []byte, node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		lines := strings.SplitAfter(strings.TrimSuffix(string(node.Lines().Value(source)), "\n"), "\n")
		switch {
		case node.Kind() == ast.KindFencedCodeBlock:
			console(w, lines, "$ ")
		case commands.MatchString(lines[0]):
			console(w, lines, "")
		default:
			w.WriteString(`<pre class="diagram" tabindex="0">` + html.EscapeString(strings.Join(lines, "")) + "</pre>\n")
		}
		return ast.WalkSkipChildren, nil
	}
	r.Register(ast.KindFencedCodeBlock, block)
	r.Register(ast.KindCodeBlock, block)
}

// console writes a block whose commands, which are the lines behind this prompt, can be copied.
func console(w util.BufWriter, lines []string, prompt string) {
	w.WriteString(`<div class="console"><button type="button" class="copy" hidden>copy</button><pre tabindex="0">`)
	for _, line := range lines {
		if command, is := strings.CutPrefix(line, prompt); is {
			command = html.EscapeString(strings.TrimSuffix(command, "\n"))
			w.WriteString(`<span class="prompt">` + prompt + `</span><span class="command">` + command + "</span>\n")
		} else {
			w.WriteString(html.EscapeString(line))
		}
	}
	w.WriteString("</pre></div>\n")
}
