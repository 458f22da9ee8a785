package contract

import (
	"fmt"
	"os"
	"os/exec"
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
		for _, once := range []string{"-i, -host ADDRESS", "(default 0.0.0.0)", "-p, -port N", "(default 2000)", "-timeout TIME", "(default 30s)"} {
			if p.Stdout.Count(once) != 1 {
				t.Errorf("-h does not say %q once: %s", once, &p.Stdout)
			}
		}
	})
}

func TestLongestTimeout(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-timeout", "2562047h47m16.854775807s")
		s.Ask("1000000\n", 1_000_000)
		s.Signal(unix.SIGTERM)
		if status := s.Status(); status != 0 || s.Stderr.String() != "" {
			t.Errorf("exit status %d, %s", status, &s.Stderr)
		}
	})
}

// With few descriptors a server says so, or serves.
func TestFewDescriptors(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		for limit := 4; limit <= 36; limit += 4 {
			line := fmt.Sprintf("ulimit -n %d; exec %s -i 127.0.0.1 -p 0", limit, Path(d.name))
			p := Start(t, exec.Command("/bin/sh", "-c", line))
			WaitFor(t, "it listens or ends", func() bool { return p.HasEnded() || p.Stdout.Has("Listening") })
			if !p.Stdout.Has("Listening") {
				said := p.Stderr.String()
				if p.Status() != 1 || strings.Count(said, "\n") != 1 || !strings.Contains(said, "too many open files\n") {
					t.Errorf("limit %d: status %d, %s", limit, p.Status(), Tail(said))
				}
				continue
			}
			s := Listening(t, p)
			s.Ask("5\n", 5)
			s.Signal(unix.SIGTERM)
			if status := s.Status(); status != 0 || s.Stderr.Has("goroutine") {
				t.Errorf("limit %d: status %d, %s", limit, status, &s.Stderr)
			}
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
