package contract

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// switches returns how many context switches a connection takes, with a pool and one client.
// Standard output is a file, because a pipe would wake the test for every request.
func switches(t *testing.T, name string) float64 {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	said := func() string {
		text, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	cmd := exec.Command(Path(name), "-i", "127.0.0.1", "-p", "0", "-n", "10")
	cmd.Stdout = out
	s := Start(t, cmd)
	WaitFor(t, "the children have started", func() bool { return strings.Count(said(), "Child started") == 10 })
	_, port, _ := strings.Cut(said(), "Listening on port ")
	port, _, _ = strings.Cut(port, " ")
	c := Run(t, "client", "-i", "127.0.0.1", "-p", port, "-c", "1", "-t", "2000", "-b", "100")
	if status := c.Status(); status != 0 {
		t.Fatalf("client: status %d, %s", status, &c.Stderr)
	}
	s.Signal(unix.SIGINT)
	if status := s.Status(); status != 0 {
		t.Fatalf("exit status %d", status)
	}
	if !strings.Contains(said(), "\n2000 connections; per child: ") {
		t.Errorf("it counts %s", Tail(said()))
	}
	match := regexp.MustCompile(`(?m)^(\d+) context switches, (\d+\.\d) for each connection$`).FindStringSubmatch(said())
	if match == nil {
		t.Fatalf("it does not count switches: %s", Tail(said()))
	}
	all := Number(t, match[1])
	if want := fmt.Sprintf("%.1f", float64(all)/2000); match[2] != want {
		t.Errorf("%d switches for 2000 connections are %s, not %s", all, want, match[2])
	}
	return float64(all) / 1000
}

// A connection wakes all children that wait in poll, and one of those that wait in accept, or each in
// an epoll with EPOLLEXCLUSIVE. On a busy
// machine the threads of the Go runtime add switches to both, so the least of several
// measurements counts, and in the end the difference.
func TestThunderingHerd(t *testing.T) {
	accept, epoll, poll := math.Inf(1), math.Inf(1), math.Inf(1)
	for range 5 {
		accept, epoll = min(accept, switches(t, "server03a")), min(epoll, switches(t, "server03d"))
		if poll = min(poll, switches(t, "server03b")); poll >= 3*max(accept, epoll) {
			return
		}
	}
	if poll-max(accept, epoll) < 5 { // of nine children that could be woken for nothing
		t.Errorf("switches for a connection: %.1f with poll, %.1f with accept, %.1f with epoll", poll, accept, epoll)
	}
}

// The child that is in accept holds the lock. When it is killed, another one gets the lock.
func TestHolderOfTheLockKilled(t *testing.T) {
	t.Parallel()
	s := Serve(t, "server03c", "-n", "3")
	s.Pool(3, nil)
	for range 3 {
		var holders []int
		s.WaitFor("one child is in accept", func() bool {
			holders = slices.DeleteFunc(slices.Clone(s.Children()), func(pid int) bool { return !Calls(t, pid, unix.SYS_ACCEPT4) })
			return len(holders) == 1
		})
		Kill(t, unix.SIGKILL, holders...)
		WaitFor(t, "it is dead", func() bool { return unix.Kill(holders[0], 0) == unix.ESRCH })
		s.Ask("5\n", 5)
	}
	s.Pool(3, nil)
	s.Crowd(20)
	if sum := Sum(s.Counts("child")); sum != 303 {
		t.Errorf("%d connections counted, want 303", sum)
	}
}
