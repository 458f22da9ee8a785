package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"csdesign/test/contract"
)

func TestMain(m *testing.M) { contract.Main(m, "compare") }

// runCompare starts compare with a directory of its own for what it builds.
func runCompare(t *testing.T, args ...string) (p *contract.Program, dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd := exec.Command(contract.Path("compare"), args...)
	cmd.Dir = contract.Root()
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	return contract.Start(t, cmd), dir
}

// nothingLeft requires that no program from the directory runs, and no file is there.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) > 0 {
		t.Errorf("left behind: %v, error %v", files, err)
	}
	for _, process := range contract.Processes(t) {
		exe, err := os.Readlink(filepath.Join("/proc", fmt.Sprint(process.PID), "exe"))
		if err == nil && strings.HasPrefix(exe, dir) {
			t.Errorf("process %d still runs: %s", process.PID, exe)
		}
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	svg := filepath.Join(t.TempDir(), "x.svg")
	p, dir := runCompare(t, "-c", "3", "-t", "20", "-rounds", "2", "-n", "2", "-json", "-svg", svg, "server08", "server02")
	if status := p.Status(); status != 0 || p.Stderr.String() != "" {
		t.Fatalf("status %d, %s", status, &p.Stderr)
	}
	nothingLeft(t, dir)
	var result struct {
		Servers []struct {
			Name   string
			Load   map[string]int
			Median map[string]float64
			Rounds []map[string]float64
		}
	}
	if err := json.Unmarshal([]byte(p.Stdout.String()), &result); err != nil {
		t.Fatalf("%v: %s", err, &p.Stdout)
	}
	if len(result.Servers) != 2 || result.Servers[0].Name != "server02" || result.Servers[1].Name != "server08" {
		t.Fatalf("the servers are not server02 and server08: %s", &p.Stdout)
	}
	for _, s := range result.Servers {
		if s.Load["clients"] != 3 {
			t.Errorf("%s: the load is %v", s.Name, s.Load)
		}
		answered := 0.0
		for _, round := range s.Rounds {
			answered += round["answered"]
			for _, key := range []string{"connections_per_second", "memory_mib", "p99_ms"} {
				if round[key] <= 0 {
					t.Errorf("%s: %s is %v", s.Name, key, round[key])
				}
			}
			if round["processes"] != 1 {
				t.Errorf("%s: %v processes", s.Name, round["processes"])
			}
		}
		if answered != 2*3*20 {
			t.Errorf("%s: %v connections answered, want 120", s.Name, answered)
		}
		if s.Median["connections_per_second"] <= 0 {
			t.Errorf("%s: the median rate is %v", s.Name, s.Median["connections_per_second"])
		}
	}
	if _, err := os.Stat(svg); err != nil {
		t.Error(err)
	}
}

func TestInterrupt(t *testing.T) {
	t.Parallel()
	p, dir := runCompare(t, "-c", "2", "-t", "1000", "-rounds", "1000", "server02", "server03")
	runs := func() bool { // the client has been started
		files, err := filepath.Glob(filepath.Join(dir, "*", "stdout"))
		if err != nil || len(files) == 0 {
			return false
		}
		text, err := os.ReadFile(files[0])
		return err == nil && strings.Contains(string(text), "Got request")
	}
	contract.WaitFor(t, "a server is under load", runs)
	contract.Kill(t, unix.SIGINT, -p.PID)
	if status := p.Status(); status != 130 || p.Stderr.String() != "" {
		t.Errorf("status %d, %s", status, &p.Stderr)
	}
	nothingLeft(t, dir)
	for _, want := range []string{"\nserver     design ", "\nserver02   multiplexing, select", "\nserver03   preforked, children accept"} {
		if !strings.Contains(p.Stdout.String(), want) {
			t.Errorf("the table has no %q: %s", want, &p.Stdout)
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	p, _ := runCompare(t, "server02", "server99")
	want := "compare: unexpected argument \"server99\"\nUsage: compare [options] [server00 ...]\n"
	if status := p.Status(); status != 2 || !strings.HasPrefix(p.Stderr.String(), want) {
		t.Errorf("status %d, %s", status, &p.Stderr)
	}
}

// Nothing is left behind when nobody reads the output.
func TestClosedOutput(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd := exec.Command("/bin/sh", "-c", contract.Path("compare")+" -c 2 -t 10 -rounds 1 server02 | true")
	cmd.Dir = contract.Root()
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	p := contract.Start(t, cmd)
	p.Status()
	p.Gone()
	nothingLeft(t, dir)
}

// Ctrl-C while it builds: go has a directory of its own, too.
func TestInterruptWhileBuilding(t *testing.T) {
	t.Parallel()
	svg := filepath.Join(t.TempDir(), "x.svg")
	if err := os.WriteFile(svg, []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	p, dir := runCompare(t, "-svg", svg)
	contract.WaitFor(t, "go has a directory", func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "*", "go-build*"))
		return err == nil && len(files) > 0
	})
	contract.Kill(t, unix.SIGINT, -p.PID)
	if status := p.Status(); status != 130 {
		t.Errorf("status %d, %s", status, &p.Stderr)
	}
	nothingLeft(t, dir)
	if text, err := os.ReadFile(svg); string(text) != "old" || err != nil {
		t.Errorf("the picture has become %.100q, %v", text, err)
	}
}

func TestPictureThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	p, dir := runCompare(t, "-svg", filepath.Join(t.TempDir(), "missing", "x.svg"))
	if status := p.Status(); status != 1 || !p.Stderr.Has("no such file or directory\n") || p.Stdout.String() != "" {
		t.Errorf("status %d, %s, %s", status, &p.Stdout, &p.Stderr)
	}
	nothingLeft(t, dir)
}

// The peers have rows of their own, and ratios.
func TestWithPeers(t *testing.T) {
	t.Parallel()
	contract.Needs(t, "cc", "python3")
	p, dir := runCompare(t, "-c", "2", "-t", "10", "-n", "2", "-rounds", "1", "-with", "c,python", "server03", "server04", "server07")
	if status := p.Status(); status != 0 {
		t.Fatalf("status %d, %s%s", status, &p.Stdout, &p.Stderr)
	}
	nothingLeft(t, dir)
	var got []string
	for line := range strings.Lines(p.Stdout.String()) {
		if f := strings.Fields(line); len(f) > 3 && (f[0] == "C" || f[0] == "Python" || f[1] == "to") {
			got = append(got, strings.Join(f[:min(len(f), 4)], " "))
		}
	}
	form := regexp.MustCompile(`\A(C|Python) (prefork|passfd|epoll) \d+ .*\z|\Aserver0\d to (C|Python) (prefork|passfd|epoll)\z`)
	for _, line := range got {
		if !form.MatchString(line) {
			t.Errorf("this is no peer: %s", line)
		}
	}
	if len(got) != 10 {
		t.Errorf("%d lines of peers, want 10:\n%s", len(got), &p.Stdout)
	}
}

// Where a peer cannot be run, its row says so.
func TestWithoutPeers(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Dir(path)
	if _, err := os.Stat(filepath.Join(path, "cc")); err == nil {
		t.Skip("cc is where go is")
	}
	dir := t.TempDir()
	cmd := exec.Command(contract.Path("compare"), "-c", "2", "-t", "10", "-rounds", "1", "-with", "c,python", "server02")
	cmd.Dir = contract.Root()
	cmd.Env = append(os.Environ(), "TMPDIR="+dir, "PATH="+path, "CGO_ENABLED=0")
	p := contract.Start(t, cmd)
	if status := p.Status(); status != 1 {
		t.Errorf("status %d", status)
	}
	for _, name := range []string{"cc", "python3"} {
		want := fmt.Sprintf(" failed: exec: %q: executable file not found in $PATH\n", name)
		if !p.Stdout.Has(want) {
			t.Errorf("the table does not say %q: %s%s", want, &p.Stdout, &p.Stderr)
		}
	}
	nothingLeft(t, dir)
}

// Outside of the collection there is nothing to build.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(contract.Path("compare"))
	cmd.Dir = t.TempDir()
	p := contract.Start(t, cmd)
	const want = "compare: it builds the servers, so run it in the directory of the collection\n"
	if status := p.Status(); status != 1 || p.Stderr.String() != want {
		t.Errorf("status %d, %s", status, &p.Stderr)
	}
}

// With several numbers the table shows how the figures grow.
func TestGrowingLoad(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"-c", "1,20", "server02", "server03"}, `
 +conn/s +p99 ms
server +design +1 +20 +1 +20
server02 +multiplexing, select( +[\d.]+){4}
server03 +preforked, children accept( +[\d.]+){4}
`}, {[]string{"-idle", "0,60", "server03", "server07"}, `
 +CPU time of a connection in us  memory of an
server +design +0 +60 +idle one, B
server03 +preforked, children accept +\d+ +- +-  it serves 2 clients at a time
server07 +multiplexing, epoll( +\d+){3}
`},
	} {
		svg := filepath.Join(t.TempDir(), "x.svg")
		p, dir := runCompare(t, append([]string{"-t", "20", "-rounds", "2", "-n", "2", "-svg", svg}, test.args...)...)
		if status := p.Status(); status != 0 || p.Stderr.String() != "" {
			t.Errorf("%v: status %d, %s", test.args, status, &p.Stderr)
		}
		if !regexp.MustCompile(test.want).MatchString(p.Stdout.String()) {
			t.Errorf("%v: the table is\n%s", test.args, &p.Stdout)
		}
		if _, err := os.Stat(svg); err != nil {
			t.Error(err)
		}
		nothingLeft(t, dir)
	}
}

// A server of the reader's own has a row, too.
func TestRun(t *testing.T) {
	t.Parallel()
	contract.Needs(t, "python3")
	wrong := "python3 -c \"import socket\ns = socket.create_server(('{host}', {port}))\nwhile 1:\n c = s.accept()[0]\n c.recv(9)\n c.send(b'x')\""
	p, dir := runCompare(t, "-c", "2", "-t", "10", "-rounds", "1", "-n", "3",
		"-run", "mine=python3 compare/peers/peer.py prefork {host} {port} {n}", "-run", "nothing-of-the-kind {port}", "-run", "wrong="+wrong, "server00")
	if status := p.Status(); status != 1 {
		t.Errorf("status %d, %s", status, &p.Stderr)
	}
	form := regexp.MustCompile(`
server +design .*
mine +of -run.*
nothing-of-the-kind +of -run +failed: .*not found
wrong +of -run +failed: the reply ended after 1 of 4096 bytes
server00 .*
`)
	if !form.MatchString(p.Stdout.String()) {
		t.Errorf("the table is\n%s", &p.Stdout)
	}
	nothingLeft(t, dir)
}

func TestTooManyDescriptors(t *testing.T) {
	t.Parallel()
	p, _ := runCompare(t, "-idle", "1000000", "server07")
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Max > 1000000 {
		t.Skipf("the limit is %d, %v", limit.Max, err)
	}
	want := fmt.Sprintf("compare: 1000015 clients need 1000065 descriptors, and the limit is %d; as root, raise it with: ulimit -n 1000065\n", limit.Max)
	if status := p.Status(); status != 2 || !strings.HasPrefix(p.Stderr.String(), want) {
		t.Errorf("status %d, %s", status, &p.Stderr)
	}
}
