package main

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fixed are the rounds of a server that counts. In the second round it was slow. What was
// not known in the third does not count.
var fixed = []figures{
	round(1500, 1000, 40, 1.5, 10, 2, 11, 68, 100, 200),
	round(1500, 10, 4000, 15, 100, 20, 12, 70, 1, 999),
	round(1500, 1200, 44, 1.7, unknown, 2.4, 11, 68, 120, 180),
}

const unknown = -1

// round returns figures in the order of the columns.
func round(values ...float64) figures {
	f := figures{}
	for i, value := range values {
		if value != unknown {
			f[columns[i].name] = value
		}
	}
	return f
}

func TestMedian(t *testing.T) {
	want := round(1500, 1000, 44, 1.7, 55, 2.4, 11, 68, 100, 200)
	if got := median(fixed); !maps.Equal(got, want) {
		t.Errorf("median = %v, want %v", got, want)
	}
	if got := median(nil); len(got) != 0 {
		t.Errorf("the median of nothing is %v", got)
	}
}

func TestBar(t *testing.T) {
	for _, test := range []struct {
		value, best float64
		want        string
	}{
		{96, 96, "████████████"}, {48, 96, "██████      "}, {49, 96, "██████▏     "},
		{0, 96, "            "}, {0, 0, "            "},
	} {
		if got := bar(test.value, test.best); got != test.want {
			t.Errorf("bar(%v, %v) = %q, want %q", test.value, test.best, got, test.want)
		}
	}
}

var fixedRows = []row{
	{design: named("server03a"), rounds: fixed},
	{design: named("server04"), err: errors.New("it does not listen")},
	{design: named("server05"), rounds: []figures{round(1500, 2000, 20.25, 0.124, unknown, 1, unknown, unknown, unknown, unknown)}},
	{design: withPeers([]design{named("server05")}, []string{inC, inPython})[1], rounds: []figures{round(1500, 1000, 81, 1, unknown, 2)}},
	{design: named("server06")},
}

func named(name string) design { return chosen([]string{name})[0] }

func TestTable(t *testing.T) {
	var text strings.Builder
	if err := writeTable(&text, fixedRows, load{15, 100, 4096, 10}, 9); err != nil {
		t.Fatal(err)
	}
	const want = `clients: 15, connections of each: 100, bytes: 4096, size of a pool: 10; rounds: 3 of 9

server     design                       conn/s              CPU us switches    MiB p99 ms fewest   most
server03a  the same, and counts           1000 ██████         44.0     1.70   55.0    2.4    100    200
server04   preforked, parent passes    failed: it does not listen
server05   one thread per client          2000 ████████████   20.2     0.12      -    1.0
  C        thread                         1000 ██████         81.0     1.00      -    2.0
server06   multiplexing, poll          not measured

server05   to C       thread     2.00 of the rate,  0.25 of the CPU time
`
	if text.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", &text, want)
	}
}

func TestJSON(t *testing.T) {
	var text strings.Builder
	if err := writeJSON(&text, fixedRows, load{15, 100, 4096, 10}); err != nil {
		t.Fatal(err)
	}
	var result struct {
		Servers []struct {
			Name, Error string
			Median      map[string]float64
			Rounds      []map[string]float64
		}
	}
	if err := json.Unmarshal([]byte(text.String()), &result); err != nil {
		t.Fatal(err)
	}
	s := result.Servers
	if len(s) != 5 || s[0].Name != "server03a" || s[0].Median["memory_mib"] != 55 || len(s[0].Rounds) != 3 || s[1].Error != "it does not listen" {
		t.Errorf("%+v", s)
	}
}

func TestLanguages(t *testing.T) {
	for with, want := range map[string]string{"": "[]", "c": "[C]", "python,c": "[Python C]"} {
		if got, err := languages(with); fmt.Sprint(got) != want || err != nil {
			t.Errorf("-with %s: %v, %v", with, got, err)
		}
	}
	if _, err := languages("c,perl"); err == nil {
		t.Error("-with c,perl is taken")
	}
	var names []string
	for _, d := range withPeers([]design{named("server03"), named("server03a"), named("server07")}, []string{inC, inPython}) {
		names = append(names, d.name+" "+d.of)
	}
	if got := strings.Join(names, ", "); got != "server03 , C server03, Python server03, server03a , server07 , C server07" {
		t.Error(got)
	}
}

func TestSVG(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.svg")
	for want, rows := range map[int][]row{3 + 3: fixedRows, 0: {{design: designs[0]}}} {
		if err := writeSVG(path, rows, load{15, 100, 4096, 10}); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		bars := 0
		for dec := xml.NewDecoder(file); ; {
			token, err := dec.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if start, ok := token.(xml.StartElement); ok && start.Name.Local == "rect" {
				bars++
			}
		}
		if bars != want {
			t.Errorf("%d bars, want %d", bars, want)
		}
	}
}

func TestBrokenBar(t *testing.T) {
	const name = "cpu_us_per_connection"
	all := bars([]row{
		{design: designs[0], rounds: []figures{{name: 2000}}},
		{design: designs[1], rounds: []figures{{name: 100}}},
		{design: designs[2], rounds: []figures{{name: 50}}},
	}, name)
	if !all[0].Broken || all[1].Broken || all[0].Length != panelLength || all[1].Length != 2*all[2].Length || all[0].Text != "2000" {
		t.Errorf("%+v", all)
	}
}

// script puts a shell script in the place of a program. Another process writes it: a child of
// this one could have it open for writing at the moment when it is executed (ETXTBSY).
func script(t *testing.T, dir, name, text string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `cat > "$0" && chmod +x "$0"`, filepath.Join(dir, name))
	cmd.Stdin = strings.NewReader("#!/bin/sh\n" + text)
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

const (
	goodServer = "trap 'exit 0' INT\necho 'Listening on port 1 ...'\nwhile :; do sleep 0.01; done\n"
	goodClient = "echo '10 connections answered, 0 failed, 0 not made'\n"
)

func TestFailures(t *testing.T) {
	for _, test := range []struct{ what, server, client, want string }{
		{"a server that does not come up", "echo 'server02: no luck' >&2\nexit 1\n", goodClient, "no luck"},
		{"one that says nothing", "exit 3\n", goodClient, "it ended before it listened (exit status 3)"},
		{"one that ends badly", strings.Replace(goodServer, "exit 0", "exit 4", 1), goodClient, "exit status 4"},
		{"one that answers short", goodServer, "echo 'child 0: connection 1: too short' >&2\nexit 1\n",
			"client: child 0: connection 1: too short (exit status 1)"},
		{"one that answers too few", goodServer, "echo '9 connections answered, 0 failed, 1 not made'\n", "9 of 10 connections were answered"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			script(t, dir, "server02", test.server)
			script(t, dir, "client", test.client)
			_, err := measure(context.Background(), dir, named("server02"), load{Children: 2, Loops: 5})
			if err == nil || err.Error() != test.want {
				t.Errorf("error %v, want %s", err, test.want)
			}
		})
	}
}

// A program may miss a signal: it gets another one.
func TestServerThatMissesASignal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script(t, dir, "server02", strings.Replace(goodServer, "exit 0", `trap "exit 0" INT`, 1))
	script(t, dir, "client", goodClient)
	if _, err := measure(context.Background(), dir, named("server02"), load{Children: 2, Loops: 5}); err != nil {
		t.Error(err)
	}
}
