//go:build !linux

package reexec

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var executable, _ = os.Executable() // if it fails, Start says that "" does not exist

var attributes *syscall.SysProcAttr

// dieWithParent ends this process when its parent has ended.
func dieWithParent(string) {
	parent := os.Getppid()
	go func() {
		for os.Getppid() == parent {
			time.Sleep(500 * time.Millisecond)
		}
		os.Exit(1)
	}()
}

func setTimerSlack(ns uintptr) {} // there is none

// closeInherited keeps the descriptors with which this program was started from its children.
func closeInherited() error {
	for fd := 3; fd < 1024; fd++ {
		unix.CloseOnExec(fd)
	}
	return nil
}

// namelessFile returns the descriptor of a temporary file that has no name any more.
func namelessFile() (int, error) {
	file, err := os.CreateTemp("", "csdesign")
	if err != nil {
		return -1, err
	}
	defer file.Close()
	if err := os.Remove(file.Name()); err != nil {
		return -1, err
	}
	return unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
}
