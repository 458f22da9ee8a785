package echo

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

func TestParseRequest(t *testing.T) {
	padded := func(n int) string { return strings.Repeat(" ", n-1) + "7" }
	for _, test := range []struct {
		request string
		want    int64 // -1 for a bad request
	}{
		{"0", 0}, {"1", 1}, {"4096\n", 4096}, {"4096\r\n", 4096}, {"\v\f\t 12 \n\n", 12}, {"007", 7},
		{"1073741824", MaxReply}, {padded(MaxRequest), 7},
		{"", -1}, {" \n", -1}, {"abc", -1}, {"12a", -1}, {"-1", -1}, {"+1", -1}, {"1.5", -1}, {"1e3", -1},
		{"0x10", -1}, {"1_000", -1}, {"1 2", -1}, {"1\n2\n", 1}, {"1\x00", -1}, {"\x00", -1}, {"٣", -1},
		{"1073741825", -1}, {"18446744073709551617", -1}, {strings.Repeat("9", MaxRequest), -1},
		{padded(MaxRequest + 1), -1}, {"\u00a01", -1},
	} {
		got, err := ParseRequest([]byte(test.request))
		if bad := test.want < 0; bad != (err != nil) || !bad && got != test.want {
			t.Errorf("ParseRequest(%.40q) = %d, %v; want %d", test.request, got, err, test.want)
		}
	}
}

func TestBadRequestMessage(t *testing.T) {
	for request, want := range map[string]string{
		"a\x00\n":                         `bad request "a\x00\n": want a decimal number of bytes from 0 to 1073741824`,
		strings.Repeat("x", 41):           `bad request "` + strings.Repeat("x", 40) + `"... of 41 bytes or more: want`,
		strings.Repeat("1", MaxRequest+1): `"... of 1025 bytes or more: want`,
	} {
		_, err := ParseRequest([]byte(request))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRequest(%.50q): %v; want %s", request, err, want)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, s := range []string{"0", "4096\n", " 1\r\n", "", "-1", "1 2", "99999999999999999999", "1\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, request []byte) {
		got, err := ParseRequest(request)
		// The standard library, kept to what the protocol allows.
		text := strings.TrimLeft(string(request), space)
		line, _, ended := strings.Cut(text, "\n")
		size := len(request) - len(text) + len(line)
		if ended {
			size++
		}
		want, wantErr := strconv.ParseUint(strings.TrimRight(line, space), 10, 63)
		bad := wantErr != nil || want > MaxReply || size > MaxRequest
		if bad != (err != nil) {
			t.Fatalf("ParseRequest(%q): %v; want bad %v", request, err, bad)
		}
		if !bad && got != int64(want) {
			t.Fatalf("ParseRequest(%q) = %d, want %d", request, got, want)
		}
	})
}

// closed is a descriptor that is not open. What the kernel would tell of a socket is 0 then:
// nothing is unread, unsent or unacknowledged.
const closed = 100_000

// chunk returns the size of the next chunk of a reply, and says that n bytes of it were sent.
func chunk(r *Reply, n int, err error) (size int, sentErr error) {
	size = len(r.Chunk())
	return size, r.Sent(n, err)
}

func TestReply(t *testing.T) {
	r := NewReply(closed, ChunkSize+7)
	for _, test := range []struct {
		n    int
		err  error
		size int   // of the chunk
		left int64 // after it
	}{
		{ChunkSize - 1, nil, ChunkSize, 8}, {-1, unix.EAGAIN, 8, 8}, {-1, unix.EINTR, 8, 8}, {3, nil, 8, 5}, {5, nil, 5, 0},
	} {
		if size, err := chunk(&r, test.n, test.err); size != test.size || r.Left() != test.left || err != nil {
			t.Errorf("%+v: a chunk of %d, left %d, error %v", test, size, r.Left(), err)
		}
	}
}

func TestReplyErrors(t *testing.T) {
	r := NewReply(closed, 10)
	if _, err := chunk(&r, 4, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := chunk(&r, -1, unix.EPIPE); fmt.Sprint(err) != "send reply: 4 of 10 bytes sent: broken pipe" {
		t.Error(err)
	}
	withTimeout(t, 0)
	r = NewReply(closed, 10)
	if _, err := chunk(&r, -1, unix.EAGAIN); fmt.Sprint(err) != "send reply: 0 of 10 bytes taken: none for 0s" {
		t.Error(err)
	}
}

// withTimeout sets sock.Timeout for a test.
func withTimeout(t *testing.T, timeout time.Duration) {
	before := sock.Timeout
	sock.Timeout = timeout
	t.Cleanup(func() { sock.Timeout = before })
}

func TestReadError(t *testing.T) {
	withTimeout(t, 2*time.Second)
	for err, want := range map[error]string{
		unix.EAGAIN:     "no request within 2s",
		unix.ECONNRESET: "read request: connection reset by peer",
	} {
		if got := ReadError(err); got.Error() != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if _, err := ParseRequest(nil); fmt.Sprint(err) != "closed without a request" {
		t.Errorf("no bytes: %v", err)
	}
}

func TestReplyIsRandom(t *testing.T) {
	var replies [2][]byte
	for i := range replies {
		r := NewReply(closed, ChunkSize)
		replies[i] = bytes.Clone(r.Chunk())
		r.Sent(ChunkSize, nil)
		seen := make(map[byte]bool)
		for _, b := range replies[i] {
			seen[b] = true
		}
		if len(seen) < 250 {
			t.Errorf("a reply uses only %d values of a byte", len(seen))
		}
	}
	if bytes.Equal(replies[0], replies[1]) {
		t.Error("two replies are equal")
	}
}

// A fixture is a table with one client.
type fixture struct {
	*Client
	table *Table
}

func newFixture(t *testing.T) *fixture {
	withTimeout(t, time.Hour)
	Quiet = true
	f := &fixture{table: new(Table)}
	f.table.Add(closed, netip.MustParseAddrPort("192.0.2.7:5"))
	f.Client = f.table.Client(closed)
	return f
}

// drain sends replies until there is something else to do, and returns how many bytes that were.
func (f *fixture) drain() (total int) {
	for f.Interest() == WantWrite {
		n := len(f.Chunk())
		f.Sent(n, nil)
		total += n
	}
	return total
}

func (f *fixture) expect(t *testing.T, what string, interest Interest, err string) {
	t.Helper()
	if got := fmt.Sprint(f.err); f.Interest() != interest || got != err && (err == "<nil>" || !strings.Contains(got, err)) {
		t.Errorf("%s: interest %d, error %s; want %d, %s", what, f.Interest(), got, interest, err)
	}
}

func TestClient(t *testing.T) {
	f := newFixture(t)
	f.expect(t, "at first", WantRead, "<nil>")
	f.Received(nil, unix.EAGAIN)
	f.expect(t, "nothing there yet", WantRead, "<nil>")
	f.Received([]byte("0\n"), nil)
	f.expect(t, "no bytes to send", WantRead, "<nil>")
	f.Received([]byte("100000"), nil)
	f.expect(t, "a request", WantWrite, "<nil>")
	f.Chunk()
	f.Sent(-1, unix.EAGAIN)
	f.expect(t, "the socket is full", WantWrite, "<nil>")
	if n := f.drain(); n != 100000 {
		t.Errorf("a reply of %d bytes", n)
	}
	f.expect(t, "sent", WantRead, "<nil>")
	f.Received(nil, nil)
	f.expect(t, "closed by the client", WantNothing, "<nil>")
}

// The client sends many requests at once.
func TestClientPipelined(t *testing.T) {
	f := newFixture(t)
	data := []byte(strings.Repeat("123\n", 1000) + "\r\n4")
	total := 0
	for piece := range slices.Chunk(data, 1000) { // which ends where a request does
		f.Received(piece, nil)
		total += f.drain()
	}
	f.expect(t, "all sent", WantRead, "<nil>")
	if total != 123*1000+4 {
		t.Errorf("%d bytes", total)
	}
}

func TestClientBadRequest(t *testing.T) {
	for _, request := range []string{
		"x", " \n", "5 6\n", strings.Repeat("1", MaxRequest+1), strings.Repeat(" ", MaxRequest) + "1", "7\nx",
	} {
		f := newFixture(t)
		f.Received([]byte(request), nil)
		f.drain()
		f.expect(t, request, WantNothing, "bad request")
	}
}

func TestClientGoneClient(t *testing.T) {
	f := newFixture(t)
	f.Received(nil, nil)
	f.expect(t, "closed", WantNothing, "closed without a request")
	f = newFixture(t)
	f.Received(nil, unix.ECONNRESET)
	f.expect(t, "reset", WantNothing, "read request: connection reset by peer")
	f = newFixture(t)
	f.Received([]byte("100"), nil)
	f.Chunk()
	f.Sent(-1, unix.EPIPE)
	f.expect(t, "reset while sending", WantNothing, "send reply: 0 of 100 bytes sent: broken pipe")
}

func TestClientLateNewline(t *testing.T) {
	f := newFixture(t)
	for range 3 {
		f.Received([]byte("5"), nil)
		f.drain()
		f.Received([]byte(" \r\n"), nil)
		f.expect(t, "after the newline", WantRead, "<nil>")
	}
}

func TestExpire(t *testing.T) {
	f := newFixture(t)
	if ended, wait := f.table.Expire(); len(ended) != 0 || wait <= 0 || wait > 15*time.Minute {
		t.Errorf("at first: %d, %v", ended, wait)
	}
	later := func(d time.Duration) { f.due, f.active = f.due.Add(-d), f.active.Add(-d) }
	later(30 * time.Minute)
	if ended, _ := f.table.Expire(); len(ended) != 0 {
		t.Errorf("after half the timeout: %d", ended)
	}
	later(30 * time.Minute)
	if ended, _ := f.table.Expire(); !slices.Equal(ended, []int{closed}) {
		t.Errorf("after the timeout: %d", ended)
	}
	f.expect(t, "expired", WantNothing, "no request within 1h0m0s")

	// What was written is acknowledged, so it is the server's turn.
	f = newFixture(t)
	f.Received([]byte("100"), nil)
	f.Chunk()
	f.Sent(40, nil)
	later(time.Hour)
	f.table.Expire()
	f.expect(t, "the server is late", WantWrite, "<nil>")
}

// A server that was held up looks first what clients have sent meanwhile.
func TestExpireLate(t *testing.T) {
	f := newFixture(t)
	f.table.Expire()
	f.due, f.active = f.due.Add(-time.Hour), f.active.Add(-time.Hour)
	f.table.next = f.table.next.Add(-time.Hour)
	if ended, wait := f.table.Expire(); len(ended) != 0 || wait != 0 {
		t.Errorf("at once: %d, %v", ended, wait)
	}
	if ended, _ := f.table.Expire(); len(ended) != 1 {
		t.Errorf("then: %d", ended)
	}
}

// Many clients that expire at once do not hold up the others.
func TestExpireFew(t *testing.T) {
	withTimeout(t, time.Hour)
	Quiet = true
	clients := new(Table)
	for fd := range 1000 {
		clients.Add(closed+fd, netip.AddrPort{})
		clients.Client(closed+fd).due, clients.Client(closed+fd).active = time.Time{}, time.Time{}
	}
	total := 0
	for total < 1000 {
		ended, _ := clients.Expire()
		if len(ended) == 0 || len(ended) > 256 {
			t.Fatalf("%d clients at once", len(ended))
		}
		total += len(ended)
		for _, fd := range ended {
			clients.Remove(fd)
		}
	}
}

func TestShutdown(t *testing.T) {
	f := newFixture(t)
	f.Received([]byte("100"), nil)
	f.table.Add(closed+1, netip.AddrPort{})
	f.table.Shutdown()
	if f.table.ListenerInterest() != WantNothing {
		t.Error("clients are accepted after Shutdown")
	}
	ended, _ := f.table.Expire()
	if !slices.Equal(ended, []int{closed + 1}) {
		t.Errorf("ended: %d; want the one without a request", ended)
	}
	f.table.Remove(closed + 1)
	if !f.table.Serving() {
		t.Error("it does not serve the other one")
	}
	f.drain()
	f.expect(t, "after its reply", WantNothing, "<nil>")
	f.table.Remove(closed)
	if f.table.Serving() {
		t.Error("it goes on serving")
	}
}

func TestPauseAccept(t *testing.T) {
	f := newFixture(t)
	f.table.AcceptFailed(unix.EMFILE)
	if _, wait := f.table.Expire(); f.table.ListenerInterest() != WantNothing || wait > time.Second {
		t.Errorf("interest %d, for %v", f.table.ListenerInterest(), wait)
	}
	f.table.Remove(closed)
	if f.table.ListenerInterest() != WantRead {
		t.Error("no client is accepted after one has gone")
	}
}

// Garbage would make the heap of a server grow to the 4 MB at which it is collected.
func TestTableUsesMemoryAgain(t *testing.T) {
	withTimeout(t, time.Hour)
	Quiet = true
	clients := new(Table)
	request := []byte("10\n")
	allocs := testing.AllocsPerRun(100, func() {
		clients.Add(7, netip.AddrPort{})
		c := clients.Client(7)
		c.Received(request, nil)
		c.Sent(len(c.Chunk()), nil)
		c.Received(nil, nil)
		clients.Remove(7)
	})
	if allocs > 0 {
		t.Errorf("%v allocations for a connection", allocs)
	}
}

// The same for a server whose calls block.
func TestBlockingMakesNoGarbage(t *testing.T) {
	Quiet = true
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	request, reply := []byte("10\n"), make([]byte, 10)
	allocs := testing.AllocsPerRun(100, func() {
		unix.Write(pair[0], request)
		count, err := ReadRequest(pair[1])
		if err == nil {
			err = SendReply(pair[1], count)
		}
		if n, _ := unix.Read(pair[0], reply); n != 10 || err != nil {
			t.Fatalf("%d bytes, error %v", n, err)
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for a connection", allocs)
	}
}
