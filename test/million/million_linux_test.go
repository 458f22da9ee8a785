package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"

	"csdesign/test/contract"
)

func TestMain(m *testing.M) { contract.Main(m, "test/million") }

// At a limit of descriptors there are several processes, and all ends well.
func TestFewConnections(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "ulimit -n 2000 && exec "+contract.Path("million")+" -c 1200")
	cmd.Dir = contract.Root()
	p := contract.Start(t, cmd)
	const want = `\Aserver09 -n 3, and 3 processes with clients
1200 connections are open after [\d.]+ s: \d+ a second
beside them one client makes \d+ connections a second
the server needs -?\d+ MiB for them: -?\d+ bytes for each
the kernel needs -?\d+ MiB: -?\d+ bytes for each, with both ends
after SIGTERM the server ends in [\d.]+ s, with [\d.]+ s of CPU time
\z`
	if status := p.Status(); status != 0 || !regexp.MustCompile(want).MatchString(p.Stdout.String()) {
		t.Errorf("status %d, %s%s", status, &p.Stdout, &p.Stderr)
	}
	p.Gone()
}

// More than the system allows is not tried.
func TestTooMany(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "ulimit -n 1504 && exec "+contract.Path("million")+" -c 10000000")
	cmd.Dir = contract.Root()
	dir := t.TempDir()
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	p := contract.Start(t, cmd)
	const want = "10000000 connections are not possible here, 4096 are: a process can have 1504 descriptors (ulimit -Hn), and server09 has at most 1024 children\n"
	contract.WaitFor(t, "it says what is possible", func() bool { return p.Stdout.Has(want) })
	p.Signal(unix.SIGTERM)
	p.Status()
	p.Gone()
	left, err := filepath.Glob(filepath.Join(dir, "million*"))
	if err != nil || len(left) > 0 {
		t.Errorf("it leaves %v, %v", left, err)
	}
}
