package contract

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestKilledChildren(t *testing.T) {
	each(t, pools, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-n", "7")
		var children []int
		for range 3 {
			children = s.Pool(7, children)
			Kill(t, unix.SIGKILL, children...)
		}
		s.Pool(7, children)
		s.Crowd(d.crowd)
		for index := range 7 {
			said := fmt.Sprintf("%s: child %d (PID ", d.name, index)
			WaitFor(t, "three times: "+said, func() bool { return s.Stderr.Count(said) == 3 })
		}
	})
}

func TestTerminatedChild(t *testing.T) {
	each(t, pools, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-n", "1")
		conn := s.Swallower()
		Receive(t, conn, 1000)
		children := s.Pool(1, nil)
		Kill(t, unix.SIGTERM, children[0])
		Receive(t, conn, 20000000-1000)
		s.Pool(1, children)
		s.Ask("5\n", 5)
	})
}

func TestChildrenThatDieAtOnce(t *testing.T) {
	each(t, pools, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-n", "2")
		WaitFor(t, "the server gives up", func() bool {
			for _, pid := range s.Children() {
				unix.Kill(pid, unix.SIGKILL)
			}
			return s.HasEnded()
		})
		if status := s.Status(); status != 1 {
			t.Errorf("exit status %d", status)
		}
		if !s.Stderr.Has(d.name + ": children die as soon as they start\n") {
			t.Errorf("standard error: %s", &s.Stderr)
		}
	})
}

// A child that was stopped, by Ctrl-Z or a debugger, goes on with its reply.
func TestStoppedChild(t *testing.T) {
	each(t, forks, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		conn := s.Swallower()
		Receive(t, conn, 1000)
		settled(s, d)
		for range 5 {
			if !d.keeps {
				WaitFor(t, "a child waits in write", func() bool {
					return slices.ContainsFunc(s.Children(), func(pid int) bool { return Calls(t, pid, unix.SYS_WRITE) })
				})
			}
			Kill(t, unix.SIGSTOP, s.Children()...)
			Kill(t, unix.SIGCONT, s.Children()...)
		}
		// A reply is made 64 KiB at a time, in a buffer that is used again.
		reply := Receive(t, conn, 20000000-1000)
		const page, chunk = 4096, 64 << 10
		for i := chunk; i+page <= len(reply); i += page {
			if now := reply[i : i+page]; bytes.Equal(now, reply[i-chunk:][:page]) || bytes.Equal(now, make([]byte, page)) {
				t.Fatalf("the bytes from %d on are not random", i)
			}
		}
		conn.Close()
		s.Ask("5\n", 5)
		if s.Stderr.String() != "" {
			t.Errorf("standard error: %s", &s.Stderr)
		}
	})
}

// At a limit on processes some children live and some do not. The server serves with those
// that do, a line a second is all that it says, and when there is room again the pool is full.
func TestProcessLimit(t *testing.T) {
	each(t, func(d design) bool { return d.forks && !d.queues }, func(t *testing.T, d design) {
		if os.Getuid() != 0 {
			t.Skip("the limit does not hold for root, and only root can become another user")
		}
		// A user of its own for each test, as the limit is for all processes of the user.
		user := uint32(70_000 + os.Getpid()%10_000*100 + slices.IndexFunc(designs, func(other design) bool { return other.name == d.name }))
		as := func(name string, args ...string) *exec.Cmd {
			cmd := exec.Command(name, args...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
			return cmd
		}
		if out, err := as("prlimit", "--nproc=45:", "true").CombinedOutput(); err != nil {
			t.Skipf("prlimit: %v %s", err, out)
		}
		if err := os.Chmod(filepath.Dir(Path(d.name)), 0o755); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		args := []string{"--nproc=45:", Path(d.name), "-i", "127.0.0.1", "-p", "0"}
		if d.pool > 0 {
			args = append(args, "-n", "10") // more than there is room for
		}
		s := Listening(t, Start(t, as("prlimit", args...)))
		if d.pool > 0 {
			WaitFor(t, "a child has died, or could not be started", func() bool { return s.Stderr.String() != "" })
		}
		// A child that dies may take a connection with it. But most are answered.
		answered := 0
		for range 200 {
			conn := s.Send("5\n")
			conn.CloseWrite()
			if got, _ := io.Copy(io.Discard, conn); got == 5 {
				answered++
			}
			conn.Close()
		}
		if answered < 150 {
			t.Errorf("%d of 200 clients were answered", answered)
		}
		if d.pool > 0 {
			WaitFor(t, "it has tried again", func() bool { return s.Stderr.Count("\n") > 13 })
		}
		// All children at the start, and then one each second.
		most := 12 + int(time.Since(begin).Seconds())
		if said := s.Stderr.String(); strings.Count(said, "\n") > most || strings.Contains(said, "runtime") {
			t.Errorf("in %v it said %s", time.Since(begin), said)
		}
		raise := func(pid int) {
			out, err := as("prlimit", "--pid", fmt.Sprint(pid), "--nproc=1000:").CombinedOutput()
			if err != nil && unix.Kill(pid, 0) == nil {
				t.Fatalf("prlimit: %v %s", err, out)
			}
		}
		raise(s.PID) // those that are started from now on inherit it
		for _, pid := range s.Children() {
			raise(pid)
		}
		if d.pool > 0 {
			s.Pool(10, nil)
		}
		s.Crowd(d.crowd)
		s.Signal(unix.SIGTERM)
		if status := s.Status(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	})
}

// A shell that calls exec leaves its children to the program.
func TestChildOfTheShell(t *testing.T) {
	each(t, forks, func(t *testing.T, d design) {
		s := ServeAfter(t, "sleep 1000 &", d.name)
		for _, pid := range s.Children() {
			name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if err != nil || string(name) != "sleep\n" {
				continue
			}
			Kill(t, unix.SIGKILL, pid)
			WaitFor(t, "the shell's child is reaped", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
		}
		s.Crowd(d.crowd)
		if s.Stderr.String() != "" {
			t.Errorf("standard error: %s", &s.Stderr)
		}
	})
}

func TestCounts(t *testing.T) {
	each(t, counts, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		for range 4 { // more than 256 for each
			s.Crowd(d.crowd)
		}
		counts := s.Counts(d.counts)
		if want := max(d.pool, 2); d.counts == "child" && len(counts) != want {
			t.Fatalf("it counts %d, want %d", len(counts), want)
		}
		for index, count := range counts {
			// If the kernel chooses who gets a connection, the mean is 600. server04 prefers
			// the first children.
			if count < 60 && d.name != "server04" {
				t.Errorf("%s %d was idle: %d times", d.counts, index, count)
			}
		}
		if sum := Sum(counts); sum != 6000 {
			t.Errorf("%d connections counted, want 6000", sum)
		}
	})
}

func TestCountsOfMany(t *testing.T) {
	each(t, counts, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-n", "101")
		if counts := s.Counts(d.counts); len(counts) != 101 {
			t.Errorf("it counts %d", len(counts))
		}
	})
}

func TestReplacedChildrenKeepTheirCount(t *testing.T) {
	each(t, func(d design) bool { return d.pool > 0 && d.counts != "" }, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-n", "3")
		var children []int
		for range 3 {
			children = s.Pool(3, children)
			s.Crowd(d.crowd)
			Kill(t, unix.SIGKILL, children...)
		}
		s.Pool(3, children)
		if sum := Sum(s.Counts("child")); sum != 4500 {
			t.Errorf("%d connections counted, want 4500", sum)
		}
		if strings.Contains(s.Stderr.String(), "children die") {
			t.Errorf("standard error: %s", &s.Stderr)
		}
	})
}
