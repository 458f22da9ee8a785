package contract

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCommandLine(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		type test struct {
			args   string
			status int
			said   string
		}
		tests := []test{
			{"-i 127.0.0.1 -p " + fmt.Sprint(s.Port), 1, fmt.Sprintf("listen %s: address already in use", s.Addr())},
			{"-i 192.0.2.1", 1, "listen 192.0.2.1:2000: cannot assign requested address"},
			{"-i nowhere", 2, `invalid value "nowhere" for flag -i: want an IPv4 or IPv6 address, or localhost`},
			{"-host 1.2.3", 2, `invalid value "1.2.3" for flag -host: want an IPv4 or IPv6 address, or localhost`},
			{"-p 65536", 2, `invalid value "65536" for flag -p: want a whole number from 0 to 65535`},
			{"--port x", 2, `invalid value "x" for flag -port: want a whole number from 0 to 65535`},
			{"-timeout -1s", 2, `invalid value "-1s" for flag -timeout: want a time such as 30s or 1m30s, or 0`},
			{"-x", 2, "flag provided but not defined: -x"},
			{"-p 0 now", 2, `unexpected argument "now"`},
		}
		if d.most > 0 {
			tests = append(tests,
				test{"-n 0", 2, fmt.Sprintf(`invalid value "0" for flag -n: want a whole number from 1 to %d`, d.most)},
				test{"-child-num 1025", 2, fmt.Sprintf(`invalid value "1025" for flag -child-num: want a whole number from 1 to %d`, d.most)})
		}
		for _, test := range tests {
			p := Run(t, d.name, strings.Fields(test.args)...)
			status, said := p.Status(), p.Stderr.String()
			line, usage, _ := strings.Cut(said, "\n")
			has := line == d.name+": "+test.said
			if address, cause, ok := strings.Cut(test.said, ": "); ok && test.status == 1 { // package net says more
				_, address, _ = strings.Cut(address, " ")
				has = strings.HasPrefix(line, d.name+": listen ") && strings.Contains(line, address) && strings.HasSuffix(line, cause)
			}
			if status != test.status || !has {
				t.Errorf("%s: status %d, %s", test.args, status, said)
			}
			if hasUsage := strings.HasPrefix(usage, "Usage: "+d.name+" [options]\n"); hasUsage != (test.status == 2) {
				t.Errorf("%s: after the message comes %q", test.args, usage)
			}
			if p.Stdout.String() != "" && test.status != 1 {
				t.Errorf("%s: standard output: %s", test.args, &p.Stdout)
			}
		}
		p := Run(t, d.name, "-h")
		if status := p.Status(); status != 0 || p.Stderr.String() != "" {
			t.Errorf("-h: status %d, %s", status, &p.Stderr)
		}
		for _, once := range []string{"-i, -host ADDRESS", "(default 0.0.0.0)", "-p, -port N", "(default 2000)", "-timeout TIME", "(default 30s)", "-q, -quiet"} {
			if p.Stdout.Count(once) != 1 {
				t.Errorf("-h does not say %q once: %s", once, &p.Stdout)
			}
		}
	})
}

// The name of a program, and of its directory, may be anything.
func TestAnyName(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		dir := filepath.Join(t.TempDir(), "the: child 5")
		program := filepath.Join(dir, d.name+": child 7")
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Symlink(Path(d.name), program)); err != nil {
			t.Fatal(err)
		}
		s := Listening(t, Start(t, exec.Command(program, "-i", "127.0.0.1", "-p", "0")))
		s.Ask("5\n", 5)
	})
}

// A directory as the root of all files, in which there is no /dev/null.
func TestChroot(t *testing.T) {
	each(t, forks, func(t *testing.T, d design) {
		if race {
			t.Skip("a program with the race detector needs shared libraries")
		}
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "proc"), 0o755); err != nil {
			t.Fatal(err)
		}
		p := Sandbox(t, fmt.Sprintf(`
			cp $BIN/%[1]s $BIN/client %[2]s
			mount -t proc proc %[2]s/proc
			chroot %[2]s /%[1]s -i 127.0.0.1 -p 2000 & server=$!
			until $BIN/client -i 127.0.0.1 -p 2000 -c 1 -t 1 2>/dev/null; do kill -0 $server; done
			kill $server; wait $server`, d.name, dir))
		if status := p.Status(); status != 0 {
			t.Errorf("status %d, %s", status, &p.Stderr)
		}
	})
}

// With -q a server does not log its requests. All else it says.
func TestQuiet(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-q")
		s.Ask("5\n", 5)
		s.Ask("x\n", 0)
		s.WaitFor("it says that the request is bad", func() bool { return s.Stderr.Has("bad request") })
		s.Signal(unix.SIGTERM)
		if status := s.Status(); status != 0 || s.Stdout.Has("Got request") {
			t.Errorf("status %d, %s, %s", status, &s.Stdout, &s.Stderr)
		}
	})
}

func TestLongestTimeout(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-timeout", "2562047h47m16.854775807s")
		s.Ask("1000000\n", 1_000_000)
		s.Signal(unix.SIGTERM)
		status, said := s.Status(), strings.TrimSuffix(s.Stderr.String(), d.name+waiting) // on a slow machine
		if status != 0 || said != "" {
			t.Errorf("exit status %d, %s", status, &s.Stderr)
		}
	})
}

// At the fewest descriptors that are enough, a server serves.
func TestFewDescriptors(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := ServeAfter(t, "ulimit -n 32;", d.name)
		s.Ask("5\n", 5)
		s.Signal(unix.SIGTERM)
		if status := s.Status(); status != 0 || s.Stderr.Has("goroutine") {
			t.Errorf("status %d, %s", status, &s.Stderr)
		}
	})
}

// With fewer it says so.
func TestTooFewDescriptors(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		for n := 4; n <= 12; n++ {
			line := fmt.Sprintf("ulimit -n %d; exec %s -i 127.0.0.1 -p 0", n, Path(d.name))
			p := Start(t, exec.Command("/bin/sh", "-c", line))
			WaitFor(t, "it listens, or has ended", func() bool { return p.HasEnded() || p.Stdout.Has("Listening on port") })
			if p.HasEnded() && (p.Status() != 1 || strings.Count(p.Stderr.String(), "\n") != 1) || p.Stderr.Has("goroutine") {
				t.Errorf("%d descriptors: %s", n, Tail(p.Stderr.String()))
			}
			unix.Kill(p.PID, unix.SIGKILL) // or it has ended
		}
	})
}

// A child does not get what the parent was started with.
func TestInheritedDescriptor(t *testing.T) {
	each(t, func(d design) bool { return d.forks && !d.copies }, func(t *testing.T, d design) {
		s := ServeAfter(t, "exec 9</dev/zero;", d.name)
		s.Connect()
		if d.pool == 0 {
			s.Pool(1, nil) // the child for the connection
		}
		settled(s, d)
		for _, pid := range append(s.Children(), s.PID) {
			to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/9", pid))
			if has := err == nil && to == "/dev/zero"; has != (pid == s.PID) {
				t.Errorf("process %d, descriptor 9: %s, %v", pid, to, err)
			}
		}
	})
}
