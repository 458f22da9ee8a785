//go:build linux

package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/sock"
)

// A ring is an io_uring(7): two queues in memory that the program shares with the kernel. The
// program puts calls into the submission queue, and the kernel puts their results into the
// completion queue. Each queue has a head, where entries are taken, and a tail, where they are
// added. Each of them is written by one side only, so there is no lock. But an entry must be
// complete before the other side sees the new tail, and read before it sees the new head. The
// manual asks for a store-release and a load-acquire, and the operations of sync/atomic are
// at least that. What the kernel writes to is here too: a ring is on the heap, and does not move.
type ring struct {
	fd         int
	calls      []call // the submission queue
	results    []result
	callHead   *atomic.Uint32 // the kernel's
	callTail   *atomic.Uint32
	resultHead *atomic.Uint32
	resultTail *atomic.Uint32 // the kernel's
	wait       waitArg
	limit      unix.Timespec
	accepts    [4]acceptCall
	signal     [1]byte            // from the pipe for signals
	buffers    *[bufferNum]buffer // a queue of those that the kernel may use
	provided   uint16             // its tail
	room       [bufferNum][echo.MaxRequest + 1]byte
}

// An acceptCall has what a call of accept returns beside the descriptor.
type acceptCall struct {
	underWay bool
	addr     unix.RawSockaddrInet6
	size     uint32
}

// bufferNum is how many clients the kernel can receive from in one round, a power of 2.
const bufferNum = 256

// A buffer is struct io_uring_buf.
type buffer struct {
	addr uint64
	len  uint32
	id   uint16
	tail uint16 // of the queue, in the first buffer
}

// buffersArg is struct io_uring_buf_reg.
type buffersArg struct {
	addr  uint64
	num   uint32
	group uint16
	_     uint16
	_     [3]uint64
}

// A call is struct io_uring_sqe.
type call struct {
	op    uint8
	how   uint8 // flags for the ring: selectBuffer
	_     uint16
	fd    int32
	addr2 uint64 // of accept: where the size of the address is
	addr  uint64
	len   uint32
	flags uint32 // of the call: SOCK_CLOEXEC, MSG_WAITALL
	data  uint64 // comes back with the result
	group uint16 // of buffers, for selectBuffer
	_     [3]uint16
	_     [2]uint64
}

// A result is struct io_uring_cqe.
type result struct {
	data  uint64
	res   int32 // what the call returned, or -errno
	flags uint32
}

// What io_uring.h calls IORING_OP_ACCEPT and so on.
const (
	opPoll   = 6
	opAccept = 13
	opClose  = 19
	opRead   = 22
	opSend   = 26
	opRecv   = 27

	selectBuffer = 1 << 5 // flag of a call: the kernel chooses the buffer, see provide

	setupSubmitAll = 1 << 7
	setupSingle    = 1 << 12 // one thread uses the ring
	setupDefer     = 1 << 13 // and the kernel works on results only while that thread waits for them
	enterGetEvents = 1
	enterExtArg    = 8
	offsetOfCalls  = 0x10000000

	registerBuffers = 22
)

// params is struct io_uring_params.
type params struct {
	calls, results, flags, cpu, idle, features, wq uint32
	_                                              [3]uint32
	callOffsets                                    struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	resultOffsets struct {
		head, tail, mask, entries, overflow, entry, flags, _ uint32
		_                                                    uint64
	}
}

// waitArg is struct io_uring_getevents_arg.
type waitArg struct {
	_     uint64
	_     [2]uint32
	limit uint64 // the address of a timespec
}

// newRing returns a ring with room for that many calls, a power of 2 (io_uring_setup(2)). The
// thread that calls newRing must be the one that uses the ring.
func newRing(size uint32) (*ring, error) {
	p := &params{flags: setupSubmitAll | setupSingle | setupDefer}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(size), uintptr(unsafe.Pointer(p)), 0)
	if errno != 0 {
		return nil, fmt.Errorf("set up io_uring: %w%s", errno, hints[errno])
	}
	unix.CloseOnExec(int(fd))
	queues := max(int(p.callOffsets.array+4*p.calls), int(p.resultOffsets.entry)+int(p.results)*int(unsafe.Sizeof(result{})))
	mem, err := unix.Mmap(int(fd), 0, queues, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map the queues of io_uring: %w", err)
	}
	entries, err := unix.Mmap(int(fd), offsetOfCalls, int(p.calls)*int(unsafe.Sizeof(call{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map the calls of io_uring: %w", err)
	}
	word := func(offset uint32) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&mem[offset])) }
	for i := range p.calls { // the entries are used in their order
		word(p.callOffsets.array + 4*i).Store(i)
	}
	queue, err := unix.Mmap(-1, 0, bufferNum*int(unsafe.Sizeof(buffer{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("map the queue of buffers: %w", err)
	}
	arg := &buffersArg{addr: uint64(uintptr(unsafe.Pointer(&queue[0]))), num: bufferNum}
	if _, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, fd, registerBuffers, uintptr(unsafe.Pointer(arg)), 1, 0, 0); errno != 0 {
		return nil, fmt.Errorf("register buffers with io_uring: %w%s", errno, hints[errno])
	}
	r := &ring{
		fd:         int(fd),
		calls:      unsafe.Slice((*call)(unsafe.Pointer(&entries[0])), p.calls),
		results:    unsafe.Slice((*result)(unsafe.Pointer(&mem[p.resultOffsets.entry])), p.results),
		callHead:   word(p.callOffsets.head),
		callTail:   word(p.callOffsets.tail),
		resultHead: word(p.resultOffsets.head),
		resultTail: word(p.resultOffsets.tail),
		buffers:    (*[bufferNum]buffer)(unsafe.Pointer(&queue[0])),
	}
	for id := range uint16(bufferNum) {
		r.provide(id)
	}
	return r, nil
}

// hints say what to do about an error.
var hints = map[unix.Errno]string{
	unix.ENOMEM: "; see the limit of locked memory (ulimit -l)",
	unix.EPERM:  "; see the sysctl kernel.io_uring_disabled, and seccomp",
	unix.ENOSYS: "; it needs Linux 6.1",
	unix.EINVAL: "; it needs Linux 6.1",
}

// provide lets the kernel use a buffer for what it receives (io_uring_register(2),
// IORING_REGISTER_PBUF_RING). A client that is idle has no buffer: the kernel takes one when
// something has come. It does so in enter, in this thread (setupDefer), so there is nothing to
// synchronize.
func (r *ring) provide(id uint16) {
	b := &r.buffers[r.provided%bufferNum]
	b.addr, b.len, b.id = uint64(uintptr(unsafe.Pointer(&r.room[id]))), uint32(len(r.room[id])), id
	r.provided++
	r.buffers[0].tail = r.provided
}

// received returns what the kernel has received, and the number of its buffer.
func (r *ring) received(res result) (data []byte, id uint16) {
	id = uint16(res.flags >> 16)
	return r.room[id][:max(res.res, 0)], id
}

// add queues a call. If there is no room, it first submits those that are queued.
func (r *ring) add(c call) error {
	tail := r.callTail.Load()
	if tail-r.callHead.Load() == uint32(len(r.calls)) {
		if err := r.enter(0); err != nil && !sock.Retry(err) {
			return err
		}
		if tail-r.callHead.Load() == uint32(len(r.calls)) {
			return errors.New("io_uring_enter: no call was taken")
		}
	}
	r.calls[tail%uint32(len(r.calls))] = c
	r.callTail.Store(tail + 1)
	return nil
}

// submit submits the calls that are queued, and waits until there is a result, but not longer
// than limit. Both are one system call.
func (r *ring) submit(limit time.Duration) error {
	r.limit = unix.NsecToTimespec(limit.Nanoseconds())
	r.wait.limit = uint64(uintptr(unsafe.Pointer(&r.limit)))
	return r.enter(1)
}

func (r *ring) enter(least uintptr) error {
	tail := r.callTail.Load()
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(tail-r.callHead.Load()), least,
		enterGetEvents|enterExtArg, uintptr(unsafe.Pointer(&r.wait)), unsafe.Sizeof(r.wait))
	// If there are results, they have to be taken before the next call: there may be no room for more
	// (EBUSY).
	if errno != 0 && errno != unix.ETIME && r.resultHead.Load() == r.resultTail.Load() {
		return fmt.Errorf("io_uring_enter: %w", errno)
	}
	return nil
}

// next returns the next result, if there is one.
func (r *ring) next() (result, bool) {
	head := r.resultHead.Load()
	if head == r.resultTail.Load() {
		return result{}, false
	}
	next := r.results[head%uint32(len(r.results))]
	r.resultHead.Store(head + 1)
	return next, true
}
