package contract

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// variables returns the environment of a process (proc(5), environ).
func variables(t *testing.T, pid int) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// Whatever is in the environment, a program is no child, and its children are none of their own. The
// limit on processes is for a version in which they are.
func TestForeignVariables(t *testing.T) {
	each(t, func(d design) bool { return d.forks && !d.copies }, func(t *testing.T, d design) {
		Needs(t, "limits on processes")
		as := asUser(t, d, 25)
		run := func(value string) *Program {
			args := append([]string{"--nproc=200:", Path(d.name), "-i", "127.0.0.1", "-p", "0"}, d.few()...)
			cmd := as("prlimit", args...)
			cmd.Env = append(os.Environ(), "GOMAXPROCS=7", "CSDESIGN_CHILD="+value)
			return Start(t, cmd)
		}
		for _, value := range []string{"", "x", "7", "of"} {
			s := Listening(t, run(value))
			s.Connect()
			if d.pool == 0 {
				s.Pool(1, nil) // the child for the connection
			} else {
				s.Pool(few, nil)
			}
			d.pool = min(d.pool, few)
			settled(s, d)
			for _, pid := range s.Children() {
				var found []string
				for _, v := range variables(t, pid) {
					if strings.HasPrefix(v, "CSDESIGN_CHILD=") || strings.HasPrefix(v, "GOMAXPROCS=") {
						found = append(found, v)
					}
				}
				processors := 2
				if d.pool == 0 {
					processors = 1
				}
				slices.Sort(found)
				if len(found) != 2 || !strings.HasSuffix(found[0], fmt.Sprintf(" of %d", s.PID)) || found[1] != fmt.Sprintf("GOMAXPROCS=%d", processors) {
					t.Errorf("with %q a child has %q", value, found)
				}
			}
			s.Ask("5\n", 5)
			if s.Stderr.String() != "" {
				t.Errorf("with %q: %s", value, &s.Stderr)
			}
			s.Signal(unix.SIGTERM)
			s.Status()
			s.Gone()
		}
		p := run("7 of 1")
		if status := p.Status(); status != 1 || p.Stderr.String() != d.name+": CSDESIGN_CHILD is for the children of process 1\n" {
			t.Errorf("the child of another process: status %d, %s", status, &p.Stderr)
		}
	})
}

// A listener on [::] takes clients on IPv4, too, whatever the system's default is.
func TestBothProtocols(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		p := Sandbox(t, fmt.Sprintf(`
			echo 1 > /proc/sys/net/ipv6/bindv6only
			$BIN/%s -i :: -p 2000 -q & server=$!
			until $BIN/client -i ::1 -p 2000 -c 1 -t 1 2>/dev/null; do kill -0 $server; done
			$BIN/client -i 127.0.0.1 -p 2000 -c 1 -t 1
			kill $server; wait $server`, d.name))
		if status := p.Status(); status != 0 {
			t.Errorf("status %d, %s", status, &p.Stderr)
		}
	})
}

// full returns /dev/full, to which nothing can be written.
func full(t *testing.T) *os.File {
	t.Helper()
	file, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

// That requests cannot be logged is said once. That the counters at the end cannot be printed is an
// error.
func TestFullDevice(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		host := OwnHost()
		cmd := exec.Command(Path(d.name), "-i", host, "-p", "2000")
		cmd.Stdout = full(t)
		s := &Server{Program: Start(t, cmd), Port: 2000, Host: host}
		WaitFor(t, "it listens", func() bool { return !refuses(s.Addr()) })
		for range 30 { // more than there are children
			s.Ask("5\n", 5)
		}
		s.Signal(unix.SIGTERM)
		status, said := s.Status(), s.Stderr.String()
		for line := range strings.Lines(said) {
			if strings.Contains(line, "closed without a request") || strings.HasSuffix(line, waiting) { // by WaitFor
				said = strings.Replace(said, line, "", 1)
			}
		}
		wantStatus, want := 0, d.name+": a request is not logged: "
		if want += "write /dev/stdout: no space left on device (this is said only once)\n"; d.copies {
			want = strings.Replace(want, "write /dev/stdout: ", "", 1)
		}
		if d.counts != "" {
			wantStatus, want = 1, want+d.name+": write /dev/stdout: no space left on device\n"
		}
		if status != wantStatus || said != want {
			t.Errorf("status %d, %s", status, said)
		}
		help := exec.Command(Path(d.name), "-h")
		help.Stdout = full(t)
		p := Start(t, help)
		if status := p.Status(); status != 1 || p.Stderr.String() != d.name+": write /dev/stdout: no space left on device\n" {
			t.Errorf("-h: status %d, %s", status, &p.Stderr)
		}
	})
}
