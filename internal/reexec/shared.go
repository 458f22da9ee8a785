package reexec

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const wordSize = int(unsafe.Sizeof(atomic.Int64{}))

// CreateShared returns the descriptor of a nameless file that holds n zero words,
// for a parent and its children to map with [MapShared]. An anonymous mapping,
// which a forked child inherits, does not outlive an exec; a descriptor does.
func CreateShared(n int) (fd int, err error) {
	fd, err = namelessFile()
	if err == nil {
		err = unix.Ftruncate(fd, int64(n*wordSize))
	}
	if err != nil {
		return -1, fmt.Errorf("create %d words of shared memory: %w", n, err)
	}
	return fd, nil
}

// MapShared maps the n words of a file that CreateShared made. What one process
// stores in them, all that have mapped the file see at once (mmap(2), MAP_SHARED).
func MapShared(fd, n int) ([]atomic.Int64, error) {
	mem, err := unix.Mmap(fd, 0, n*wordSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d words of shared memory: %w", n, err)
	}
	return unsafe.Slice((*atomic.Int64)(unsafe.Pointer(&mem[0])), n), nil
}
