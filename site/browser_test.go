package main

import (
	"bytes"
	"context"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	pdf "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// browse opens a page in a browser without a window.
func browse(t *testing.T) (ctx context.Context, url string) {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser takes some seconds")
	}
	t.Parallel()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("CSDESIGN_ALL") != "" {
			t.Fatal("there is no chromium")
		}
		t.Skip("there is no chromium")
	}
	server := httptest.NewServer(handler(pages(t)))
	t.Cleanup(server.Close)
	// Without its sandbox, because it refuses to run as root with one. It sees these pages only.
	ctx, cancel := chromedp.NewContext(t.Context(), chromedp.WithAllocatorOptions(
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WSURLReadTimeout(2*time.Minute)))
	t.Cleanup(cancel)
	return ctx, server.URL
}

func do(t *testing.T, ctx context.Context, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// emulate says what the reader's settings are.
func emulate(t *testing.T, ctx context.Context, media emulation.SetEmulatedMediaParams) {
	t.Helper()
	do(t, ctx, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media)
		return err
	}))
}

// evaluate returns the value of a JavaScript expression, or of its promise.
func evaluate[T any](t *testing.T, ctx context.Context, expression string) (value T) {
	t.Helper()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// A window as it is on a telephone, a tablet, a laptop and a large screen.
var widths = []int64{360, 768, 1280, 1920}

var some = []string{"/", "/test/contract/", "/server03a/", "/server10/", "/compare/", "/misc/sendfile/", "/internal/echo.html", "/GLOSSARY.html"}

// No page is wider than the window. What is wide takes the width that there is, before it scrolls in
// a box of its own. No table and no code scrolls. On a wide window the words are beside the code,
// on a narrow one above it.
func TestWidths(t *testing.T) {
	ctx, url := browse(t)
	for _, width := range widths {
		for _, path := range some {
			do(t, ctx, chromedp.EmulateViewport(width, 900), chromedp.Navigate(url+path))
			if wide := evaluate[int64](t, ctx, `document.documentElement.scrollWidth`); wide > width {
				t.Errorf("%s: %d pixels wide in a window of %d", path, wide, width)
			}
			const scrolls = `[...document.querySelectorAll('main table, .code pre, .l')].filter(e => e.scrollWidth > e.clientWidth + 1).length`
			if n := evaluate[int](t, ctx, scrolls); n > 0 {
				t.Errorf("%s: %d tables or pieces of code are cut in a window of %d", path, n, width)
			}
			const narrow = `(() => { const room = document.querySelector('.text').clientWidth;
				return [...document.querySelectorAll('.text > .console > pre, .text > .diagram')].filter(e => e.scrollWidth > e.clientWidth && e.clientWidth < room - 1).length; })()`
			if n := evaluate[int](t, ctx, narrow); n > 0 {
				t.Errorf("%s: %d wide blocks have not all the width in a window of %d", path, n, width)
			}
		}
		do(t, ctx, chromedp.Navigate(url+"/server03a/"))
		const beside = `(() => { const row = document.querySelector('#fn-incCounter');
			const words = row.querySelector('.words').getBoundingClientRect(), code = row.querySelector('.code').getBoundingClientRect();
			return words.right <= code.left && Math.abs(words.top - code.top) < 5; })()`
		if got := evaluate[bool](t, ctx, beside); got != (width > 1000) {
			t.Errorf("in a window of %d, words and code are side by side: %v", width, got)
		}
	}
	// A large window shows the whole of every table and diagram.
	for _, path := range []string{"/compare/", "/server03d/", "/server09a/", "/server10/"} {
		do(t, ctx, chromedp.EmulateViewport(1920, 900), chromedp.Navigate(url+path))
		const cut = `[...document.querySelectorAll('.text > .console > pre, .diagram')].filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent.slice(0, 60)).join()`
		if got := evaluate[string](t, ctx, cut); got != "" {
			t.Errorf("%s: in a large window this is cut: %s", path, got)
		}
	}
}

// The words stay in view while a long function scrolls by.
func TestWordsStay(t *testing.T) {
	ctx, url := browse(t)
	do(t, ctx, chromedp.EmulateViewport(1400, 500), chromedp.Navigate(url+"/server07/"))
	const inView = `(() => { const row = document.querySelector('#fn-serveForever');
		scrollTo(0, row.getBoundingClientRect().top + scrollY + 300);
		const top = row.querySelector('.words > div').getBoundingClientRect().top;
		return row.getBoundingClientRect().height > 600 && top >= 0 && top < 100; })()`
	if !evaluate[bool](t, ctx, inView) {
		t.Error("the words have scrolled away")
	}
}

// contrast is the lowest contrast of a text to what is behind it (WCAG 2), and the text.
const contrast = `(() => {
	const parse = c => c.match(/[\d.]+/g).map(Number);
	const light = c => { const [r, g, b] = c.slice(0, 3).map(v => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
		return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
	const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length < 4 || c[3] > 0) return c; }
		return parse(getComputedStyle(document.documentElement).backgroundColor); };
	let lowest = 100, text = '';
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n; (n = walker.nextNode());) {
		if (n.textContent.trim() === '' || n.parentElement.closest('script, svg')) continue;
		const a = light(parse(getComputedStyle(n.parentElement).color)), b = light(behind(n.parentElement));
		const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		if (ratio < lowest) { lowest = ratio; text = n.textContent.trim().slice(0, 40); }
	}
	return [lowest, text, light(behind(document.body))];
})()`

func TestContrast(t *testing.T) {
	ctx, url := browse(t)
	for _, scheme := range []string{"light", "dark"} {
		feature := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
		for _, path := range some {
			emulate(t, ctx, emulation.SetEmulatedMediaParams{Features: feature})
			do(t, ctx, chromedp.Navigate(url+path))
			got := evaluate[[3]any](t, ctx, contrast)
			if lowest := got[0].(float64); lowest < 4.5 {
				t.Errorf("%s, %s: a contrast of %.1f: %v", path, scheme, lowest, got[1])
			}
			if dark := got[2].(float64) < 0.2; dark != (scheme == "dark") {
				t.Errorf("%s is dark: %v, the reader's setting is %s", path, dark, scheme)
			}
		}
	}
}

// The commands are copied without what the console prints.
func TestCopy(t *testing.T) {
	ctx, url := browse(t)
	do(t, ctx, chromedp.EmulateViewport(1400, 900), chromedp.Navigate(url+"/server03a/"))
	evaluate[bool](t, ctx, `navigator.clipboard.writeText = async text => { window.copied = text; }; true`)
	do(t, ctx, chromedp.Click(chromedp.CSS(".console .copy:not([hidden])")))
	if got := evaluate[string](t, ctx, "window.copied"); got != "bin/server03a -q" {
		t.Errorf("copied: %q", got)
	}
}

func TestKeys(t *testing.T) {
	ctx, url := browse(t)
	do(t, ctx, chromedp.Navigate(url+"/server03a/"))
	for _, step := range []struct{ key, want string }{{kb.ArrowRight, "/server03b/"}, {kb.ArrowLeft, "/server03a/"}, {kb.ArrowLeft, "/server03/"}} {
		do(t, ctx, chromedp.KeyEvent(step.key))
		there := false
		for deadline := time.Now().Add(time.Minute); !there && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			// While the browser is between two pages, this is an error.
			there, _ = chromedp.Run(ctx, chromedp.Evaluate[bool](`location.pathname === '`+step.want+`index.html' && document.readyState === 'complete'`))
		}
		if !there {
			t.Fatalf("the key does not lead to %s", step.want)
		}
	}
}

// The switch leaves the declarations that have something new, whole, and folds the others.
func TestOnlyNew(t *testing.T) {
	ctx, url := browse(t)
	do(t, ctx, chromedp.EmulateViewport(1400, 900), chromedp.Navigate(url+"/server03a/"))
	do(t, ctx, chromedp.Click(chromedp.CSS("#only")))
	const open = `[...document.querySelectorAll('.row')].map(r => [r.id, r.querySelector('.code details').open, !!r.querySelector('.n'), r.querySelector('.code summary').offsetHeight > 0])`
	folded := 0
	for _, row := range evaluate[[][4]any](t, ctx, open) {
		if row[1] != row[2] && row[0] != "main.go-imports" {
			t.Errorf("%v is open: %v, and has something new: %v", row[0], row[1], row[2])
		}
		if row[1] == false {
			folded++
			if row[3] != true {
				t.Errorf("%v is folded, and does not say so", row[0])
			}
		}
	}
	if folded < 2 {
		t.Errorf("%d are folded", folded)
	}
	do(t, ctx, chromedp.Click(chromedp.CSS("#fn-handle .code summary")))
	if !evaluate[bool](t, ctx, `document.querySelector('#fn-handle pre').offsetHeight > 100`) {
		t.Error("what is folded does not open")
	}
}

// Headings are in order, and the page has its landmarks.
func TestStructure(t *testing.T) {
	ctx, url := browse(t)
	for _, path := range []string{"/", "/server03a/", "/server10/", "/compare/", "/misc/rst/", "/internal/sock.html"} {
		do(t, ctx, chromedp.Navigate(url+path))
		const order = `(() => { let last = 0; for (const h of document.querySelectorAll('h1, h2, h3, h4')) {
			const level = Number(h.tagName[1]); if (level > last + 1) return h.textContent; last = level; }
			return document.querySelectorAll('h1').length === 1 ? '' : 'h1'; })()`
		if got := evaluate[string](t, ctx, order); got != "" {
			t.Errorf("%s: the heading %q is out of order", path, got)
		}
		if got := evaluate[int](t, ctx, `document.querySelectorAll('body > header, nav[aria-label=chapters], main, search').length`); got != 4 {
			t.Errorf("%s has %d landmarks", path, got)
		}
	}
}

// The list of all pages is at the left of a wide window, and in a menu of a narrow one. It stays in
// view, and has the headings of the page.
func TestContents(t *testing.T) {
	ctx, url := browse(t)
	const list = `(() => { scrollTo(0, 2000); const nav = document.querySelector('.side'), at = nav.getBoundingClientRect();
		return nav.offsetHeight > 0 && at.top >= 0 && at.top < 100 && nav.querySelector('[aria-current]').getBoundingClientRect().top < innerHeight && nav.querySelector('[aria-current] + ul a[href="#exercises"]') !== null; })()`
	do(t, ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(url+"/server03a/"))
	if !evaluate[bool](t, ctx, list) {
		t.Error("there is no list")
	}
	if top := evaluate[float64](t, ctx, `document.querySelector('header').getBoundingClientRect().top`); top != 0 {
		t.Errorf("the header has scrolled to %v", top)
	}
	do(t, ctx, chromedp.EmulateViewport(768, 900), chromedp.Navigate(url+"/server03a/"))
	const visible = `document.querySelector('.side').offsetHeight > 0`
	if evaluate[bool](t, ctx, visible) {
		t.Error("the menu is open")
	}
	do(t, ctx, chromedp.Click(chromedp.CSS("label[for=menu]")))
	if !evaluate[bool](t, ctx, visible) {
		t.Error("the menu does not open")
	}
}

// From the first page to the last one there is a way on, at the end of each.
func TestWayOn(t *testing.T) {
	ctx, url := browse(t)
	do(t, ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(url+"/"))
	var seen []string
	for range 100 {
		seen = append(seen, evaluate[string](t, ctx, `location.pathname.replace('index.html', '')`))
		const next = `(() => { const a = document.querySelector('.turn a[rel=next]');
			return a && a.getBoundingClientRect().top > document.querySelector('main').lastElementChild.previousElementSibling.getBoundingClientRect().top ? a.href : ''; })()`
		to := evaluate[string](t, ctx, next)
		if to == "" {
			break
		}
		do(t, ctx, chromedp.Navigate(to))
	}
	all := strings.Join(seen, " ")
	if !strings.HasPrefix(all, "/ /server00/ /server01/ /server01a/ /server02/") || !strings.HasSuffix(all, "/test/contract/ /test/million/ /compare/ /compare/peers/ /GLOSSARY.html") ||
		!strings.Contains(all, "/client/ /misc/ /misc/rst/ /misc/sigpipe/") || len(seen) < 40 {
		t.Errorf("the way is %s", all)
	}
}

// A word of the glossary says what it means: to the mouse, to the keyboard, and to a finger.
func TestTooltip(t *testing.T) {
	ctx, url := browse(t)
	do(t, ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(url+"/server03/"))
	const shown = `(() => { const word = [...document.querySelectorAll('a.word')].find(a => a.textContent === 'listener'), tip = document.getElementById('tip');
		DO; return tip.hidden ? '' : tip.textContent; })()`
	for what, event := range map[string]string{
		"mouse":    "word.dispatchEvent(new PointerEvent('pointerenter', {pointerType: 'mouse'}))",
		"keyboard": "word.dispatchEvent(new FocusEvent('focus'))",
		"finger":   "word.dispatchEvent(new PointerEvent('pointerup', {pointerType: 'touch'})); word.click()",
	} {
		do(t, ctx, chromedp.Navigate(url+"/server03/"))
		if got := evaluate[string](t, ctx, strings.Replace(shown, "DO", event, 1)); !strings.Contains(got, "a socket") {
			t.Errorf("%s: it says %q", what, got)
		}
		if at := evaluate[string](t, ctx, `location.pathname`); at != "/server03/" {
			t.Errorf("%s: it has gone to %s", what, at)
		}
	}
	do(t, ctx, chromedp.KeyEvent(kb.Escape))
	if got := evaluate[bool](t, ctx, `document.getElementById('tip').hidden`); !got {
		t.Error("Escape does not close it")
	}
}

// The search works on files, too, and finds words and code.
func TestSearch(t *testing.T) {
	ctx, url := browse(t)
	dir := t.TempDir()
	if err := write(pages(t), dir); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{url, "file://" + dir} {
		do(t, ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(root+"/server03a/index.html"))
		for query, want := range map[string]string{"thundering herd": "server03b", "TryAccept": "internal/sock.html#TryAccept", "lingering": "sock", "qqqqq herd": "nothing",
			"40 ms": "misc/nagle", "zombie": "GLOSSARY.html#zombie", "io_uring": "server10/index.html\""} {
			do(t, ctx, chromedp.KeyEvent("/"), chromedp.SendKeys(chromedp.CSS("#search"), query))
			const results = `new Promise(done => { const end = Date.now() + 60_000, look = () => { const found = document.getElementById('found');
				window.searchIndex && found.children.length > 0 || Date.now() > end ? done(found.innerHTML) : setTimeout(look, 10); }; look(); })`
			got := evaluate[string](t, ctx, results)
			if first, _, _ := strings.Cut(got, "</li>"); !strings.Contains(got, want) || strings.HasPrefix(query, "io") && !strings.Contains(first, want) {
				t.Errorf("%s: %q finds %s", root, query, got)
			}
			do(t, ctx, chromedp.KeyEvent(kb.Escape))
		}
	}
}

// A click or Enter on a picture fills the window with it, and Escape takes it away.
func TestZoom(t *testing.T) {
	ctx, url := browse(t)
	do(t, ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(url+"/server03/"))
	const wide = `(() => { const d = document.querySelector('dialog[open] img'); return d !== null && d.offsetWidth > 1000; })()`
	do(t, ctx, chromedp.Click(chromedp.CSS("a.zoom")))
	if !evaluate[bool](t, ctx, wide) {
		t.Error("a click does not enlarge it")
	}
	do(t, ctx, chromedp.KeyEvent(kb.Escape))
	if evaluate[bool](t, ctx, wide) {
		t.Error("Escape does not close it")
	}
	do(t, ctx, chromedp.Focus(chromedp.CSS("a.zoom")), chromedp.KeyEvent(kb.Enter))
	if !evaluate[bool](t, ctx, wide) {
		t.Error("Enter does not enlarge it")
	}
	// All designs are on the first page.
	do(t, ctx, chromedp.Navigate(url+"/"))
	if n := evaluate[int](t, ctx, `document.querySelectorAll('a.zoom img[src$="when.svg"]').length`); n != 19 {
		t.Errorf("there are %d pictures on the first page", n)
	}
}

// A piece of code is copied as it is.
func TestCopyCode(t *testing.T) {
	ctx, url := browse(t)
	do(t, ctx, chromedp.EmulateViewport(1400, 900), chromedp.Navigate(url+"/server03a/"))
	evaluate[bool](t, ctx, `navigator.clipboard.writeText = async text => { window.copied = text; }; true`)
	do(t, ctx, chromedp.Click(chromedp.CSS("#fn-incCounter .copy")))
	source, err := os.ReadFile("../server03a/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if got := evaluate[string](t, ctx, "window.copied"); !bytes.Contains(source, []byte(got)) || !strings.Contains(got, "func incCounter(") {
		t.Errorf("copied: %q", got)
	}
}

// With the keyboard alone one sees where one is.
func TestFocus(t *testing.T) {
	ctx, url := browse(t)
	do(t, ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(url+"/server03a/"))
	for range 30 {
		do(t, ctx, chromedp.KeyEvent(kb.Tab))
		if got := evaluate[string](t, ctx, `getComputedStyle(document.activeElement).outlineStyle + ' ' + document.activeElement.outerHTML.slice(0, 80)`); strings.HasPrefix(got, "none") {
			t.Errorf("the focus cannot be seen: %s", got)
		}
	}
}

// Nothing moves while a page is loaded.
func TestShifts(t *testing.T) {
	ctx, url := browse(t)
	for _, path := range some {
		do(t, ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(url+path))
		const shifts = `new Promise(done => new PerformanceObserver(list => done(list.getEntries().reduce((sum, e) => sum + e.value, 0))).observe({type: 'layout-shift', buffered: true}) ||
			requestAnimationFrame(() => requestAnimationFrame(() => done(0))))`
		if got := evaluate[float64](t, ctx, shifts); got != 0 {
			t.Errorf("%s: what is shown moves by %v", path, got)
		}
	}
}

// Without script there are the list, the words, all code, and links to the glossary.
func TestWithoutScript(t *testing.T) {
	ctx, url := browse(t)
	do(t, ctx, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		_, err := chromedp.Call(ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
		return err
	}))
	do(t, ctx, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(url+"/server03/"))
	const works = `document.querySelector('.side').offsetHeight > 0 && document.querySelector('#fn-handle pre').offsetHeight > 100 &&
		document.querySelector('search').offsetHeight === 0 && getComputedStyle(document.querySelector('.switch')).visibility === 'hidden' && document.querySelector('a[href*="GLOSSARY.html#"]').title !== ''`
	if !evaluate[bool](t, ctx, works) {
		t.Error("something needs a script")
	}
}

// On paper there is one column, no line is cut, and a link to another place shows its address.
func TestPrint(t *testing.T) {
	ctx, url := browse(t)
	emulate(t, ctx, emulation.SetEmulatedMediaParams{Media: "print"})
	do(t, ctx, chromedp.EmulateViewport(720, 1000), chromedp.Navigate(url+"/server03/"))
	const cut = `[...document.querySelectorAll('pre')].filter(p => p.offsetHeight > 0 && p.scrollWidth > p.clientWidth).map(p => p.textContent.slice(0, 60)).join()`
	if got := evaluate[string](t, ctx, cut); got != "" {
		t.Errorf("this is cut: %s", got)
	}
	const column = `getComputedStyle(document.querySelector('#fn-handle')).display + ' ' + document.querySelector('header').offsetHeight + ' ' +
		getComputedStyle(document.querySelector('main .text a[href^="http"]'), '::after').content.includes('http')`
	if got := evaluate[string](t, ctx, column); got != "block 0 true" {
		t.Errorf("the columns, the header and the addresses are %s", got)
	}
}

// The book is printed, and its outline has every page.
func TestPrintBook(t *testing.T) {
	ctx, url := browse(t)
	do(t, ctx, chromedp.Navigate(url+"/book.html"))
	headings := evaluate[int](t, ctx, `document.querySelectorAll('h1, h2, h3').length`)
	chapters := evaluate[int](t, ctx, `document.querySelectorAll('article').length`)
	yes := true
	var printed []byte
	do(t, ctx, chromedp.Func(func(ctx context.Context, _ *chromedp.Target) error {
		got, err := chromedp.Call(ctx, pdf.PrintToPDF, pdf.PrintToPDFParams{GenerateDocumentOutline: &yes, GenerateTaggedPDF: &yes})
		printed = got.Data
		return err
	}))
	if n := bytes.Count(printed, []byte("/Title (")) + bytes.Count(printed, []byte("/Title <")); n < headings || chapters < 40 {
		t.Errorf("the outline has %d entries for %d headings of %d chapters", n, headings, chapters)
	}
	if n := bytes.Count(printed, []byte("/Type /Page\n")); n < chapters {
		t.Errorf("there are %d sheets", n)
	}
}
