package reexec

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// executable is the very file that this process runs, as for fork(2), even if
// another has since been built in its place.
const executable = "/proc/self/exe"

var attributes = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}

// become gives the process the name of its program: exec took it from the path,
// and top(1) and ss(8) would show "exe". It is for people to read, and an error
// of no consequence.
func become(name string) {
	if p, err := unix.BytePtrFromString(name); err == nil {
		unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(p)), 0, 0, 0)
		runtime.KeepAlive(p)
	}
}
