package sock

import (
	"errors"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func listenOn(t *testing.T, host string, nonblocking bool) (int, netip.AddrPort) {
	t.Helper()
	addr := netip.MustParseAddr(host)
	listener, port, err := Listen(netip.AddrPortFrom(addr, 0), nonblocking)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(listener) })
	return listener, netip.AddrPortFrom(addr, port)
}

func TestConnectAndAccept(t *testing.T) {
	for _, test := range []struct{ listen, connect string }{
		{"127.0.0.1", "127.0.0.1"}, {"::1", "::1"}, {"0.0.0.0", "127.0.0.1"}, {"::", "127.0.0.1"},
	} {
		listener, bound := listenOn(t, test.listen, Blocking)
		if bound.Port() == 0 {
			t.Fatalf("listening on %v", bound)
		}
		to, family, err := Sockaddr(netip.AddrPortFrom(netip.MustParseAddr(test.connect), bound.Port()))
		if err != nil {
			t.Fatal(err)
		}
		client, err := unix.Socket(family, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(client, to); err != nil {
			t.Fatal(err)
		}
		conn, peer, err := Accept(listener)
		if err != nil {
			t.Fatal(err)
		}
		if peer.Addr().String() != test.connect {
			t.Errorf("a client from %s has the address %v", test.connect, peer)
		}
		for _, fd := range []int{listener, conn} {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("a child would inherit descriptor %d (%v)", fd, err)
			}
		}
		if _, err := unix.Write(conn, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		if n, err := unix.Read(client, buf); string(buf[:max(n, 0)]) != "hello" || err != nil {
			t.Errorf("read = %d, %v", n, err)
		}
		unix.Close(conn)
		unix.Close(client)
	}
}

func TestErrors(t *testing.T) {
	_, bound := listenOn(t, "127.0.0.1", Blocking)
	if _, _, err := Listen(bound, Blocking); !errors.Is(err, unix.EADDRINUSE) || err.Error() != "listen "+bound.String()+": address already in use" {
		t.Errorf("listen on a port in use: %v", err)
	}
	foreign := netip.MustParseAddrPort("192.0.2.1:1")
	if _, _, err := Listen(foreign, Blocking); !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Errorf("listen on an address of another host: %v", err)
	}
	closed, _ := listenOn(t, "127.0.0.1", Blocking)
	if err := Shutdown(closed); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Accept(closed); err != ErrShutdown {
		t.Errorf("accept after Shutdown: %v", err)
	}
}

func TestTryAcceptWithoutClient(t *testing.T) {
	listener, _ := listenOn(t, "127.0.0.1", Nonblocking)
	if _, _, err := TryAccept(listener, Nonblocking); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("TryAccept without a client: %v", err)
	}
}

func TestAcceptMakesNoGarbage(t *testing.T) {
	listener, bound := listenOn(t, "127.0.0.1", Blocking)
	to, _, _ := Sockaddr(bound)
	var clients []int
	for range 51 { // one more, as AllocsPerRun calls the function once to warm up
		client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(client, to); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
	}
	allocs := testing.AllocsPerRun(50, func() {
		conn, _, err := Accept(listener)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(conn)
	})
	for _, client := range clients {
		unix.Close(client)
	}
	if allocs > 0 && runtime.GOOS == "linux" {
		t.Errorf("%v allocations for a connection", allocs)
	}
}

func TestLimitReached(t *testing.T) {
	if allocs := testing.AllocsPerRun(10, func() { LimitReached(nil) }); allocs > 0 {
		t.Errorf("%v allocations for no error", allocs)
	}
	for err, want := range map[error]bool{
		nil: false, errors.New("x"): false, unix.EINVAL: false, unix.EMFILE: true, unix.ENFILE: true, unix.EAGAIN: true,
	} {
		if got := LimitReached(errors.Join(err)); got != want {
			t.Errorf("LimitReached(%v) = %v", err, got)
		}
	}
}

func TestSignalPipe(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP, unix.SIGUSR1)
	defer signal.Stop(signals)
	fd, err := SignalPipe(signals)
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
