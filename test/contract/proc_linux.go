package contract

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is what /proc says of a process, or of a thread.
type Process struct {
	PID, Parent, Group int
	State              string // T: stopped
}

// Processes returns all processes that have not ended.
func Processes(t testing.TB) []Process {
	t.Helper()
	return stats(t, "/proc/[0-9]*/stat")
}

// Threads returns the threads of a process.
func Threads(t testing.TB, pid int) []Process {
	t.Helper()
	return stats(t, fmt.Sprintf("/proc/%d/task/*/stat", pid))
}

// Stop stops processes, and waits until none of their threads runs.
func Stop(t testing.TB, pids ...int) {
	t.Helper()
	Kill(t, unix.SIGSTOP, pids...)
	for _, pid := range pids {
		WaitFor(t, "it has stopped", func() bool {
			return !slices.ContainsFunc(Threads(t, pid), func(p Process) bool { return p.State != "T" })
		})
	}
}

func stats(t testing.TB, pattern string) (all []Process) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// The second field is in parentheses, and may contain some itself (proc(5)).
		pid, _, _ := strings.Cut(string(text), " ")
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if f[0] == "Z" || f[0] == "X" {
			continue
		}
		all = append(all, Process{PID: Number(t, pid), Parent: Number(t, f[1]), Group: Number(t, f[2]), State: f[0]})
	}
	return all
}

// Calls reports whether a thread of the process is in this system call (proc(5),
// /proc/pid/syscall).
func Calls(t testing.TB, pid, number int) bool {
	t.Helper()
	for _, thread := range Threads(t, pid) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/syscall", pid, thread.PID))
		if errors.Is(err, os.ErrPermission) {
			t.Skipf("needs ptrace: %v", err)
		}
		if strings.HasPrefix(string(text), fmt.Sprintf("%d ", number)) {
			return true
		}
	}
	return false
}

// Number returns the number that is in a text.
func Number(t testing.TB, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Children returns the PIDs of the program's children (proc(5), children).
func (p *Program) Children() (pids []int) {
	p.T.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", p.PID))
	if err != nil {
		p.T.Fatal(err)
	}
	for _, file := range files {
		text, _ := os.ReadFile(file) // or it has ended
		for _, pid := range strings.Fields(string(text)) {
			pids = append(pids, Number(p.T, pid))
		}
	}
	return pids
}

// protected reports whether SIGINT is in this set of signals of a process: SigIgn are those that
// it ignores, SigBlk those that it blocks (proc(5), status).
func protected(pid int, set string) bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // or it has ended
	for line := range strings.Lines(string(text)) {
		name, mask, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		bits, err := strconv.ParseUint(mask, 16, 64)
		if name == set && err == nil && bits&(1<<(unix.SIGINT-1)) != 0 {
			return true
		}
	}
	return false
}

// Tree returns the program, its children, and all that is left of its process group.
func (p *Program) Tree() (tree []Process) {
	p.T.Helper()
	for _, process := range Processes(p.T) {
		if process.PID == p.PID || process.Parent == p.PID || process.Group == p.PID {
			tree = append(tree, process)
		}
	}
	return tree
}

// Demand returns for how long the threads of the program and its children have run, or have waited for
// a processor (/proc/PID/task/TID/schedstat). Unlike CPU time it does not shrink on a machine that is busy: a thread
// that never sleeps needs one second in each second.
func (p *Program) Demand() (total time.Duration) {
	p.T.Helper()
	for _, process := range p.Tree() {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", process.PID))
		if err != nil {
			p.T.Fatal(err)
		}
		for _, file := range files {
			var ran, waited time.Duration
			text, _ := os.ReadFile(file) // or it has ended
			fmt.Sscan(string(text), &ran, &waited)
			total += ran + waited
		}
	}
	return total
}

// Sleeps waits until the program and its children sleep: for a second they need less than a tenth of a
// processor.
func (p *Program) Sleeps() {
	p.T.Helper()
	p.WaitFor("it sleeps", func() bool {
		begin, before := time.Now(), p.Demand()
		time.Sleep(time.Second)
		return before > 0 && p.Demand()-before < time.Since(begin)/10
	})
}

// Memory returns the proportional set size of the program and its children, in bytes.
func (p *Program) Memory() (total int) {
	p.T.Helper()
	for _, process := range p.Tree() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", process.PID))
		if err != nil {
			continue // it has ended
		}
		_, after, ok := strings.Cut(string(text), "\nPss:")
		if ok {
			total += Number(p.T, strings.Fields(after)[0]) << 10
		}
	}
	return total
}

// State returns the state of the server's end of a connection on 127.0.0.1: "" if there is
// none, "BACKLOG" if the server has not accepted it (then it belongs to no file, and its
// inode is 0), or one of TCP's (proc(5), /proc/net/tcp).
func (s *Server) State(client net.Conn) string {
	s.T.Helper()
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		s.T.Fatal(err)
	}
	local := fmt.Sprintf("0100007F:%04X", s.Port)
	remote := fmt.Sprintf("0100007F:%04X", client.LocalAddr().(*net.TCPAddr).Port)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[1] != local || f[2] != remote {
			continue
		}
		state := map[string]string{"01": "ESTABLISHED", "04": "FIN_WAIT1", "05": "FIN_WAIT2"}[f[3]]
		if state == "ESTABLISHED" && f[9] == "0" {
			return "BACKLOG"
		}
		return state
	}
	return ""
}
