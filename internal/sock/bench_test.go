package sock

import (
	"testing"

	"golang.org/x/sys/unix"
)

// The cheapest system call, as the Go scheduler is told of it, and without.
func BenchmarkGetppid(b *testing.B) {
	for b.Loop() {
		unix.Syscall(unix.SYS_GETPPID, 0, 0, 0)
	}
}

func BenchmarkGetppidRaw(b *testing.B) {
	for b.Loop() {
		unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
	}
}
