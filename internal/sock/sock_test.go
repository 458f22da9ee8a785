package sock

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func listenOn(t *testing.T, host string) (int, netip.AddrPort) {
	t.Helper()
	listener, bound, err := Listen(netip.AddrPortFrom(netip.MustParseAddr(host), 0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(listener) })
	return listener, bound
}

func TestConnectAndAccept(t *testing.T) {
	for _, test := range []struct{ listen, connect string }{
		{"127.0.0.1", "127.0.0.1"}, {"::1", "::1"}, {"0.0.0.0", "127.0.0.1"}, {"::", "127.0.0.1"},
	} {
		listener, bound := listenOn(t, test.listen)
		if bound.Port() == 0 {
			t.Fatalf("listening on %v", bound)
		}
		client, err := Connect(netip.AddrPortFrom(netip.MustParseAddr(test.connect), bound.Port()))
		if err != nil {
			t.Fatal(err)
		}
		conn, peer, err := Accept(listener)
		if err != nil {
			t.Fatal(err)
		}
		if peer.Addr().String() != test.connect {
			t.Errorf("a client from %s has the address %v", test.connect, peer)
		}
		if again, err := Peer(conn); again != peer || err != nil {
			t.Errorf("Peer = %v, %v; Accept said %v", again, err, peer)
		}
		for _, fd := range []int{listener, client, conn} {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("a child would inherit descriptor %d (%v)", fd, err)
			}
		}
		if _, err := unix.Write(conn, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if n, err := Read(client, buf); string(buf[:max(n, 0)]) != "hello" || err != nil {
			t.Errorf("Read = %d, %v", n, err)
		}
		unix.Close(conn)
		unix.Close(client)
	}
}

func TestErrors(t *testing.T) {
	_, bound := listenOn(t, "127.0.0.1")
	if _, _, err := Listen(bound); !errors.Is(err, unix.EADDRINUSE) || err.Error() != "listen "+bound.String()+": address already in use" {
		t.Errorf("listen on a port in use: %v", err)
	}
	foreign := netip.MustParseAddrPort("192.0.2.1:1")
	if _, _, err := Listen(foreign); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("listen on somebody else's address: %v", err)
	}
	zone := netip.MustParseAddrPort("[fe80::1%nowhere]:1")
	if _, err := Connect(zone); err == nil || !strings.Contains(err.Error(), `zone "nowhere"`) {
		t.Errorf("connect to an unknown zone: %v", err)
	}

	closed, bound := listenOn(t, "127.0.0.1")
	if err := Shutdown(closed); err != nil {
		t.Fatal(err)
	}
	unix.Close(closed)
	if _, err := Connect(bound); !errors.Is(err, unix.ECONNREFUSED) || err.Error() != "connect "+bound.String()+": connection refused" {
		t.Errorf("connect to nobody: %v", err)
	}
}

func TestTryAcceptWithoutClient(t *testing.T) {
	listener, _ := listenOn(t, "127.0.0.1")
	if err := unix.SetNonblock(listener, true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := TryAccept(listener, true); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("TryAccept without a client: %v", err)
	}
}

func TestExhausted(t *testing.T) {
	for err, want := range map[error]bool{
		nil: false, errors.New("x"): false, unix.EINVAL: false, unix.EMFILE: true, unix.ENFILE: true, unix.EAGAIN: true,
	} {
		if got := Exhausted(errors.Join(err)); got != want {
			t.Errorf("Exhausted(%v) = %v", err, got)
		}
	}
}

func TestSignalPipe(t *testing.T) {
	fd, err := SignalPipe(unix.SIGHUP, unix.SIGUSR1)
	if err != nil {
		t.Fatal(err)
	}
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGUSR1} {
		if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
			t.Fatalf("before %v: poll = %d, %v", sig, n, err)
		}
		if err := unix.Kill(unix.Getpid(), sig); err != nil {
			t.Fatal(err)
		}
		n, err := 0, error(unix.EINTR)
		for err == unix.EINTR {
			n, err = unix.Poll(fds, 20_000)
		}
		if n != 1 || err != nil {
			t.Fatalf("after %v: poll = %d, %v", sig, n, err)
		}
		var buf [10]byte
		if n, err := unix.Read(fd, buf[:]); n != 1 || err != nil {
			t.Fatalf("after %v: read = %d, %v", sig, n, err)
		}
	}
}
