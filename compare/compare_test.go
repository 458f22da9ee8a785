//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"csdesign/test/contract"
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
	{design: named("server00"), err: named("server00").cannot(load{Children: 1, Idle: 1})},
}

func init() {
	for i := range fixedRows {
		fixedRows[i].load = load{Children: 15, Loops: 100, Bytes: 4096, Pool: 10}
	}
}

func named(name string) design { return chosen([]string{name})[0] }

func TestTable(t *testing.T) {
	var text strings.Builder
	if err := writeTable(&text, fixedRows, 9); err != nil {
		t.Fatal(err)
	}
	const want = `clients: 15, connections of each: 100, bytes: 4096, size of a pool: 10; rounds: 3 of 9

server     design                       conn/s              CPU us switches    MiB p99 ms fewest   most
server03a  the same, and counts           1000 ██████         44.0     1.70   55.0    2.4    100    200
server04   preforked, parent passes    failed: it does not listen
server05   one thread per client          2000 ████████████   20.2     0.12      -    1.0
  C        thread                         1000 ██████         81.0     1.00      -    2.0
server06   multiplexing, poll          not measured
server00   iterative                   it serves one client at a time

server05   to C       thread     2.00 of the rate,  0.25 of the CPU time
`
	if text.String() != want {
		t.Errorf("the table is\n%s\nwant\n%s", &text, want)
	}
}

func TestJSON(t *testing.T) {
	var text strings.Builder
	if err := writeJSON(&text, fixedRows); err != nil {
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
	if len(s) != 6 || s[0].Name != "server03a" || s[0].Median["memory_mib"] != 55 || len(s[0].Rounds) != 3 || s[1].Error != "it does not listen" {
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
		if err := writeSVG(path, rows); err != nil {
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
		{design: designs[1], rounds: []figures{{name: 500}}},
		{design: designs[2], rounds: []figures{{name: 100}}},
		{design: designs[3], rounds: []figures{{name: 50}}},
	}, name)
	if !all[0].Broken || !all[1].Broken || all[2].Broken || all[1].Length != panelLength || all[2].Length != 2*all[3].Length || all[0].Text != "2000" {
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

const goodServer = "trap 'exit 0' INT\necho 'Listening on port 1 ...'\nwhile :; do sleep 0.01; done\n"

func TestFailures(t *testing.T) {
	for _, test := range []struct{ what, server, want string }{
		{"a server that does not come up", "echo 'server02: no luck' >&2\nexit 1\n", "no luck"},
		{"one that says nothing", "exit 3\n", "it ended before it listened (exit status 3)"},
		{"one that ends badly", strings.Replace(goodServer, "exit 0", "exit 4", 1), "exit status 4"},
		{"one that does not serve", goodServer, "connect, and send the request: connection refused"},
	} {
		t.Run(test.what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			script(t, dir, "server02", test.server)
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
	contract.Needs(t, "python3")
	dir := t.TempDir()
	script(t, dir, "peer.py", `
import signal, sys, time
signal.signal(signal.SIGINT, lambda *a: signal.signal(signal.SIGINT, lambda *a: sys.exit()))
print("Listening on port 1 ...", flush=True)
while True:
    time.sleep(0.01)
`)
	d := withPeers([]design{named("server02")}, []string{inPython})[1]
	if _, _, err := (figures{}).run(context.Background(), dir, address(), d, load{}, false); err != nil {
		t.Error(err)
	}
}

// serve answers each connection with what reply does, and returns its address.
func serve(t *testing.T, reply func(conn net.Conn, count int)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", address()+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			go func() {
				defer conn.Close()
				line, _ := bufio.NewReader(conn).ReadString('\n')
				count, _ := strconv.Atoi(strings.TrimSpace(line))
				reply(conn, count)
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

func TestDrive(t *testing.T) {
	var served atomic.Int64
	pieces := serve(t, func(conn net.Conn, count int) { // in three pieces
		served.Add(1)
		for _, n := range []int{count / 3, count / 3, count - 2*(count/3)} {
			conn.Write(make([]byte, n))
		}
	})
	for _, test := range []struct {
		l     load
		loops int
		limit time.Duration
	}{
		{load{Children: 1, Bytes: 10}, 1, 0}, {load{Children: 300, Bytes: 1000}, 2, 0}, {load{Children: 3, Bytes: 300000}, 5, 0},
		{load{Children: 3, Bytes: 0}, 5, 0}, {load{Children: 100, Bytes: 9}, 0, 0}, {load{Children: 2, Bytes: 9}, 0, 50 * time.Millisecond},
	} {
		served.Store(0)
		f, err := test.l.drive(context.Background(), pieces, test.loops, test.limit)
		want := float64(test.l.Children * max(test.loops, 1))
		if test.limit > 0 {
			want = float64(served.Load())
		}
		if err != nil || f["answered"] != want || float64(served.Load()) != want || f["connections_per_second"] <= 0 || f["p99_ms"] <= 0 {
			t.Errorf("%+v: %v, error %v, want %v connections", test, f, err, want)
		}
	}
	for want, reply := range map[string]func(conn net.Conn, count int){
		"the reply ended after 9 of 10 bytes":               func(conn net.Conn, count int) { conn.Write(make([]byte, count-1)) },
		"the reply has more than the 10 bytes asked for":    func(conn net.Conn, count int) { conn.Write(make([]byte, count+1)) },
		"read the reply: connection reset by peer":          func(conn net.Conn, count int) { conn.(*net.TCPConn).SetLinger(0) },
		"connect, and send the request: connection refused": nil,
	} {
		server := netip.AddrPortFrom(netip.MustParseAddr(address()), 1)
		if reply != nil {
			server = serve(t, reply)
		}
		if _, err := (load{Children: 2, Bytes: 10}).drive(context.Background(), server, 3, 0); err == nil || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestGrowth(t *testing.T) {
	loads := []load{{Children: 15, Bytes: 4096, Pool: 10}, {Children: 15, Bytes: 4096, Pool: 10, Idle: 900}, {Children: 15, Bytes: 4096, Pool: 10, Idle: 9000}}
	rows := func(name string, err error, cpu ...float64) (rows []row) {
		for i, l := range loads {
			r := row{design: named(name), load: l}
			if i < len(cpu) {
				r.rounds = []figures{{"cpu_us_per_connection": cpu[i], "bytes_per_idle": 100 * float64(i), "kernel_bytes_per_idle": 4000}}
			} else {
				r.err = err
			}
			rows = append(rows, r)
		}
		return rows
	}
	all := [][]row{rows("server02", impossible("select(2) takes descriptors below 1,024"), 52, 140), rows("server07", nil, 60, 50, 52)}
	text := growthHeader(loads, 5) + growthLine(all[0]) + growthLine(all[1]) + kernelLine(all[1])
	const want = `clients: 15, idle connections: 0, 900, 9000, connections of each: for 250ms, bytes: 4096, size of a pool: 10; rounds: 5

                                         CPU time of a connection in us  memory of an
server     design                              0      900     9000   idle one, B
server02   multiplexing, select               52      140        -           100  select(2) takes descriptors below 1,024
server07   multiplexing, epoll                60       50       52           200

The kernel needs 4000 bytes for both ends of an idle connection.
`
	if text != want {
		t.Errorf("the table is\n%s\nwant\n%s", text, want)
	}
	path := filepath.Join(t.TempDir(), "x.svg")
	if err := writeGrowthSVG(path, slices.Concat(all...)); err != nil {
		t.Fatal(err)
	}
	picture, err := os.ReadFile(path)
	if err != nil || strings.Count(string(picture), "<polyline") != 2 || strings.Contains(string(picture), "NaN") {
		t.Errorf("error %v, the picture is %s", err, picture)
	}
}

func TestParseCommand(t *testing.T) {
	for value, want := range map[string]string{
		"mine=python3 my.py":    "mine: python3 my.py",
		"python3 my.py -x=1":    "python3: python3 my.py -x=1",
		"/usr/bin/nc -l {port}": "nc: /usr/bin/nc -l {port}",
	} {
		if d, err := parseCommand(value); err != nil || d.name+": "+d.command != want {
			t.Errorf("-run '%s' is %+v, error %v", value, d, err)
		}
	}
	for _, value := range []string{"", " ", "mine="} {
		if d, err := parseCommand(value); err == nil {
			t.Errorf("-run '%s' is %+v", value, d)
		}
	}
}

// What processes that run have used is what wait4(2) says of them later, but for what they use until
// they end.
func TestSoFar(t *testing.T) {
	cmd := exec.Command("sh", "-c", `sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo; read line'; true`)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stdout.Read(make([]byte, 1)) // the child has counted
	u := soFar(cmd.Process.Pid)
	stdin.Close()
	cmd.Wait()
	total := inAll(cmd.ProcessState)
	if u.cpu > total.cpu || u.cpu < total.cpu*9/10 || u.switches < 1 || u.switches > total.switches {
		t.Errorf("%+v, and in the end %+v", u, total)
	}
}
