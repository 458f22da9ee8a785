//go:build !linux

package sock

import "golang.org/x/sys/unix"

// Read is read(2).
func Read(fd int, p []byte) (int, error) { return unix.Read(fd, p) }
