package reexec

import (
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// executable is the file that this process runs, even if it has been rebuilt since.
const executable = "/proc/self/exe"

var attributes = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}

// dieWithParent makes the kernel kill this process when its parent has ended. Start has asked
// for that, but exec has undone it if the program's file has capabilities (prctl(2)). It also
// gives the process the name of its program, which top(1) and ss(8) show; exec has named it
// "exe", after the path.
func dieWithParent(name string) {
	unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	os.WriteFile("/proc/self/comm", []byte(name), 0)
}

// setTimerSlack sets by how many nanoseconds the kernel may be late with the timers of this
// thread, and of a process that it starts; 0 stands for the default (prctl(2),
// PR_SET_TIMERSLACK).
func setTimerSlack(ns uintptr) { unix.Prctl(unix.PR_SET_TIMERSLACK, ns, 0, 0, 0) }

// closeInherited keeps the descriptors with which this program was started from its children.
func closeInherited() error {
	files, err := os.ReadDir("/proc/self/fd")
	for _, file := range files {
		if fd, err := strconv.Atoi(file.Name()); err == nil && fd > unix.Stderr {
			unix.CloseOnExec(fd)
		}
	}
	return err
}

// namelessFile returns the descriptor of a file in memory.
func namelessFile() (int, error) { return unix.MemfdCreate("csdesign", unix.MFD_CLOEXEC) }
