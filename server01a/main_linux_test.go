package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

var connections = flag.Int("connections", 2000, "how many connections TestForkWhileCollecting makes")

// inChild matches what a child runs.
const inChild = `^main\.(fork|handle|call|logRequest|\(\*client\)\.(wait|receive|reply|linger|idle|queued|fill))$|^csdesign/internal/echo\.(Parse|isSpace)$|^syscall\.RawSyscall6?$|^internal/runtime/syscall/linux\.Syscall6$`

// programs returns the machine code of what a child runs, by the flag of go build: with the race
// detector less is inlined.
var programs = sync.OnceValues(func() (code map[string][]byte, err error) {
	dir, err := os.MkdirTemp("", "server01a")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	code, binary := make(map[string][]byte), filepath.Join(dir, "server01a")
	for _, flag := range []string{"-race=false", "-race"} {
		if out, err := exec.Command("go", "build", flag, "-o", binary, ".").CombinedOutput(); err != nil {
			err = fmt.Errorf("go build %s: %w %s", flag, err, out)
			if flag != "-race" {
				return nil, err
			}
			log.Print(err) // it needs a C compiler
			continue
		}
		if code[flag], err = exec.Command("go", "tool", "objdump", "-s", inChild, binary).Output(); err != nil {
			return nil, fmt.Errorf("go tool objdump: %w", err)
		}
	}
	return code, nil
})

// start starts the server in this process, once, whatever -count is, and returns its address.
var start = sync.OnceValue(func() string {
	programs() // now, because the server reaps all children of this process, go build among them
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	sock.Timeout = 30 * time.Second // before the server reads it
	go func() {
		runtime.LockOSThread() // a child dies with the thread that forked it
		log.Fatal(serveForever(netip.MustParseAddrPort(addr)))
	}()
	return addr
})

// A child is forked again and again, while other threads collect garbage, allocate and are
// preempted. A child that needed the Go runtime would hang.
func TestForkWhileCollecting(t *testing.T) {
	addr := start()
	stop := make(chan bool)
	var garbage sync.WaitGroup
	for range 2 {
		garbage.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.GC()
					fmt.Fprint(io.Discard, make([]byte, 1<<16))
				}
			}
		})
	}
	defer garbage.Wait()
	defer close(stop)
	var clients sync.WaitGroup
	for range 10 {
		clients.Go(func() {
			for range *connections / 10 {
				if err := ask(addr); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
}

// What a child calls is nosplit, or it might hang where it looks at its stack. The compiler and
// the linker allow other calls.
func TestChildCallsOnlyNosplit(t *testing.T) {
	allowed := regexp.MustCompile(inChild + `|^runtime\.panicBounds$`)
	programs, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	for flag, code := range programs {
		calls := regexp.MustCompile(`\b(?:CALL|JMP) ([^ ]*[a-zA-Z][^ ]*)\(SB\)`).FindAllStringSubmatch(string(code), -1)
		if len(calls) < 20 {
			t.Fatalf("%d calls: %s", len(calls), code)
		}
		for _, call := range calls {
			if !allowed.MatchString(call[1]) {
				t.Errorf("%s: a child calls %s", flag, call[1])
			}
		}
	}
}

// What a forked child reports is what the other servers say.
func TestErrors(t *testing.T) {
	defer func(before time.Duration) { sock.Timeout = before }(sock.Timeout)
	sock.Timeout = 2 * time.Second
	for want, c := range map[string]*client{
		"no request within 2s":                        {size: -1, count: -1, errno: unix.EAGAIN},
		"read request: connection reset by peer":      {size: -1, count: -1, errno: unix.ECONNRESET},
		"closed without a request":                    {count: -1},
		"send reply: 3 of 9 bytes taken: none for 2s": {size: 1, count: 9, sent: 5, unacked: 2},
		"send reply: 3 of 9 bytes sent: broken pipe":  {size: 1, count: 9, sent: 3, errno: unix.EPIPE},
	} {
		if got := c.err(); fmt.Sprint(got) != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// The bytes of a reply are those of xoshiro256++, whose authors give these for this state.
func TestRandomBytes(t *testing.T) {
	c := &client{random: [4]uint64{1, 2, 3, 4}}
	c.fill(24)
	for i, want := range []uint64{41943041, 58720359, 3588806011781223} {
		if got := binary.LittleEndian.Uint64(chunk[8*i:]); got != want {
			t.Errorf("number %d: %d, want %d", i, got, want)
		}
	}
}

// ask asks for 70,000 bytes, which are two writes.
func ask(addr string) error {
	var conn net.Conn
	err := os.ErrNotExist
	for err != nil { // until the server listens
		conn, err = net.Dial("tcp", addr)
		runtime.Gosched()
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(3 * time.Minute))
	fmt.Fprintln(conn, 70_000)
	n, err := io.Copy(io.Discard, conn)
	if err == nil && n != 70_000 {
		err = fmt.Errorf("%d bytes, want 70000", n)
	}
	return err
}
