package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"html"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func pages(t *testing.T) map[string][]byte {
	t.Helper()
	pages, err := build(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// Every chapter has a page, and every line of every program is on it once, with its functions.
func TestEveryLine(t *testing.T) {
	pages := pages(t)
	chapters, err := filepath.Glob("../*/README.md")
	if err != nil || len(chapters) < 20 {
		t.Fatalf("%d chapters, %v", len(chapters), err)
	}
	for _, chapter := range chapters {
		dir := filepath.Base(filepath.Dir(chapter))
		if dir == "site" {
			continue
		}
		name := dir + "/index.html"
		page := string(pages[name])
		if page == "" {
			t.Errorf("%s has no page", dir)
			continue
		}
		if len(page) > 200_000 {
			t.Errorf("%s has %d bytes", name, len(page))
		}
		if !strings.HasPrefix(dir, "server") && dir != "client" {
			continue
		}
		source, err := os.ReadFile("../" + dir + "/main.go")
		if err != nil {
			t.Fatal(err)
		}
		_, code, _ := strings.Cut(page, ">main.go</h2>")
		code, _, _ = strings.Cut(code, "</section>")
		code, _, _ = strings.Cut(code, `<h2 class="file"`)
		var shown strings.Builder
		for _, pre := range regexp.MustCompile(`(?s)<pre>(<span class="l.*?)</pre>`).FindAllStringSubmatch(code, -1) {
			shown.WriteString(plain(pre[1]))
		}
		if shown.String() != string(source) {
			t.Errorf("%s does not show main.go line by line; it shows\n%s", name, &shown)
		}
		tree, err := parser.ParseFile(token.NewFileSet(), "", source, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range tree.Decls {
			if f, is := decl.(*ast.FuncDecl); is && strings.Count(page, `id="fn-`+f.Name.Name+`"`) != 1 {
				t.Errorf("%s: %s is there %d times", name, f.Name.Name, strings.Count(page, `id="fn-`+f.Name.Name+`"`))
			}
		}
	}
}

// What the chapters say about the code is on the pages.
func TestEveryWord(t *testing.T) {
	pages := pages(t)
	words := func(text string) string { return strings.Join(strings.Fields(html.UnescapeString(text)), " ") }
	for name, page := range pages {
		if path.Base(name) != "index.html" || strings.HasPrefix(name, "compare/peers") {
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", path.Dir(name), "README.md"))
		if err != nil {
			t.Fatal(err)
		}
		shown := words(tags.ReplaceAllString(string(page), ""))
		for _, s := range sections(string(text)) {
			for _, block := range blocks(s.text) {
				if strings.ContainsAny(block[:1], "#`|- !1") || strings.Contains(block, "<!--") || wayOn.MatchString("\n"+block) {
					continue
				}
				plain := words(tags.ReplaceAllString(string(markdown([]byte(block))), ""))
				if strings.Count(shown, plain) != 1 {
					t.Errorf("%s has this %d times: %s", name, strings.Count(shown, plain), plain)
				}
			}
		}
	}
}

// Every link leads to a page, a place on it, a file, or the web, and no id is there twice.
func TestLinks(t *testing.T) {
	pages := pages(t)
	ids := map[string][]string{}
	for name, page := range pages {
		for _, match := range regexp.MustCompile(` id="([^"]*)"`).FindAllSubmatch(page, -1) {
			if slices.Contains(ids[name], string(match[1])) {
				t.Errorf("%s has the id %s twice", name, match[1])
			}
			ids[name] = append(ids[name], string(match[1]))
		}
	}
	for name, page := range pages {
		if path.Ext(name) != ".html" {
			continue
		}
		for _, match := range regexp.MustCompile(` (href|src)="([^"]*)"`).FindAllSubmatch(page, -1) {
			kind, to := string(match[1]), html.UnescapeString(string(match[2]))
			if strings.HasPrefix(to, "https://") {
				if kind == "src" {
					t.Errorf("%s loads %s", name, to)
				}
				continue
			}
			to, fragment, _ := strings.Cut(to, "#")
			target := name
			if to != "" {
				target = path.Join(path.Dir(name), to)
			}
			if _, is := pages[target]; !is {
				t.Errorf("%s: %s leads nowhere", name, match[2])
			} else if fragment != "" && !slices.Contains(ids[target], fragment) {
				t.Errorf("%s: %s: the page has no such place", name, match[2])
			}
		}
	}
}

// Each function of an original has a line, and what it leads to is on the page.
func TestOriginals(t *testing.T) {
	pages := pages(t)
	scripts := 0
	for _, dir := range []string{"client", "server01", "server02", "server03", "server03a", "server04"} {
		all := originals(dir)
		for _, o := range all {
			page := string(pages[dir+"/index.html"])
			if o.Note == "" || o.Here != "" && !strings.Contains(page, `<a href="#fn-`+o.Here+`">`) {
				t.Errorf("%s: %s is not there", dir, o.Name)
			}
			scripts++
		}
	}
	if scripts != 31 {
		t.Errorf("there are %d functions", scripts)
	}
}

// A link to the glossary leads to the word, and has its meaning.
func TestGlossary(t *testing.T) {
	pages := pages(t)
	for name, page := range pages {
		for _, match := range regexp.MustCompile(`<a href="[./]*GLOSSARY.html"[^>]*>(.*?)</a>`).FindAllStringSubmatch(string(page), -1) {
			if name != "book.html" && match[1] != "glossary" && !strings.Contains(match[1], "The words") {
				t.Errorf("%s: the glossary has no %q", name, match[1])
			}
		}
	}
	if !strings.Contains(string(pages["server03/index.html"]), `GLOSSARY.html#listener" title="a socket`) {
		t.Error("server03 does not say what a listener is")
	}
}

// The words for a file are beside it, and its picture is above the function.
func TestTwoFiles(t *testing.T) {
	page := string(pages(t)["server10/index.html"])
	at := func(text string) int { return strings.Index(page, text) }
	if order := []int{at(`id="file-main.go"`), at(`id="file-ring.go"`), at("There is no library here"), at("recv on 9"), at(`id="fn-ring.go-add"`), at(`id="fn-ring.go-next"`)}; !slices.IsSorted(order) || order[0] < 0 {
		t.Errorf("the order is %v", order)
	}
}

// The book has every page, and its links stay in it.
func TestBook(t *testing.T) {
	pages := pages(t)
	book := string(pages["book.html"])
	for name := range pages {
		if path.Ext(name) == ".html" && name != "book.html" && !strings.Contains(book, `<article id="`+key(name)+`">`) {
			t.Errorf("%s is not in the book", name)
		}
	}
	if match := regexp.MustCompile(`href="[^"#]*\.html[^"]*"`).FindString(strings.ReplaceAll(book, "https://", "")); match != "" && !strings.Contains(match, "man7.org") {
		t.Errorf("a link leads out of the book: %s", match)
	}
}

// What a page and all of them may weigh, in bytes.
func TestSizes(t *testing.T) {
	sum := 0
	for name, page := range pages(t) {
		sum += len(page)
		most := 200_000
		switch name {
		case "book.html":
			most = 2_000_000
		case "index.js":
			most = 300_000
		}
		if len(page) > most {
			t.Errorf("%s has %d bytes", name, len(page))
		}
	}
	if sum > 6_000_000 {
		t.Errorf("all pages have %d bytes", sum)
	}
}

// What the program before does not have is marked.
func TestNew(t *testing.T) {
	page := string(pages(t)["server03a/index.html"])
	for line, want := range map[string]string{"func <span class=\"f\">incCounter": "l n", "func <span class=\"f\">handle": "l"} {
		line = strings.Replace(line, "func ", `<span class="k">func</span> `, 1)
		if !strings.Contains(page, `<span class="`+want+`">`+line) {
			t.Errorf("%s is not marked as %s", line, want)
		}
	}
}

func TestServe(t *testing.T) {
	server := httptest.NewServer(handler(pages(t)))
	defer server.Close()
	for path, want := range map[string]int{"/": 200, "/server03a/": 200, "/server03a": 200, "/style.css": 200, "/compare/idle.svg": 200, "/nothing": 404, "/../go.mod": 404} {
		response, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, response.StatusCode, want)
		}
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	if err := run(os.DirFS(".."), 0, dir); err != nil {
		t.Fatal(err)
	}
	for name, page := range pages(t) {
		if text, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(text) != string(page) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Each chapter comes once.
func TestReadingOrder(t *testing.T) {
	root := os.DirFS("..")
	dirs, err := readingOrder(root)
	if err != nil {
		t.Fatal(err)
	}
	var chapters []string
	for _, pattern := range []string{"*/README.md", "*/*/README.md"} {
		found, err := fs.Glob(root, pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range found {
			chapters = append(chapters, path.Dir(name))
		}
	}
	slices.Sort(chapters)
	if sorted := slices.Sorted(slices.Values(dirs)); !slices.Equal(sorted, chapters) || dirs[0] != "server00" {
		t.Errorf("the order is %v, the chapters are %v", dirs, chapters)
	}
}
