package reexec

import (
	"math"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// executable is the file that this process runs, as for fork(2), also when another one
// has been built in its place.
const executable = "/proc/self/exe"

var attributes = &syscall.SysProcAttr{Setpgid: unix.Getpgrp() != 0, Pdeathsig: unix.SIGKILL}

// become makes the child die with its parent: exec has undone that if the file of the program
// has capabilities (prctl(2)). It also gives the process the name of its program, which top(1)
// and ss(8) show. exec has named it "exe", after the path.
func become(name string) {
	unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	os.WriteFile("/proc/self/comm", []byte(name), 0)
}

// setTimerSlack sets by how many nanoseconds the kernel may be late with the timers of this
// thread, and of a process that it starts; 0 stands for the default (prctl(2),
// PR_SET_TIMERSLACK).
func setTimerSlack(ns uintptr) { unix.Prctl(unix.PR_SET_TIMERSLACK, ns, 0, 0, 0) }

// closeInherited sees to it that children do not get the descriptors with which the parent was
// started.
func closeInherited() { unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC) }

// namelessFile returns the descriptor of a file in memory.
func namelessFile() (int, error) { return unix.MemfdCreate("csdesign", unix.MFD_CLOEXEC) }
