package contract

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen, on a machine that is slow.
const patience = 30 * time.Second

// root is where their source is, bin where the programs under test are.
var (
	root = filepath.Join("..", "..")
	bin  string
)

func TestMain(m *testing.M) {
	flag.Set("test.parallel", "8") // most of the time a test waits
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "csdesign")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		bin = dir
		args := []string{"build", "-o", bin + "/"}
		if race {
			args = append(args, "-race")
			// A program with the race detector sleeps for a second before it exits.
			os.Setenv("GORACE", "atexit_sleep_ms=0")
		}
		build := exec.Command("go", append(args, "./...")...)
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "%v: %v\n%s", build, err, out)
			return 1
		}
		return m.Run()
	}())
}

// lookAtSources lets go test know what the result depends on. It takes an earlier
// result for a new one as long as no file has changed that a test has looked at, and
// it does not see what the compiler looks at.
var lookAtSources = sync.OnceValue(func() error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" {
			_, err = os.Stat(path)
		}
		return err
	})
})

// An output is what a program has printed so far.
type output struct {
	lock sync.Mutex
	buf  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.lock.Lock()
	defer o.lock.Unlock()
	return o.buf.String()
}

// A program is one that was started, in a process group of its own.
type program struct {
	t              testing.TB
	cmd            *exec.Cmd
	stdout, stderr output
	ended          chan struct{} // closed when it has ended
}

// run starts a built program. What is left of it at the end of the test is killed.
func run(t testing.TB, name string, args ...string) *program {
	t.Helper()
	return start(t, exec.Command(filepath.Join(bin, name), args...))
}

func start(t testing.TB, cmd *exec.Cmd) *program {
	t.Helper()
	if err := lookAtSources(); err != nil {
		t.Fatal(err)
	}
	p := &program{t: t, cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &p.stdout, &p.stderr
	cmd.WaitDelay = patience // should a child outlive it, and hold its output open
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		<-p.ended
		if t.Failed() {
			t.Logf("%v\nstandard error: %s", cmd, tail(p.stderr.String()))
		}
	})
	return p
}

func tail(s string) string { return s[max(0, len(s)-2000):] }

// waitFor polls until something is so.
func waitFor(t testing.TB, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for this: %s", patience, what)
		}
	}
}

// kill sends a signal to processes, to a whole group if the PID is negative.
func kill(t testing.TB, sig unix.Signal, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		if err := unix.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
}

// signal sends a signal to the program alone.
func (p *program) signal(sig unix.Signal) {
	p.t.Helper()
	kill(p.t, sig, p.cmd.Process.Pid)
}

// status waits for the end of the program and returns its exit status.
func (p *program) status() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("%v does not end", p.cmd)
	}
	return p.cmd.ProcessState.ExitCode()
}

// A process is what /proc says of one, or of a thread.
type process struct {
	pid, parent, group int
	state              string // T: stopped
	cpu                time.Duration
}

// processes returns all processes that have not ended.
func processes(t testing.TB) []process {
	t.Helper()
	return stats(t, "/proc/[0-9]*/stat")
}

// threads returns the threads of a process.
func threads(t testing.TB, pid int) []process {
	t.Helper()
	return stats(t, fmt.Sprintf("/proc/%d/task/*/stat", pid))
}

func stats(t testing.TB, pattern string) (all []process) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // gone
		}
		// proc(5): the second field is in parentheses, and may contain some.
		pid, _, _ := strings.Cut(string(text), " ")
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if f[0] == "Z" || f[0] == "X" {
			continue
		}
		const tick = time.Second / 100
		all = append(all, process{
			pid: number(t, pid), parent: number(t, f[1]), group: number(t, f[2]), state: f[0],
			cpu: time.Duration(number(t, f[11])+number(t, f[12])) * tick,
		})
	}
	return all
}

// calls reports whether a thread of the process is in this system call (proc(5),
// /proc/pid/syscall).
func calls(t testing.TB, pid, number int) bool {
	t.Helper()
	for _, thread := range threads(t, pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", pid, thread.pid))
		if errors.Is(err, os.ErrPermission) {
			t.Skip(err)
		}
		if strings.HasPrefix(string(text), fmt.Sprintf("%d ", number)) {
			return true
		}
	}
	return false
}

// accepted reports whether the server's end of a client's connection is out of the
// backlog: before, it belongs to no file, and its inode is 0 (proc(5), /proc/net/tcp).
func accepted(t testing.TB, client string) bool {
	t.Helper()
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(client, ":")
	remote := fmt.Sprintf("0100007F:%04X", number(t, port))
	for line := range bytes.Lines(text) {
		f := strings.Fields(string(line))
		if f[2] == remote && f[9] != "0" {
			return true
		}
	}
	return false
}

func number(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// children returns the PIDs of the program's children.
func (p *program) children() (pids []int) {
	p.t.Helper()
	for _, process := range processes(p.t) {
		if process.parent == p.cmd.Process.Pid {
			pids = append(pids, process.pid)
		}
	}
	return pids
}

// tree returns the program and its children, and all that is left of its group.
func (p *program) tree() (tree []process) {
	p.t.Helper()
	pid := p.cmd.Process.Pid
	for _, process := range processes(p.t) {
		if process.pid == pid || process.parent == pid || process.group == pid {
			tree = append(tree, process)
		}
	}
	return tree
}

// memory returns the proportional set size of the program and its children, in
// bytes.
func (p *program) memory() (total int) {
	p.t.Helper()
	for _, process := range p.tree() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", process.pid))
		if err != nil {
			continue // gone
		}
		_, after, ok := strings.Cut(string(text), "\nPss:")
		if ok {
			total += number(p.t, strings.Fields(after)[0]) << 10
		}
	}
	return total
}

// A server is a program that listens.
type server struct {
	*program
	port int
}

// serve starts a server on a free port and waits until it listens.
func serve(t testing.TB, name string, args ...string) *server {
	t.Helper()
	return listening(t, run(t, name, append([]string{"-i", "127.0.0.1", "-p", "0"}, args...)...))
}

// serveAfter is serve in a shell that first does something else, and then becomes the
// server.
func serveAfter(t testing.TB, first, name string, args ...string) *server {
	t.Helper()
	line := []string{first, "exec", filepath.Join(bin, name), "-i", "127.0.0.1", "-p", "0"}
	return listening(t, start(t, exec.Command("/bin/sh", "-c", strings.Join(append(line, args...), " "))))
}

func listening(t testing.TB, p *program) *server {
	t.Helper()
	s := &server{program: p}
	waitFor(t, "it listens", func() bool {
		select {
		case <-p.ended:
			t.Fatalf("it has ended")
		default:
		}
		_, after, _ := strings.Cut(p.stdout.String(), "Listening on port ")
		n, err := fmt.Sscanf(after, "%d ...\n", &s.port)
		return n == 1 && err == nil
	})
	return s
}

func (s *server) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// connect returns a connection that fails when it waits for too long.
func (s *server) connect() *net.TCPConn {
	s.t.Helper()
	conn, err := net.DialTimeout("tcp", s.addr(), patience)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn.(*net.TCPConn)
}

// send connects and sends a request.
func (s *server) send(request string) *net.TCPConn {
	s.t.Helper()
	conn := s.connect()
	if _, err := io.WriteString(conn, request); err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// receive reads so many bytes of a reply.
func receive(t testing.TB, conn net.Conn, count int) []byte {
	t.Helper()
	reply := make([]byte, count)
	if n, err := io.ReadFull(conn, reply); err != nil {
		t.Fatalf("%d of %d bytes: %v", n, count, err)
	}
	return reply
}

// rest reads what comes until the server closes.
func rest(conn net.Conn) (count int64, err error) {
	count, err = io.Copy(io.Discard, conn)
	if errors.Is(err, unix.ECONNRESET) {
		err = nil // closed before it has read all that was sent
	}
	return count, err
}

// ask sends a request, shuts its side down, and requires a reply of so many bytes.
func (s *server) ask(request string, count int64) {
	s.t.Helper()
	conn := s.send(request)
	defer conn.Close()
	if err := conn.CloseWrite(); err != nil {
		s.t.Fatal(err)
	}
	got, err := rest(conn)
	if got != count || err != nil {
		s.t.Fatalf("request %.40q: %d bytes, error %v; want %d bytes", request, got, err, count)
	}
}

// free requires that nobody listens at the server's port any more.
func (s *server) free() {
	s.t.Helper()
	waitFor(s.t, "the port is free", func() bool {
		l, err := net.Listen("tcp", s.addr())
		if err != nil {
			return false
		}
		l.Close()
		return true
	})
}

// gone requires that nothing is left of the program.
func (p *program) gone() {
	p.t.Helper()
	waitFor(p.t, "no process is left", func() bool { return len(p.tree()) == 0 })
}
