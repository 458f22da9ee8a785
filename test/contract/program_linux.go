package contract

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Patience is how long a test waits for what has to happen, on a slow machine under load.
var Patience = time.Minute

// root is the root of the repository, bin the directory of the built programs.
var root, bin string

// Main builds these programs, runs the tests of a package, and exits.
func Main(m *testing.M, programs ...string) {
	flag.Set("test.parallel", "16") // a test often waits
	status, err := run(m, programs)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		status = 1
	}
	os.Exit(status)
}

func run(m *testing.M, programs []string) (status int, err error) {
	mod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return 0, err
	}
	root = filepath.Dir(string(mod))
	if bin, err = os.MkdirTemp("", "csdesign"); err != nil {
		return 0, err
	}
	defer os.RemoveAll(bin)
	args := []string{"build", "-o", bin + "/"}
	if race {
		args = append(args, "-race")
		// A program with the race detector sleeps for a second before it exits.
		os.Setenv("GORACE", "atexit_sleep_ms=0")
		Patience *= 3
	}
	if len(programs) == 0 {
		return m.Run(), nil
	}
	for _, name := range programs {
		args = append(args, "csdesign/"+name)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// Root returns the root of the repository.
func Root() string { return root }

// Path returns the file of a built program.
func Path(name string) string { return filepath.Join(bin, name) }

// lookAtSources makes the result of a test depend on the sources of the programs: go test
// does not run a test again if the files that it has looked at are the same.
var lookAtSources = sync.OnceValue(func() error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" {
			_, err = os.Stat(path)
		}
		return err
	})
})

// Output is what a program has printed so far.
type Output struct {
	lock sync.Mutex
	buf  bytes.Buffer
}

func (o *Output) Write(p []byte) (int, error) {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.buf.Write(p)
}

func (o *Output) String() string {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.buf.String()
}

// Shorten throws away all but the first lines of an output that has become long.
func (o *Output) Shorten() {
	o.lock.Lock()
	defer o.lock.Unlock()
	first := o.buf.Bytes()[:min(o.buf.Len(), 1000)]
	o.buf.Truncate(bytes.LastIndexByte(first, '\n') + 1)
}

// Has reports whether the output contains a text.
func (o *Output) Has(text string) bool { return o.Count(text) > 0 }

// Count returns how often the output contains a text.
func (o *Output) Count(text string) int { return strings.Count(o.String(), text) }

// A Program was started by a test, in a process group of its own.
type Program struct {
	T              testing.TB
	Cmd            *exec.Cmd
	PID            int
	Stdout, Stderr Output
	Ended          chan struct{} // closed when it has ended
}

// Run starts a built program. What is left of it at the end of the test is killed.
func Run(t testing.TB, name string, args ...string) *Program {
	t.Helper()
	return Start(t, exec.Command(Path(name), args...))
}

// Start is [Run] for any command.
func Start(t testing.TB, cmd *exec.Cmd) *Program {
	t.Helper()
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	p := &Program{T: t, Cmd: cmd, Ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.Stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.Stderr
	}
	cmd.WaitDelay = Patience // a child could outlive it and hold its output open
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Pdeathsig = true, syscall.SIGKILL
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.PID = cmd.Process.Pid
	go func() {
		cmd.Wait()
		close(p.Ended)
	}()
	t.Cleanup(func() {
		unix.Kill(-p.PID, unix.SIGKILL)
		<-p.Ended
		if t.Failed() {
			t.Logf("%v\nstandard error: %s", cmd, Tail(p.Stderr.String()))
		}
	})
	return p
}

// Sandbox runs a shell script in network and mount namespaces of its own, with a loopback
// interface. $BIN is the directory of the programs.
func Sandbox(t testing.TB, script string) *Program {
	t.Helper()
	Needs(t, "unshare", "ip", "namespaces")
	args := []string{"--net", "--mount", "--", "sh", "-c"}
	cmd := exec.Command("unshare", append(args, "set -e; BIN="+Path("")+"; ip link set lo up; "+script)...)
	return Start(t, cmd)
}

// Tail returns the end of a long text.
func Tail(s string) string { return s[max(0, len(s)-2000):] }

// WaitFor waits until something is so.
func WaitFor(t testing.TB, what string, so func() bool) {
	t.Helper()
	pause := time.Millisecond
	for deadline := time.Now().Add(Patience); !so(); pause = min(pause*3/2, 25*time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for this: %s", Patience, what)
		}
		time.Sleep(pause)
	}
}

// WaitFor waits until something is so while the program runs. It fails when the program has ended.
func (p *Program) WaitFor(what string, so func() bool) {
	p.T.Helper()
	WaitFor(p.T, what, func() bool {
		ended := p.HasEnded() // before the last look
		if so() {
			return true
		}
		if ended {
			p.T.Fatalf("it has ended, so this will not be: %s", what)
		}
		return false
	})
}

// Kill sends a signal to processes, or to a process group by its negative number.
func Kill(t testing.TB, sig unix.Signal, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil {
			t.Fatalf("send %v to %d: %v", sig, pid, err)
		}
	}
}

// Signal sends a signal to the program, but not to its children.
func (p *Program) Signal(sig unix.Signal) {
	p.T.Helper()
	Kill(p.T, sig, p.PID)
}

// HasEnded reports whether the program has ended.
func (p *Program) HasEnded() bool {
	select {
	case <-p.Ended:
		return true
	default:
		return false
	}
}

// Status waits for the end of the program and returns its exit status.
func (p *Program) Status() int {
	p.T.Helper()
	select {
	case <-p.Ended:
	case <-time.After(Patience):
		p.T.Fatalf("%v does not end", p.Cmd)
	}
	return p.Cmd.ProcessState.ExitCode()
}

// Gone requires that the program ends, and that nothing is left of it.
func (p *Program) Gone() {
	p.T.Helper()
	WaitFor(p.T, "no process is left", func() bool { return len(p.Tree()) == 0 })
}
