package faults

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/test/contract"
)

var whole = flag.Bool("all", false, "make all calls of the table fail; go test needs -timeout, too")

var servers = strings.Fields("server00 server01 server01a server02 server03 server03a server03b server03c server03d server04 " +
	"server05 server05a server06 server07 server08 server08a server09 server09a server10")

// pooled are the servers with the option -n.
var pooled = regexp.MustCompile(`server(03.?|04|08.?|09.?)$`)

func TestMain(m *testing.M) { contract.Main(m, append([]string{"client"}, servers...)...) }

// patience is how long a client waits. A server that waits for a second after each of three errors
// has time enough, on a busy machine, too.
const patience = 20 * time.Second

// An answer is what a client has got.
type answer struct {
	port           string // the client's
	ok, late, long bool   // all of the reply; nothing in time; more than the reply
}

// ask asks for count bytes.
func ask(addr string, count int64) (a answer) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return answer{late: errors.Is(err, os.ErrDeadlineExceeded)}
	}
	defer conn.Close()
	_, a.port, _ = net.SplitHostPort(conn.LocalAddr().String())
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "%d\n", count)
	got, err := io.CopyN(io.Discard, conn, count)
	a.ok, a.late = got == count, errors.Is(err, os.ErrDeadlineExceeded)
	if a.ok {
		conn.(*net.TCPConn).CloseWrite()
		conn.SetDeadline(time.Now().Add(time.Second))
		n, _ := conn.Read(make([]byte, 1))
		a.long = n > 0
	}
	return a
}

// A run is a server that was started under strace, asked by eleven clients, and ended.
type run struct {
	*contract.Program        // strace, whose child is the server
	fault             fault  // or none
	trace             string // what strace has written
	listened, early   bool   // it has listened; it has ended before it was told to
	spins             bool   // it does not sleep without clients
	hangs             bool   // it does not end
	left              int    // processes that are left when it has ended
	answers           []answer
}

// listens reports whether a process listens on port 2000 of an address (proc(5), /proc/net/tcp).
func listens(host string) bool {
	a := netip.MustParseAddr(host).As4()
	text, _ := os.ReadFile("/proc/net/tcp")
	return regexp.MustCompile(fmt.Sprintf(`(?m)^ *\d+: %02X%02X%02X%02X:07D0 \w+:0000 0A `, a[3], a[2], a[1], a[0])).Match(text)
}

// start starts a server on port 2000 of an address of its own. calls are those that strace traces.
func start(t *testing.T, server, calls string, inject ...string) (r *run, host, trace string) {
	t.Helper()
	host = contract.OwnHost()
	trace = filepath.Join(t.TempDir(), "trace")
	args := append([]string{"-f", "-qq", "-o", trace, "-e", "trace=" + calls, "-e", "signal=none"}, inject...)
	if calls != "all" {
		args = append(args, "--seccomp-bpf")
	}
	args = append(args, contract.Path(server), "-q", "-i", host, "-p", "2000", "-timeout", "3s")
	if pooled.MatchString(server) {
		args = append(args, "-n", "3")
	}
	return &run{Program: contract.Start(t, exec.Command("strace", args...))}, host, trace
}

// serve does the same to each server.
func serve(t *testing.T, f fault, calls string, inject ...string) *run {
	t.Helper()
	r, host, trace := start(t, f.server, calls, inject...)
	r.fault = f
	contract.WaitFor(t, "it listens, or has ended", func() bool {
		r.listened = r.listened || listens(host)
		return r.listened || r.HasEnded()
	})
	r.listened = r.listened || r.Stdout.Has("Listening on port")
	children := r.Children()
	addr := host + ":2000"
	for i := range 11 {
		if r.HasEnded() || i > 0 && r.answers[i-1].late {
			break
		}
		r.answers = append(r.answers, ask(addr, []int64{3000, 1_000_000}[i/10]))
	}
	for tries := 0; !r.HasEnded(); tries++ {
		begin, before := time.Now(), r.Demand()
		time.Sleep(100 * time.Millisecond)
		if r.spins = r.Demand()-before > time.Since(begin)/2; !r.spins || tries == 20 {
			break
		}
	}
	// If it has not ended, its PID cannot be that of another process.
	r.early = r.HasEnded() || len(children) == 0 || unix.Kill(children[0], unix.SIGTERM) != nil
	select {
	case <-r.Ended:
	case <-time.After(patience): // -timeout is 3 s
		r.hangs = true
		return r
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) { // the kernel kills what its parent has left
		if r.left = len(r.Tree()); r.left == 0 || time.Now().After(deadline) {
			break
		}
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	r.trace = string(text)
	return r
}

var (
	injected   = regexp.MustCompile(`(?m)\((INJECTED|DELAYED)\)$`)
	unlogged   = regexp.MustCompile(`(?m)write\([123], .*\(INJECTED\)$`)
	goRuntime  = regexp.MustCompile(`(?m)^(fatal error|runtime:|runtime\S*: )`)
	panics     = regexp.MustCompile(`(?m)^(panic|SIG[A-Z]+): `)
	ofChild    = regexp.MustCompile(`child( \d+)? .*PID \d+\)? (exited|was killed)`)
	ofClient   = regexp.MustCompile(`: 127\.0\.0\.1:\d+: `)
	limits     = regexp.MustCompile(`^(EMFILE|ENFILE|ENOMEM|ENOBUFS|EAGAIN)$`)
	loops      = regexp.MustCompile(`^(accept4|pselect6|ppoll|epoll_pwait|io_uring_enter|sendmsg)$`) // what a server calls again and again
	fatal      = regexp.MustCompile(`^(EBADF|ENOTSOCK|EFAULT|EINVAL|EPIPE|signal=.*)$`)              // EPIPE: a child has died
	ofStarting = regexp.MustCompile(`: start child \d+: `)
)

// class says what came of a fault. All that is no good end begins with "FAULT".
func (r *run) class() string {
	hits := len(injected.FindAllString(r.trace, -1))
	if strings.HasPrefix(r.fault.how, "signal=") && r.trace != "" {
		hits = max(hits, 1) // strace does not mark them
	}
	var said, deaths []string // lines of the log
	for line := range strings.Lines(r.Stderr.String()) {
		switch {
		case strings.Contains(line, "waiting for replies"):
		case ofChild.MatchString(line):
			deaths = append(deaths, line)
		default:
			said = append(said, line)
		}
	}
	lost := slices.DeleteFunc(slices.Clone(r.answers), func(a answer) bool { return a.ok })
	is := func(so func(a answer) bool) bool { return slices.ContainsFunc(r.answers, so) }
	silent := 0
	for _, a := range lost {
		if a.port == "" || !strings.Contains(r.Stderr.String(), ":"+a.port) {
			silent++
		}
	}
	lines, status, hidden := r.Stderr.Count("\n"), 0, len(unlogged.FindAllString(r.trace, -1))
	if !r.hangs {
		status = r.Status()
	}
	unnamed := len(slices.DeleteFunc(append(slices.Clone(said), deaths...), func(line string) bool {
		return ofClient.MatchString(line)
	}))
	switch {
	case r.hangs:
		return "FAULT: it does not end"
	case hits == 0:
		return "not hit"
	case panics.MatchString(r.Stderr.String()):
		return "FAULT: it panics"
	case goRuntime.MatchString(r.Stderr.String()) || strings.Contains(r.Stderr.String(), "exited with status 2"):
		return "a call of the Go runtime"
	case r.left > 0:
		return fmt.Sprintf("FAULT: it leaves %d processes", r.left)
	case r.listened && (r.early || len(deaths) > 0) && loops.MatchString(r.fault.call) && !fatal.MatchString(r.fault.errno()):
		return "FAULT: an error that passes ends it, or a child"
	case r.early && r.fault.how == "signal=SIGTERM" && status == 0:
		return "ended by the signal"
	case r.early && status != 1:
		return fmt.Sprintf("FAULT: it ends with status %d", status)
	case r.early && len(deaths) > 2 && strings.HasSuffix(r.Stderr.String(), ": children die as soon as they start\n"):
		return "a pool gives up"
	case r.early && lines != 1 && hidden == 0:
		return fmt.Sprintf("FAULT: it ends with %d lines", lines)
	case r.early && len(r.answers) > 0 && limits.MatchString(r.fault.errno()) && hidden == 0:
		return "FAULT: a limit ends it"
	case r.early:
		return "ended in a line"
	case is(func(a answer) bool { return a.long }):
		return "FAULT: a client gets more than it has asked for"
	case is(func(a answer) bool { return a.late }) && len(ofStarting.FindAllString(r.Stderr.String(), -1)) > 2:
		return "waits, and says for what" // strace makes the call fail in each new child
	case is(func(a answer) bool { return a.late }):
		return "FAULT: a client waits for ever"
	case r.spins:
		return "FAULT: it spins"
	case status == 1 && len(said) > 0 && !ofClient.MatchString(said[len(said)-1]):
		return "ended in a line" // a call that belongs to the end
	case status != 0:
		return fmt.Sprintf("FAULT: status %d", status)
	case len(lost) > hits:
		return fmt.Sprintf("FAULT: %d clients are lost by %d errors", len(lost), hits)
	case silent > unnamed && hidden == 0:
		return "FAULT: a client is lost without a word"
	case len(said) > hits:
		return fmt.Sprintf("FAULT: %d lines about %d errors", len(said), hits)
	case len(lost) > 0:
		return "a client is lost, and the log says so"
	}
	return "all are answered"
}

// callCounts returns how often each call is made without a fault, at most, in one thread.
func callCounts(t *testing.T, server string) map[string]int {
	t.Helper()
	r := serve(t, fault{server: server}, "all")
	for _, a := range r.answers {
		if !a.ok {
			t.Fatalf("without a fault a client is not answered: %s", &r.Stderr)
		}
	}
	each, most := map[string]int{}, map[string]int{}
	for _, match := range regexp.MustCompile(`(?m)^(\d+) +(\w+)\(`).FindAllStringSubmatch(r.trace, -1) {
		each[match[0]]++
		most[match[2]] = max(most[match[2]], each[match[0]])
	}
	return most
}

// TestFaults runs the table, or, without -all, the rows of it that have found something:
//
//	go test -v -timeout 60m ./test/faults -all
func TestFaults(t *testing.T) {
	contract.Needs(t, "strace", "ptrace")
	var lock sync.Mutex
	total := map[string]int{}
	t.Cleanup(func() {
		sum := 0
		for _, class := range slices.Sorted(maps.Keys(total)) {
			t.Logf("%5d  %s", total[class], class)
			sum += total[class]
		}
		t.Logf("%5d  cases", sum)
	})
	for _, server := range servers {
		t.Run(server, func(t *testing.T) {
			t.Parallel()
			if server == "server10" {
				contract.Needs(t, "io_uring")
			}
			if testing.Short() && server != "server03" && server != "server07" {
				return
			}
			for _, f := range faults(server, callCounts(t, server), *whole) {
				t.Run(f.String(), func(t *testing.T) {
					t.Parallel()
					class, r := "", (*run)(nil)
					for range 2 { // a fault has to come twice
						r = serve(t, f, f.call, "-e", "inject="+f.String())
						if class = r.class(); !strings.HasPrefix(class, "FAULT") {
							break
						}
					}
					lock.Lock()
					total[class]++
					lock.Unlock()
					if strings.HasPrefix(class, "FAULT") {
						t.Errorf("%s\n%s", class, contract.Tail(r.Stderr.String()))
					}
				})
			}
		})
	}
}
