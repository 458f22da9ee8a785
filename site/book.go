package main

import (
	"bytes"
	"encoding/json"
	"html"
	"html/template"
	"path"
	"regexp"
	"slices"
	"strings"
)

// key is the id of a page in the book.
func key(url string) string {
	return "page-" + strings.ReplaceAll(strings.TrimSuffix(url, ".html"), "/", "-")
}

var (
	ids     = regexp.MustCompile(` id="([^"]+)"`)
	targets = regexp.MustCompile(` (href|src)="([^"]*)"`)
	control = regexp.MustCompile(`<p class="switch".*?</p>\n`)
	folded  = regexp.MustCompile(`<details( class="[^"]*")?>`)
)

// book returns all pages in one, to be printed, with what is folded open. The ids of a page get its
// key in front, and links from page to page stay in the book.
func book(all []*page) ([]byte, error) {
	var chapters []map[string]any
	for _, p := range all {
		body, err := p.render("body")
		if err != nil {
			return nil, err
		}
		text := folded.ReplaceAllString(control.ReplaceAllString(string(body), ""), "<details$1 open>")
		text = ids.ReplaceAllString(text, ` id="`+key(p.URL)+`--$1"`)
		text = targets.ReplaceAllStringFunc(text, func(attribute string) string {
			match := targets.FindStringSubmatch(attribute)
			to, fragment, _ := strings.Cut(html.UnescapeString(match[2]), "#")
			if strings.Contains(to, "://") {
				return attribute
			}
			target := p.URL
			if to != "" {
				target = path.Join(path.Dir(p.URL), to)
			}
			if slices.ContainsFunc(all, func(p *page) bool { return p.URL == target }) { // and no picture
				target = strings.TrimSuffix("#"+key(target)+"--"+fragment, "--")
			}
			return " " + match[1] + `="` + html.EscapeString(target) + `"`
		})
		chapters = append(chapters, map[string]any{"Key": key(p.URL), "Title": p.Title, "Body": template.HTML(text)})
	}
	var buf bytes.Buffer
	err := templates.ExecuteTemplate(&buf, "book.html", chapters)
	return buf.Bytes(), err
}

var (
	tags    = regexp.MustCompile(`<[^>]*>`)
	term    = regexp.MustCompile(`[\pL_][\pL\d_]+|\b\d{2,4}[\pL_]*\b`)
	place   = regexp.MustCompile(`<(?:h2|tr) id="([^"]+)">`)
	nameEnd = regexp.MustCompile(` <a class|</td>`) // ends the name of a place
)

// plain is the text of HTML.
func plain(text string) string { return html.UnescapeString(tags.ReplaceAllString(text, "")) }

// searchIndex returns a script that says in which sections each word is, of the chapters and the
// code. A section is a heading of a chapter, or a declaration.
func searchIndex(all []*page) ([]byte, error) {
	var index struct {
		Places [][2]string      `json:"places"` // address and title
		Words  map[string][]int `json:"words"`
	}
	index.Words = map[string][]int{}
	add := func(url, title, text string) {
		n := len(index.Places)
		index.Places = append(index.Places, [2]string{url, title})
		for _, word := range term.FindAllString(strings.ToLower(plain(text)), -1) {
			if at := index.Words[word]; len(at) == 0 || at[len(at)-1] != n {
				index.Words[word] = append(at, n)
			}
		}
	}
	for _, p := range all {
		for _, part := range []template.HTML{p.Before, p.After} {
			ids := place.FindAllStringSubmatch(string(part), -1)
			for i, section := range place.Split(string(part), -1) {
				url, title := p.URL, p.Title
				if i > 0 {
					name := nameEnd.Split(section, 2)[0]
					url, title = url+"#"+ids[i-1][1], title+" › "+strings.TrimSpace(plain(name))
				}
				add(url, title, section)
			}
		}
		for _, f := range p.Files {
			add(p.URL+"#"+f.ID, p.Title+" › "+f.Name, string(f.Words))
			for _, r := range f.Rows {
				add(p.URL+"#"+r.ID, p.Title+" › "+r.Title, string(r.Above+r.Words+r.Code))
			}
		}
	}
	text, err := json.Marshal(index)
	return slices.Concat([]byte("searchIndex = "), text), err
}
