package contract

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// needs are what a test may need of the machine, beside Go, and how to find out whether it is there. What
// is not here is a program.
var needs = map[string]func() error{
	"root": func() error {
		if os.Getuid() != 0 {
			return errors.New("this is another user")
		}
		return nil
	},
	"namespaces": func() error { return try("unshare", "--net", "--mount", "ip", "link", "set", "lo", "up") },
	"PID namespaces": func() error {
		return try("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "true")
	},
	"ptrace": func() error { return try("strace", "-f", "-o", os.DevNull, "true") },
	"limits on processes": func() error {
		return try("prlimit", "--nproc=100:", "true")
	},
	"io_uring": func() error {
		// Without parameters the call fails, and EFAULT means that it is allowed.
		if _, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); errno != unix.EFAULT {
			return errno
		}
		return nil
	},
}

func try(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %v %s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

var found sync.Map // by need: func() error, which asks once

// Needs skips a test if the machine has not what the test needs: one of the needs above, or a program.
// go run ./test lists what was skipped. With CSDESIGN_ALL in the environment a program that is missing is
// an error, because it can be installed.
func Needs(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		ask, of := needs[name]
		if !of {
			ask = func() error {
				_, err := exec.LookPath(name)
				return err
			}
		}
		once, _ := found.LoadOrStore(name, sync.OnceValue(ask))
		if err := once.(func() error)(); err != nil {
			if !of && os.Getenv("CSDESIGN_ALL") != "" {
				t.Fatalf("needs %s: %v", name, err)
			}
			t.Skipf("needs %s: %v", name, err)
		}
	}
}
