package contract

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// systemCalls returns how many system calls a server makes for a load.
func systemCalls(t *testing.T, name string) int {
	t.Helper()
	trace := filepath.Join(t.TempDir(), "trace")
	s := Listening(t, Start(t, exec.Command("strace", "-f", "-c", "-o", trace, Path(name), "-i", "127.0.0.1", "-p", "0")))
	s.Crowd(100)
	Kill(t, unix.SIGTERM, s.Children()...)
	if status := s.Status(); status != 0 {
		t.Fatalf("%s: exit status %d, %s", name, status, &s.Stderr)
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`(?m)^100\.00 +\S+ +\S+ +(\d+) .*total$`).FindSubmatch(text)
	if match == nil {
		t.Fatalf("strace: %s", Tail(string(text)))
	}
	return Number(t, string(match[1]))
}

// One call submits all that has to be done in a round, and waits for what is done.
func TestFewSystemCalls(t *testing.T) {
	design{name: "server10"}.needs(t)
	Needs(t, "strace", "ptrace")
	if race {
		t.Skip("the race detector makes system calls of its own")
	}
	epoll, ring := systemCalls(t, "server07"), systemCalls(t, "server10")
	if 2*ring >= epoll {
		t.Errorf("server10 makes %d system calls, server07 %d", ring, epoll)
	}
	t.Logf("system calls for 1,500 connections: server07 %d, server10 %d", epoll, ring)
}

// The error says what to do about it.
func TestLockedMemory(t *testing.T) {
	design{name: "server10"}.needs(t)
	Needs(t, "root", "prlimit") // only root can run it as another user
	if err := os.Chmod(Path(""), 0o755); err != nil {
		t.Fatal(err)
	}
	p := Start(t, asNobody(exec.Command("prlimit", "--memlock=4096:4096", Path("server10"), "-i", "127.0.0.1", "-p", "0")))
	const want = "server10: set up io_uring: cannot allocate memory; see the limit of locked memory (ulimit -l)\n"
	if status := p.Status(); status != 1 || p.Stderr.String() != want {
		t.Errorf("status %d, %s", status, &p.Stderr)
	}
}
