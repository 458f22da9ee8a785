package option

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"csdesign/internal/sock"
)

// The program under test is the test itself, started again: a server with an option of each
// kind.
func TestMain(m *testing.M) {
	if os.Getenv("OPTIONS") == "" {
		os.Exit(m.Run())
	}
	addr := Server()
	number := Int("n", "number", 3, 1, 10, "a number")
	required := Int("", "required", 0, 1, 10, "a number that has no default")
	text := String("t", "text", "TEXT", "", "a text")
	on := Bool("o", "on", "a switch")
	args := Parse("one", "two")
	println(addr.Addr().String(), addr.Port(), sock.Timeout.String(), *number, *required, *text, *on, strings.Join(args, "+"))
}

// parse returns the exit status of a command line, and what was printed.
func parse(t *testing.T, line string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err strings.Builder
	cmd := exec.Command(os.Args[0], strings.Fields(line)...)
	cmd.Args[0] = "/somewhere/prog"
	cmd.Env = append(os.Environ(), "OPTIONS=1")
	cmd.Stdout, cmd.Stderr = &out, &err
	cmd.Run()
	return cmd.ProcessState.ExitCode(), out.String(), err.String()
}

func TestParse(t *testing.T) {
	for line, want := range map[string]string{
		"": "0.0.0.0 2000 30s 3 0  false \n",
		"-i ::1 -p 0 -timeout 1m30s -n 10 -required 7 -t x -on two one two":          "::1 0 1m30s 10 7 x true two+one+two\n",
		"-host=localhost --port 65535 -timeout=0 -number 1 -text - -on=false -- one": "127.0.0.1 65535 " + sock.NoLimit.String() + " 1 0 - false one\n",
	} {
		if status, stdout, stderr := parse(t, line); status != 0 || stdout != "" || stderr != want {
			t.Errorf("%q: status %d, %q, %q; want %q", line, status, stdout, stderr, want)
		}
	}
}

func TestBadCommandLines(t *testing.T) {
	for line, want := range map[string]string{
		"-i ::1%":       `invalid value "::1%" for flag -i: want an IPv4 or IPv6 address, or localhost`,
		"-host x":       `invalid value "x" for flag -host: want an IPv4 or IPv6 address, or localhost`,
		"-p -1":         `invalid value "-1" for flag -p: want a whole number from 0 to 65535`,
		"-n 11":         `invalid value "11" for flag -n: want a whole number from 1 to 10`,
		"-number 1e1":   `invalid value "1e1" for flag -number: want a whole number from 1 to 10`,
		"-required 0":   `invalid value "0" for flag -required: want a whole number from 1 to 10`,
		"-timeout 30":   `invalid value "30" for flag -timeout: want a time such as 30s or 1m30s, or 0`,
		"-timeout -1ns": `invalid value "-1ns" for flag -timeout: want a time such as 30s or 1m30s, or 0`,
		"-n":            "flag needs an argument: -n",
		"-z":            "flag provided but not defined: -z",
		"one three":     `unexpected argument "three"`,
	} {
		status, stdout, stderr := parse(t, line)
		if status != 2 || stdout != "" || !strings.HasPrefix(stderr, "prog: "+want+"\nUsage: prog [options] [one ...]\n") {
			t.Errorf("%q: status %d, %q, %q; want %q", line, status, stdout, stderr, want)
		}
	}
}

func TestHelp(t *testing.T) {
	const want = `Usage: prog [options] [one ...]
  -i, -host ADDRESS      address to listen on: IPv4, IPv6 or localhost (default 0.0.0.0)
  -p, -port N            port to listen on, 0 for any that is free (default 2000)
  -timeout TIME          how long a client may be silent, or take nothing of its reply, 0 for no limit (default 30s)
  -q, -quiet             do not log requests
  -n, -number N          a number (default 3)
  -required N            a number that has no default
  -t, -text TEXT         a text
  -o, -on                a switch
  -h                     show this help
`
	if status, stdout, stderr := parse(t, "-h"); status != 0 || stdout != want || stderr != "" {
		t.Errorf("status %d, %s, %q", status, stdout, stderr)
	}
}
