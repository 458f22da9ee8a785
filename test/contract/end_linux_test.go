package contract

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// refuses reports whether nobody listens at an address.
func refuses(addr string) bool {
	conn, err := net.Dial("tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err != nil
}

// settled waits until all children leave signals to their parent.
func settled(s *Server, d design) {
	s.T.Helper()
	set := "SigIgn"
	if d.copies {
		set = "SigBlk" // a child that is executed blocks all signals, too, until it is executed
	}
	s.WaitFor("the children have settled", func() bool {
		children := s.Children()
		return len(children) >= d.pool && !slices.ContainsFunc(children, func(pid int) bool { return !protected(pid, set) })
	})
}

func TestEnd(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP} {
			for _, toGroup := range []bool{false, true} {
				s := Serve(t, d.name)
				if !d.alone {
					s.Connect() // a silent client, for which the server does not wait
				}
				conn := s.Swallower()
				Receive(t, conn, 1000)
				settled(s, d)
				pid := s.PID
				if toGroup {
					pid = -pid
				}
				Kill(t, sig, pid)
				WaitFor(t, "new clients are refused", func() bool { return refuses(s.Addr()) })
				Receive(t, conn, 20000000-1000)
				if more, err := Rest(conn); more != 0 || err != nil {
					t.Errorf("%d bytes too many, error %v", more, err)
				}
				conn.Close()
				if status := s.Status(); status != 0 {
					t.Errorf("%v: exit status %d", sig, status)
				}
				s.Gone()
				s.Free()
				for line := range strings.Lines(s.Stderr.String()) {
					// The silent client, and the attempts above to connect; a child that got the
					// group's SIGTERM before the parent did; and what is said after a second.
					if !strings.Contains(line, "closed without a request") && !strings.HasSuffix(line, " exited with status 0\n") &&
						!strings.HasSuffix(line, waiting) {
						t.Errorf("%v: standard error: %s", sig, line)
					}
				}
			}
		}
	})
}

func TestEndUnderLoad(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		c := Run(t, "client", "-i", "127.0.0.1", "-p", fmt.Sprint(s.Port), "-c", "15", "-t", "100000")
		s.WaitFor("the load is on", func() bool { return s.Stdout.Count("Got request") > 30 })
		Kill(t, unix.SIGINT, -s.PID)
		if status := s.Status(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		s.Gone()
		if s.Stderr.Has("child ") {
			t.Errorf("children have died: %s", Tail(s.Stderr.String()))
		}
		if status := c.Status(); status != 1 {
			t.Errorf("the client's exit status is %d", status)
		}
	})
}

// waiting is what a server says if it has not ended a second after the first signal.
const waiting = ": waiting for replies under way, press Ctrl-C again to end now\n"

// A server says what it waits for. A second signal ends it at once, and its children.
func TestSecondSignal(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		for sig, status := range map[unix.Signal]int{unix.SIGINT: 130, unix.SIGTERM: 143} {
			s := Serve(t, d.name)
			Receive(t, s.Swallower(), 1000)
			settled(s, d)
			s.Signal(sig)
			s.WaitFor("it says what it waits for", func() bool { return s.Stderr.Has(d.name + waiting) })
			s.Signal(sig)
			if got := s.Status(); got != status {
				t.Errorf("%v twice: exit status %d", sig, got)
			}
			s.Gone()
			s.Free()
		}
	})
}

// A signal to the process group finds children that cannot handle it yet.
func TestSignalAtTheStart(t *testing.T) {
	each(t, pools, func(t *testing.T, d design) {
		for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
			s := Serve(t, d.name, "-n", "30")
			s.WaitFor("some children run", func() bool { return len(s.Children()) > 5 })
			Kill(t, sig, -s.PID)
			if status := s.Status(); status != 0 {
				t.Errorf("%v: exit status %d", sig, status)
			}
			s.Gone()
			for line := range strings.Lines(s.Stderr.String()) {
				// A child got SIGTERM before the parent did; a machine under load takes a second.
				if !strings.HasSuffix(line, " exited with status 0\n") && !strings.HasSuffix(line, waiting) {
					t.Errorf("%v: %s", sig, line)
				}
			}
		}
	})
}

// A server waits at most -timeout for a client that does not read its reply.
func TestEndIsBounded(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-timeout", "2s")
		conn := s.Swallower()
		Receive(t, conn, 1000)
		s.Signal(unix.SIGTERM)
		if status := s.Status(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		s.Gone()
	})
}

// All children, or threads, serve a client that reads slowly, but steadily. At the end the server waits for as
// long as -timeout, and then prints what it has counted.
func TestCountersAtTheEnd(t *testing.T) {
	each(t, counts, func(t *testing.T, d design) {
		s := Serve(t, d.name, "-n", "2", "-timeout", "2s")
		var ended sync.WaitGroup
		defer ended.Wait()
		for range 3 { // one may have to wait
			conn := s.Swallower()
			ended.Go(func() {
				for buf := make([]byte, 12_000); ; time.Sleep(50 * time.Millisecond) {
					if _, err := io.ReadFull(conn, buf); err != nil {
						return
					}
				}
			})
		}
		s.WaitFor("two are served", func() bool { return s.Stdout.Count(" 20000000 bytes") >= 2 })
		s.Signal(unix.SIGTERM)
		if status := s.Status(); status != 0 || !s.Stdout.Has(" connections; per "+d.counts) {
			t.Errorf("status %d, it ends with %s", status, Tail(s.Stdout.String()))
		}
		s.Gone()
	})
}

func TestKilled(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := Serve(t, d.name)
		if !d.alone {
			s.Connect()
		}
		Receive(t, s.Swallower(), 1000)
		s.Signal(unix.SIGKILL)
		s.Gone()
		s.Free()
	})
}

// A signal that was ignored when the program started stays ignored.
func TestNohup(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		s := ServeAfter(t, "trap '' HUP;", d.name)
		settled(s, d)
		Kill(t, unix.SIGHUP, -s.PID)
		for range 20 {
			s.Ask("5\n", 5)
		}
		s.Signal(unix.SIGTERM)
		if status := s.Status(); status != 0 {
			t.Errorf("exit status %d", status)
		}
	})
}

// Nobody reads the server's standard output, a pipe. The server may wait, but it has to end.
func TestFullOutput(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		cmd := exec.Command(Path(d.name), "-i", "127.0.0.1", "-p", "0", "-timeout", "1s")
		cmd.Stdout = w
		p := Start(t, cmd)
		w.Close()
		line, err := bufio.NewReaderSize(r, 16).ReadString('.') // not more than that
		if err != nil {
			t.Fatal(err)
		}
		s := &Server{Program: p}
		if _, err := fmt.Sscanf(line, "Listening on port %d .", &s.Port); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		size, err := unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, 4096)
		if err != nil {
			t.Fatal(err)
		}
		full := func() bool {
			n, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ)
			return err != nil || n > size-100
		}
		for !full() {
			conn := s.Send("0\n")
			conn.CloseWrite()
			if d.keeps {
				Rest(conn)
			}
		}
		for range 100 {
			s.Send("0\n")
		}
		s.Signal(unix.SIGTERM)
		if status := s.Status(); status != 0 {
			t.Errorf("exit status %d", status)
		}
		s.Gone()
	})
}

// In a PID namespace of its own the parent's process group has no number.
func TestPIDNamespace(t *testing.T) {
	each(t, all, func(t *testing.T, d design) {
		inside := []string{"--pid", "--fork", "--kill-child", "--mount-proc"}
		Needs(t, "unshare", "PID namespaces")
		s := Listening(t, Start(t, exec.Command("unshare", append(inside, Path(d.name), "-i", "127.0.0.1", "-p", "0", "-timeout", "0")...)))
		s.Crowd(d.crowd)
		s.Connect() // a silent client
		Kill(t, unix.SIGTERM, s.Children()...)
		if status := s.Status(); status != 0 {
			t.Errorf("exit status %d, %s", status, &s.Stderr)
		}
		s.Gone()
	})
}

// exec of a file with a capability makes the kernel forget that a child is to die with its
// parent.
func TestKilledWithCapability(t *testing.T) {
	each(t, forks, func(t *testing.T, d design) {
		Needs(t, "root", "setcap") // only root can run it as another user
		dir, err := os.MkdirTemp("", "csdesign")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		program := filepath.Join(dir, d.name)
		if err := errors.Join(os.Chmod(dir, 0o755), exec.Command("cp", Path(d.name), program).Run()); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("setcap", "cap_net_bind_service+ep", program).CombinedOutput(); err != nil {
			t.Fatalf("setcap: %v %s", err, out)
		}
		s := Listening(t, Start(t, asNobody(exec.Command(program, "-i", "127.0.0.1", "-p", "0"))))
		for range 5 {
			s.Connect()
		}
		s.Ask("5\n", 5)
		settled(s, d)
		children := s.Children()
		s.Signal(unix.SIGKILL)
		for _, pid := range children {
			WaitFor(t, "the child is gone", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
		}
		s.Free()
	})
}

// asNobody makes a command run as the user nobody.
func asNobody(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	return cmd
}
