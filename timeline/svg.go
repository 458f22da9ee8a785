//go:build linux

package main

import (
	"bytes"
	"fmt"
	"html"
	"time"
)

const (
	width, rowHeight = 720, 22
	left, right      = 84, 710 // of the time
)

// svg draws a scene, for light and for dark pages.
func (s scene) svg() []byte {
	var b bytes.Buffer
	rows := len(s.clients) + len(s.rows)
	height := 34 + rows*rowHeight + 52
	x := func(t time.Duration) float64 { return left + float64(right-left)*float64(t)/float64(s.length) }
	y := func(row int) int { return 30 + row*rowHeight }
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" font-family="system-ui, sans-serif" font-size="12" role="img" aria-label="%s: what happens when">
<style>
text { fill: #333 } .muted { fill: #666 } .grid { stroke: #ddd } .link { stroke: #999; stroke-dasharray: 2 2; fill: none } .silent { stroke: #999; stroke-width: 2 }
`, width, height, s.design.name)
	for i, k := range kinds {
		fmt.Fprintf(&b, ".k%d { fill: %s } ", i, k.color)
	}
	b.WriteString(`.wait { fill-opacity: .3 } .in { font-size: 10px }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .muted { fill: #aaa } .grid { stroke: #333 } .link { stroke: #777 } .wait { fill-opacity: .45 } }
</style>
`)
	for t := time.Duration(0); t < s.length; t += 100 * time.Millisecond {
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%[1]f" y1="22" y2="%d"/>`, x(t), y(rows))
		if x(t) < right-30 {
			fmt.Fprintf(&b, `<text class="muted" x="%.1f" y="14" text-anchor="middle">%d</text>`+"\n", x(t), t.Milliseconds())
		}
	}
	fmt.Fprintf(&b, `<text class="muted" x="%d" y="14" text-anchor="end">ms</text>`+"\n", right)
	bar := func(row int, class, name, title string, begin, end time.Duration) {
		w := max(1.5, x(end)-x(begin))
		fmt.Fprintf(&b, `<rect class="%s" x="%.1f" y="%d" width="%.1f" height="16" rx="2"><title>%s</title></rect>`+"\n", class, x(begin), y(row), w, html.EscapeString(title))
		if w > float64(7*len(name)) && name != "" {
			fmt.Fprintf(&b, `<text class="in" x="%.1f" y="%d">%s</text>`+"\n", x(begin)+3, y(row)+12, html.EscapeString(name))
		}
	}
	for i, c := range s.clients {
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><line class="silent" x1="%.1f" x2="%.1f" y1="%d" y2="%[6]d"/>`+"\n", left-6, y(i)+12, c.name, x(c.connect), x(c.request), y(i)+8)
		bar(i, "k1 wait", "waits", fmt.Sprintf("waits for its reply, %v", (c.first-c.request).Round(time.Millisecond)), c.request, c.first)
		bar(i, "k1", "", fmt.Sprintf("reads its reply, %v", (c.last-c.first).Round(time.Millisecond)), c.first, c.last)
	}
	for i, r := range s.rows {
		row := len(s.clients) + i
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", left-6, y(row)+12, r.name)
		skip := time.Duration(-1) // calls that are too close to each other to be seen are drawn as one
		for j, c := range r.calls {
			class, name := fmt.Sprintf("k%d", kind(c.name)), ""
			if c.waits() {
				class, name = class+" wait", c.name
			} else if c.end <= skip && j > 0 && kind(r.calls[j-1].name) == kind(c.name) {
				continue
			}
			skip = c.begin + s.length/400
			bar(row, class, name, s.title(c), c.begin, c.end)
			s.links(&b, c, row, x, y)
		}
	}
	at := 6
	for i, k := range kinds {
		fmt.Fprintf(&b, `<rect class="k%d" x="%d" y="%d" width="10" height="10" rx="2"/><text class="muted" x="%d" y="%d">%s</text>`+"\n", i, at, height-36, at+14, height-27, k.words)
		at += 30 + 7*len(k.words)
	}
	fmt.Fprintf(&b, `<text class="muted" x="6" y="%d">Pale: waits. Dotted: from connect to accept, and from a request to its reply. %d more threads touch no socket.</text>`+"\n</svg>\n", height-8, s.others)
	return b.Bytes()
}

// title says what a call was: on whose connection, and for how long.
func (s scene) title(c call) string {
	text := c.name
	for _, client := range s.clients {
		if client.port == c.port && c.port != 0 {
			text += ", " + client.name
		}
	}
	return fmt.Sprintf("%s, %.1f ms", text, float64((c.end-c.begin).Microseconds())/1000)
}

// links draws a line from a connect to the accept that takes it, and from a request to the first write of its reply.
func (s scene) links(b *bytes.Buffer, c call, row int, x func(time.Duration) float64, y func(int) int) {
	for i, client := range s.clients {
		from, to := client.connect, c.end
		if c.name != "accept4" {
			from, to = client.request, c.begin
		}
		isFirst := c.name == "accept4" || kinds[kind(c.name)].words == "write" && s.firstWrite(c)
		if client.port == c.port && c.port != 0 && isFirst {
			fmt.Fprintf(b, `<path class="link" d="M%.1f %d L%.1f %d"/>`+"\n", x(from), y(i)+16, x(to), y(row))
		}
	}
}

// firstWrite reports whether no earlier call has written to that client.
func (s scene) firstWrite(c call) bool {
	for _, r := range s.rows {
		for _, other := range r.calls {
			if other.port == c.port && other.begin < c.begin && kind(other.name) == kind(c.name) {
				return false
			}
		}
	}
	return true
}
