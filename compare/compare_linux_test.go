package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"csdesign/internal/contract"
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
		Load    map[string]int
		Servers []struct {
			Name   string
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
