package reexec

import (
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// The child of these tests is the test itself, started again. The environment says what it
// does.
func TestMain(m *testing.M) {
	index, terminate, ok := Child()
	if !ok {
		os.Exit(m.Run())
	}
	switch os.Getenv("CHILD") {
	case "count", "count at the end":
		if os.Getenv("CHILD") == "count at the end" {
			<-terminate
		}
		words, err := MapShared(FirstFile, 2)
		if err != nil {
			os.Exit(100)
		}
		for range 1000 {
			words[index].Add(1)
		}
		os.Exit(index)
	case "terminate":
		unix.Write(FirstFile, []byte("!"))
		<-terminate
		os.Exit(0)
	case "wait":
		unix.Write(FirstFile, []byte("!"))
		time.Sleep(time.Minute)
	}
}

// start starts a child and waits, if it has a pipe, until it writes to it.
func start(t *testing.T, what string, index int, files ...int) int {
	t.Helper()
	t.Setenv("CHILD", what)
	// The child dies with its thread, and a test does not run on the first one.
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	pid, err := Start(index, files...)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func startAndAwait(t *testing.T, what string) int {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	pid := start(t, what, 7, int(w.Fd()))
	w.Close()
	r.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := r.Read(make([]byte, 1)); n != 1 {
		t.Fatalf("the child did not come up: %v", err)
	}
	return pid
}

func await(t *testing.T, pid int) (status unix.WaitStatus) {
	t.Helper()
	ended, err := unix.Wait4(pid, &status, 0, nil)
	for err == unix.EINTR {
		ended, err = unix.Wait4(pid, &status, 0, nil)
	}
	if ended != pid || err != nil {
		t.Fatalf("wait for %d: %d, %v", pid, ended, err)
	}
	return status
}

// twoWords returns two words of shared memory, and the file they are in.
func twoWords(t *testing.T) (fd int, words []atomic.Int64) {
	t.Helper()
	fd, words, err := CreateShared(2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd, words
}

func TestSharedMemory(t *testing.T) {
	fd, words := twoWords(t)
	for _, index := range []int{0, 1, 1} {
		pid := start(t, "count", index, fd)
		if exit := await(t, pid); exit.ExitStatus() != index {
			t.Errorf("child %d %s", index, Describe(exit))
		}
	}
	if words[0].Load() != 1000 || words[1].Load() != 2000 {
		t.Errorf("counted %d and %d, want 1000 and 2000", words[0].Load(), words[1].Load())
	}
}

func TestExit(t *testing.T) {
	if got := Describe(await(t, start(t, "exit", 0))); got != "exited with status 0" {
		t.Error(got)
	}
	pid := startAndAwait(t, "wait")
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := Describe(await(t, pid)); got != "was killed by SIGKILL" {
		t.Error(got)
	}
}

// poolOf returns a pool that has these children.
func poolOf(pids ...int) *Pool {
	p := NewPool(len(pids), func(index int) (pid int, err error) { return pids[index], nil })
	p.Fill()
	return p
}

func TestEnd(t *testing.T) {
	poolOf(startAndAwait(t, "terminate"), startAndAwait(t, "terminate")).End()
	// This one ignores SIGTERM.
	pid := startAndAwait(t, "wait")
	defer func() { sock.Timeout = sock.NoLimit }()
	sock.Timeout = 10 * time.Millisecond
	poolOf(pid).End()
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("child %d after End: %v", pid, err)
	}
}

// One child is started after others have died young. If it lives, the others follow.
func TestProbe(t *testing.T) {
	created := 0
	p := NewPool(3, func(int) (int, error) {
		created++
		return 1 << 30, nil // not a process
	})
	passes := func(d time.Duration) {
		p.retry = p.retry.Add(-d)
		p.Fill()
	}
	p.probe, p.retry = true, time.Now().Add(time.Second)
	for want, d := range []time.Duration{0, time.Second, time.Second} {
		passes(d)
		if want == 2 {
			want = 3
		}
		if created != want {
			t.Errorf("%d children, want %d", created, want)
		}
	}
}

func TestSignalsAreTheParents(t *testing.T) {
	pid := startAndAwait(t, "terminate")
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGHUP, unix.SIGTERM} {
		if err := unix.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	}
	if got := Describe(await(t, pid)); got != "exited with status 0" {
		t.Errorf("after SIGINT, SIGHUP and SIGTERM the child %s", got)
	}
}
