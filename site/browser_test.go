package main

import (
	"context"
	"net/http/httptest"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// browse opens a page in a browser without a window.
func browse(t *testing.T) (ctx context.Context, url string) {
	t.Helper()
	if testing.Short() {
		t.Skip("a browser takes some seconds")
	}
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
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

// evaluate returns the value of a JavaScript expression.
func evaluate[T any](t *testing.T, ctx context.Context, expression string) (value T) {
	t.Helper()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

var widths = []int64{360, 768, 1920}

// No page is wider than the window: what is wide scrolls in a box of its own. On a wide
// window the words are beside the code, on a narrow one above it.
func TestWidths(t *testing.T) {
	ctx, url := browse(t)
	for _, width := range widths {
		for _, path := range []string{"/", "/server03a/", "/server10/", "/compare/", "/misc/sendfile/", "/internal/echo.html", "/GLOSSARY.html"} {
			do(t, ctx, chromedp.EmulateViewport(width, 900), chromedp.Navigate(url+path))
			if wide := evaluate[int64](t, ctx, `document.documentElement.scrollWidth`); wide > width {
				t.Errorf("%s: %d pixels wide in a window of %d", path, wide, width)
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
		for _, path := range []string{"/", "/server03a/", "/compare/"} {
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
	do(t, ctx, chromedp.Click(chromedp.CSS(".copy:not([hidden])")))
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

// The switch leaves the lines that are new.
func TestOnlyNew(t *testing.T) {
	ctx, url := browse(t)
	const visible = `[...document.querySelectorAll('.l')].filter(l => l.offsetHeight > 0).length`
	do(t, ctx, chromedp.EmulateViewport(1400, 900), chromedp.Navigate(url+"/server03a/"))
	all := evaluate[int](t, ctx, visible)
	do(t, ctx, chromedp.Click(chromedp.CSS("#only")))
	if left, marked := evaluate[int](t, ctx, visible), evaluate[int](t, ctx, `[...document.querySelectorAll('.l.n')].filter(l => l.offsetHeight > 0).length`); left != marked || left == 0 || left > all/2 {
		t.Errorf("%d lines are left of %d, %d are new", left, all, marked)
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
		if got := evaluate[int](t, ctx, `document.querySelectorAll('header nav, main').length`); got != 2 {
			t.Errorf("%s has %d landmarks", path, got)
		}
	}
}

// On paper there are two columns.
func TestPrint(t *testing.T) {
	ctx, url := browse(t)
	emulate(t, ctx, emulation.SetEmulatedMediaParams{Media: "print"})
	do(t, ctx, chromedp.EmulateViewport(800, 1100), chromedp.Navigate(url+"/server03a/"))
	if got := evaluate[string](t, ctx, `getComputedStyle(document.querySelector('#fn-handle')).display`); got != "grid" {
		t.Errorf("a row is a %s", got)
	}
}
