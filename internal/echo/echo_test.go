package echo

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

// socketPair returns a socket for the code under test and the client's end.
func socketPair(t *testing.T, nonblocking bool) (fd int, client *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[0], nonblocking); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(fds[1], true); err != nil { // for deadlines
		t.Fatal(err)
	}
	client = os.NewFile(uintptr(fds[1]), "client")
	client.SetDeadline(time.Now().Add(20 * time.Second))
	t.Cleanup(func() { unix.Close(fds[0]); client.Close() })
	return fds[0], client
}

func send(t *testing.T, client *os.File, request string) {
	t.Helper()
	if _, err := client.WriteString(request); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, client *os.File, count int) []byte {
	t.Helper()
	reply := make([]byte, count)
	if n, err := io.ReadFull(client, reply); err != nil {
		t.Fatalf("%d of %d bytes: %v", n, count, err)
	}
	return reply
}

const noLimit = time.Hour

func TestBlocking(t *testing.T) {
	fd, client := socketPair(t, false)
	send(t, client, "100000")
	count, err := ReadRequest(fd, noLimit)
	if count != 100000 || err != nil {
		t.Fatalf("ReadRequest = %d, %v", count, err)
	}
	sent := make(chan error)
	go func() {
		err := SendReply(fd, count, noLimit)
		unix.Shutdown(fd, unix.SHUT_WR)
		sent <- err
	}()
	reply, err := io.ReadAll(client)
	if len(reply) != 100000 || err != nil {
		t.Errorf("the reply has %d bytes, error %v", len(reply), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestBlockingTimeouts(t *testing.T) {
	fd, _ := socketPair(t, false)
	const timeout = 20 * time.Millisecond
	if _, err := ReadRequest(fd, timeout); err == nil || err.Error() != "no request within 20ms" {
		t.Errorf("ReadRequest from a silent client: %v", err)
	}
	err := SendReply(fd, MaxReply, timeout)
	if err == nil || !strings.HasSuffix(err.Error(), "of 1073741824 bytes taken: none for 20ms") {
		t.Errorf("SendReply to a client that takes nothing: %v", err)
	}
}

func TestBlockingGoneClient(t *testing.T) {
	fd, client := socketPair(t, false)
	client.Close()
	if _, err := ReadRequest(fd, noLimit); err == nil || !strings.Contains(err.Error(), "closed without a request") {
		t.Errorf("ReadRequest: %v", err)
	}
	if err := SendReply(fd, 1, noLimit); err == nil || err.Error() != "send reply: 0 of 1 bytes sent: broken pipe" {
		t.Errorf("SendReply: %v", err)
	}
}

// What follows the first line is not looked at.
func TestBlockingTakesOneLine(t *testing.T) {
	for request, want := range map[string]int64{"5\n6\n": 5, " \n 7\r\nx": 7, "8\n" + strings.Repeat("9", 2000): 8} {
		fd, client := socketPair(t, false)
		send(t, client, request)
		if count, err := ReadRequest(fd, noLimit); count != want || err != nil {
			t.Errorf("ReadRequest of %.20q = %d, %v; want %d", request, count, err, want)
		}
	}
}

func TestReplyIsRandom(t *testing.T) {
	const size = ChunkSize + 1
	var replies [2][]byte
	for i := range replies {
		fd, client := socketPair(t, false)
		go SendReply(fd, size, noLimit)
		replies[i] = receive(t, client, size)
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

// step takes one step, and fails the test unless it ends as is wanted.
func step(t *testing.T, c *Conn, want Want) {
	t.Helper()
	if got, err := c.Step(); got != want || err != nil {
		t.Fatalf("Step() = %d, %v; want %d", got, err, want)
	}
}

func newConn(fd int, timeout time.Duration) *Conn {
	c := new(Conn)
	c.Begin(fd, netip.AddrPort{}, timeout)
	return c
}

func TestConn(t *testing.T) {
	fd, client := socketPair(t, true)
	c := newConn(fd, noLimit)
	step(t, c, Read) // nothing there yet
	send(t, client, "0\n")
	step(t, c, Read)
	send(t, client, "10")
	step(t, c, Read)
	receive(t, client, 10)

	const size = 4 << 20 // more than the socket takes at once
	send(t, client, strconv.Itoa(size))
	step(t, c, Write)
	for c.left() > 0 { // until it takes no more
		before := c.left()
		step(t, c, Write)
		if c.left() == before {
			break
		}
	}
	if c.left() == 0 {
		t.Fatal("the whole reply was sent, but the client has read nothing")
	}
	done := make(chan []byte)
	go func() { done <- receive(t, client, size) }()
	for c.left() > 0 {
		if want, err := c.Step(); want == Done {
			t.Fatalf("Step() = Done, %v", err)
		}
	}
	<-done
	unix.Shutdown(int(client.Fd()), unix.SHUT_WR)
	step(t, c, Done)
}

func TestConnPipelined(t *testing.T) {
	fd, client := socketPair(t, true)
	c := newConn(fd, noLimit)
	const count = 1000 // 4,000 bytes: some request is cut where a buffer ends
	send(t, client, strings.Repeat("123\n", count)+"\r\n4")
	total := 0
	for total < 123*count+4 {
		if want, err := c.Step(); want == Done {
			t.Fatalf("Step() = Done, %v after %d bytes", err, total)
		}
		n, err := client.Read(make([]byte, 1<<20))
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if total != 123*count+4 {
		t.Errorf("%d bytes, want %d", total, 123*count+4)
	}
	step(t, c, Read)
}

func TestConnBadRequest(t *testing.T) {
	for _, request := range []string{
		"x", " \n", "5 6\n", strings.Repeat("1", MaxRequest+1), strings.Repeat(" ", MaxRequest) + "1", "7\nx",
	} {
		fd, client := socketPair(t, true)
		c := newConn(fd, noLimit)
		send(t, client, request)
		var want Want
		var err error
		for want = Write; want != Done; {
			if want, err = c.Step(); want == Read {
				break
			}
		}
		if want != Done || err == nil || !strings.Contains(err.Error(), "bad request") {
			t.Errorf("%.20q: Step() = %d, %v", request, want, err)
		}
	}
}

func TestConnGoneClient(t *testing.T) {
	fd, client := socketPair(t, true)
	client.Close()
	if want, err := newConn(fd, noLimit).Step(); want != Done || err == nil || !strings.Contains(err.Error(), "closed without a request") {
		t.Errorf("Step() = %d, %v", want, err)
	}

	fd, client = socketPair(t, true)
	send(t, client, "100")
	client.Close()
	if want, err := newConn(fd, noLimit).Step(); want != Done || err == nil || err.Error() != "send reply: 0 of 100 bytes sent: broken pipe" {
		t.Errorf("Step() = %d, %v", want, err)
	}
}

func TestConnCheck(t *testing.T) {
	fd, client := socketPair(t, true)
	check := func(timeout time.Duration) (Want, string) {
		c := newConn(fd, timeout)
		time.Sleep(time.Nanosecond)
		want, err := c.Check()
		return want, fmt.Sprint(err)
	}
	if want, err := check(time.Hour); want != Read || err != "<nil>" {
		t.Errorf("not idle for long: %v, %s", want, err)
	}
	if want, err := check(1); want != Done || err != "no request within 1ns" {
		t.Errorf("idle: %v, %s", want, err)
	}
	c := newConn(fd, time.Hour)
	send(t, client, "1000000000")
	step(t, c, Write)
	if want, err := c.Check(); want != Write || err != nil {
		t.Errorf("busy: %v, %v", want, err)
	}
	c.timeout = 1
	if want, err := c.Check(); want != Done || err == nil || !strings.Contains(err.Error(), "of 1000000000 bytes taken: none for 1ns") {
		t.Errorf("stalled: %v, %v", want, err)
	}
}

// The last of several requests has no newline, and ends where the buffer ends.
func TestConnFullBuffer(t *testing.T) {
	fd, client := socketPair(t, true)
	c := newConn(fd, noLimit)
	send(t, client, strings.Repeat("0\n", MaxRequest/2)+"7") // as many bytes as are received at once
	for c.Step(); c.left() > 0 || len(c.input) > 0; {
		if want, err := c.Step(); want == Done {
			t.Fatalf("Step() = Done, %v", err)
		}
	}
	receive(t, client, 7)
}

func TestConnLateNewline(t *testing.T) {
	fd, client := socketPair(t, true)
	c := newConn(fd, noLimit)
	for range 3 {
		send(t, client, "5")
		step(t, c, Read)
		receive(t, client, 5)
		send(t, client, " \r\n")
		step(t, c, Read)
	}
}

// Garbage would make the heap of a server grow to the 4 MB at which it is collected.
func TestClientsUseMemoryAgain(t *testing.T) {
	fd, client := socketPair(t, true)
	clients := NewClients(noLimit)
	var conns []*Conn
	var inputs []*byte
	for range 2 {
		clients.Add(fd, netip.AddrPort{})
		send(t, client, "10\n")
		if want := clients.Step(fd); want != Read {
			t.Fatalf("Step() = %d", want)
		}
		receive(t, client, 10)
		clients.settle(fd, Done, nil)
		conns, inputs = append(conns, clients.conns[fd]), append(inputs, &clients.conns[fd].input[:1][0])
	}
	if conns[0] != conns[1] || inputs[0] != inputs[1] {
		t.Error("the second client has got memory of its own")
	}
}
