package sock

import (
	"errors"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// serving has the connections that this process serves with calls that block.
var (
	lock    sync.Mutex
	serving = make(map[int]bool)
	ending  time.Time // when the service was stopped, or zero
)

// Serve notes that this process serves a connection, until [Close] or [Done].
func Serve(conn int) {
	lock.Lock()
	defer lock.Unlock()
	serving[conn] = true
	if !ending.IsZero() {
		stopReading(conn)
	}
}

// Close closes a connection after [Serve].
func Close(conn int) {
	Done(conn) // first: the next connection may get the same descriptor
	unix.Close(conn)
}

// Done notes that a connection is going to be closed.
func Done(conn int) {
	lock.Lock()
	defer lock.Unlock()
	delete(serving, conn)
}

// ErrShutdown says that the listener was shut down, by this process or another one.
var ErrShutdown = errors.New("the listener is shut down")

// Shutdown begins the end of a server. In all processes that have the listener, [Accept] returns
// [ErrShutdown], and new clients are refused. In this process, read(2) returns 0 on a connection
// that has sent no request. Elsewhere than on Linux, shutdown(2) does not work on a listener
// (ENOTCONN), and the port is free when all processes have closed it.
func Shutdown(listener int) error {
	if err := unix.Shutdown(listener, unix.SHUT_RDWR); err != nil && err != unix.ENOTCONN {
		return fmt.Errorf("shut down the listener: %w", err)
	}
	StopServing()
	return nil
}

// StopServing makes read(2) return 0 on connections that have sent no request.
func StopServing() {
	lock.Lock()
	defer lock.Unlock()
	ending = time.Now()
	for conn := range serving {
		stopReading(conn)
	}
}

// stopReading shuts down the reading side of a connection on which no request has come.
func stopReading(conn int) {
	if !hasReceived(conn) {
		unix.Shutdown(conn, unix.SHUT_RD) // it fails when the client has gone
	}
}

// Wait waits until all connections of this process are closed, but not longer than [Timeout] after
// [StopServing].
func Wait() {
	for serves() {
		time.Sleep(time.Millisecond)
	}
}

func serves() bool {
	lock.Lock()
	defer lock.Unlock()
	return len(serving) > 0 && (ending.IsZero() || time.Since(ending) < Timeout)
}

// Finish waits for the signal by which a parent ends this child. Then it finishes the reply under
// way, and ends the process.
func Finish(terminate <-chan os.Signal) {
	<-terminate
	StopServing()
	Wait()
	os.Exit(0)
}

// Exit ends the program. If err is nil or [ErrShutdown], it waits for the replies under way, see
// [Wait], and the status is 0. Otherwise it logs the error at once, and the status is 1.
func Exit(err error) {
	if err != nil && err != ErrShutdown {
		log.Fatal(err)
	}
	Wait()
	os.Exit(0)
}

// FirstWindow is how many bytes of a reply TCP sends at once on a new connection, if the client has
// room for them: ten segments (RFC 6928), each of 536 bytes at least.
const FirstWindow = 10 * 536

// MustLinger reports whether close(2) could cost the client the end of a reply of count bytes.
// If something is unread, close resets the connection. If something is unsent, the kernel
// resets it when the client sends more.
func MustLinger(conn int, count int64) bool {
	return Queued(conn, Unread) > 0 || count > FirstWindow && Queued(conn, Unsent) > 0
}

// Linger makes close(2) safe after a reply of count bytes (lingering close). If necessary, it
// shuts down the server's side, and reads and throws away what the client still sends, until the
// client closes, or has had its reply for a second, or takes nothing of it for as long as
// [Timeout], which is an error. The read has to fail with EAGAIN after a [Tick], as [ReadForTick] does.
func Linger(conn int, count int64, read func(conn int, p []byte) (n int, err error)) error {
	if !MustLinger(conn, count) || unix.Shutdown(conn, unix.SHUT_WR) != nil { // the client has gone
		return nil
	}
	buf := make([]byte, 4096)
	active, unacked := time.Now(), Queued(conn, Unacknowledged)
	for {
		n, err := read(conn, buf)
		if n == 0 && err == nil {
			return nil
		}
		if err != nil && err != unix.EAGAIN && err != unix.EINTR {
			return fmt.Errorf("close: %w", err)
		}
		if now := Queued(conn, Unacknowledged); now != unacked {
			active, unacked = time.Now(), now
		}
		switch idle := time.Since(active); {
		case unacked == 0 && idle >= min(time.Second, Timeout):
			return nil
		case idle >= Timeout:
			return fmt.Errorf("close: the client has not taken %d bytes: none for %v", unacked, Timeout)
		}
	}
}

// ReadForTick is read(2), but fails with EAGAIN when nothing comes for a [Tick].
func ReadForTick(conn int, p []byte) (n int, err error) {
	readable := []unix.PollFd{{Fd: int32(conn), Events: unix.POLLIN}}
	if n, err := unix.Poll(readable, int(Tick().Milliseconds())); n <= 0 {
		if err == nil {
			err = unix.EAGAIN
		}
		return 0, err
	}
	return unix.Read(conn, p)
}
