package reexec

import "golang.org/x/sys/unix"

func namelessFile() (int, error) {
	return unix.MemfdCreate("csdesign", unix.MFD_CLOEXEC)
}
