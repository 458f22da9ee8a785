package sock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read is read(2) for a process that has nothing else to do while it waits. It
// does not tell the Go scheduler, whose monitor thread would wake up again and
// again to look after a call that blocks, at the cost of as many context switches.
// No other goroutine can count on running meanwhile.
func Read(fd int, p []byte) (int, error) {
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if errno != 0 {
		return -1, errno
	}
	return int(n), nil
}
