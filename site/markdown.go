package main

import (
	"bytes"
	"html"
	"html/template"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// converter makes HTML of Markdown as GitHub does, with links between pages, and blocks of code
// that can be copied.
var converter = goldmark.New(
	goldmark.WithExtensions(extension.GFM),
	goldmark.WithParserOptions(parser.WithAutoHeadingID(), parser.WithASTTransformers(util.Prioritized(linker{}, 100))),
	goldmark.WithRendererOptions(renderer.WithNodeRenderers(util.Prioritized(codeBlocks{}, 100))),
)

func markdown(source []byte) template.HTML {
	var buf bytes.Buffer
	if err := converter.Convert(source, &buf); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return template.HTML(buf.String())
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
	r.Register(ast.KindFencedCodeBlock, func(w util.BufWriter, source []byte, node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		w.WriteString(`<div class="console"><button type="button" class="copy" hidden>copy</button><pre tabindex="0">`)
		for i := range node.Lines().Len() {
			segment := node.Lines().At(i)
			line := string(segment.Value(source))
			if command, is := strings.CutPrefix(line, "$ "); is {
				command = html.EscapeString(strings.TrimSuffix(command, "\n"))
				w.WriteString(`<span class="prompt">$ </span><span class="command">` + command + "</span>\n")
			} else {
				w.WriteString(html.EscapeString(line))
			}
		}
		w.WriteString("</pre></div>\n")
		return ast.WalkSkipChildren, nil
	})
	r.Register(ast.KindCodeBlock, func(w util.BufWriter, source []byte, node ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		w.WriteString(`<pre class="diagram" tabindex="0">`)
		for i := range node.Lines().Len() {
			segment := node.Lines().At(i)
			w.WriteString(html.EscapeString(string(segment.Value(source))))
		}
		w.WriteString("</pre>\n")
		return ast.WalkSkipChildren, nil
	})
}
