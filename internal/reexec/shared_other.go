//go:build !linux

package reexec

import (
	"os"

	"golang.org/x/sys/unix"
)

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
