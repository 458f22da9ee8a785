package reexec

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const wordSize = int(unsafe.Sizeof(atomic.Int64{}))

// CreateShared returns n words of shared memory, all 0, and the descriptor of the nameless
// file that they are in. A child that inherits the file maps it with [MapShared]. An
// anonymous mapping, which a forked child inherits, is gone after an exec.
func CreateShared(n int) (file int, words []atomic.Int64, err error) {
	file, err = namelessFile()
	if err == nil {
		err = unix.Ftruncate(file, int64(n*wordSize))
	}
	if err != nil {
		return -1, nil, fmt.Errorf("create %d words of shared memory: %w", n, err)
	}
	words, err = MapShared(file, n)
	return file, words, err
}

// MapShared maps the n words of a file from [CreateShared]. What one process stores in
// them, all processes see that have mapped the file (mmap(2), MAP_SHARED).
func MapShared(file, n int) ([]atomic.Int64, error) {
	mem, err := unix.Mmap(file, 0, n*wordSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d words of shared memory: %w", n, err)
	}
	return unsafe.Slice((*atomic.Int64)(unsafe.Pointer(&mem[0])), n), nil
}
