//go:build linux

// Server01a is server01 with the fork(2) of the original: a child is a copy of the parent, and
// no program is executed. A Go program can do that, if the child stays away from the Go
// runtime. The child has one thread, which called fork. The threads that run goroutines and
// collect garbage are gone, and one of them may have held a lock. So the child must not
// allocate, lock, log or start a goroutine, and its stack must not grow. It does everything in
// handle, with raw system calls.
//
// See Stevens, UNIX Network Programming, sections 4.7 and 4.8, and Kerrisk, The Linux
// Programming Interface, sections 24.2 and 60.3.
package main

import (
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
)

// maxChildren limits what many clients can cost. Further clients wait in the backlog.
const maxChildren = 512

// failed is the exit status of a child that could not serve its client.
const failed = 3

type child struct {
	slot int // which of the clients it serves
	peer netip.AddrPort
}

// children has the children that run, by PID. The lock is held while a child is started, so a
// child cannot be reaped before it is here.
var (
	lock     sync.Mutex
	children = make(map[int]child)
	running  sync.WaitGroup
	ending   bool                          // no child is started any more
	slots    = make(chan int, maxChildren) // those that are free
	clients  *[maxChildren]client          // in memory that parent and children share
	parent   = uintptr(os.Getpid())
)

func reapChildren() {
	lock.Lock()
	defer lock.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid == 0 {
			return // there is no child (ECHILD), or none that has ended
		}
		c, ours := children[pid]
		if !ours {
			continue // a child of the shell that became this program by exec
		}
		if clients[c.slot].logErr != 0 {
			echo.LogFailed(clients[c.slot].logErr)
		}
		if status.ExitStatus() == failed {
			log.Printf("%v: %v", c.peer, clients[c.slot].err())
		} else if status != 0 && status.Signal() != unix.SIGTERM {
			log.Printf("child with PID %d %s", pid, reexec.Describe(status))
		}
		delete(children, pid)
		running.Done()
		slots <- c.slot
	}
}

// What system calls take, for a child that cannot allocate it.
var (
	allSignals    = ^uint64(0)
	parentSignals uint64
	defaultAction [4]uint64 // SIG_DFL
)

// fork returns the PID of the child, in which it does not return. While signals are blocked,
// the Go runtime cannot take the processor away from this goroutine. In the child they stay
// blocked, so that no handler of the runtime is called.
//
//go:nosplit
//go:norace
func fork(listener int, c *client) (pid uintptr, errno unix.Errno) {
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&allSignals)), uintptr(unsafe.Pointer(&parentSignals)), 8, 0, 0)
	pid, _, errno = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if pid == 0 && errno == 0 {
		handle(listener, c)
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&parentSignals)), 0, 8, 0, 0)
	return pid, errno
}

// handle is all that a child does. SIGTERM, by which the parent tells a child to end, kills it
// while it waits for a request (ppoll(2), in receive). At all other times SIGTERM is blocked.
//
//go:nosplit
//go:norace
func handle(listener int, c *client) {
	syscall.RawSyscall(unix.SYS_CLOSE, uintptr(listener), 0, 0)
	syscall.RawSyscall(unix.SYS_PRCTL, unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0)
	syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGTERM), uintptr(unsafe.Pointer(&defaultAction)), 0, 8, 0, 0)
	status := uintptr(failed)
	ppid, _, _ := syscall.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) // another one, if the parent died before prctl
	if ppid == parent && c.receive() && c.reply() && c.linger() {
		status = 0
	}
	syscall.RawSyscall(unix.SYS_EXIT_GROUP, status, 0, 0)
}

func createChild(listener, conn int, c child) error {
	lock.Lock()
	defer lock.Unlock()
	if ending {
		return nil
	}
	clients[c.slot].start(conn)
	pid, errno := fork(listener, &clients[c.slot])
	if errno != 0 {
		return fmt.Errorf("fork: %w", errno)
	}
	children[int(pid)] = c
	running.Add(1)
	return nil
}

// cleanup ends all children and the program when the signal comes.
func cleanup(listener int, stop <-chan os.Signal) {
	<-stop
	if err := sock.Shutdown(listener); err != nil {
		log.Fatal(err)
	}
	lock.Lock()
	ending = true
	for pid := range children {
		if err := unix.Kill(pid, unix.SIGTERM); err != nil { // a child that serves finishes its reply
			log.Printf("end the child with PID %d: %v", pid, err)
		}
	}
	lock.Unlock()
	running.Wait()
	os.Exit(0)
}

func serveForever(addr netip.AddrPort) error {
	mem, err := unix.Mmap(-1, 0, int(unsafe.Sizeof(*clients)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
	if err != nil {
		return fmt.Errorf("map shared memory: %w", err)
	}
	clients = (*[maxChildren]client)(unsafe.Pointer(&mem[0]))
	for slot := range maxChildren {
		slots <- slot
	}
	listener, port, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	tick = int64(sock.Tick())
	died := reexec.ChildDied()
	go func() {
		for range died {
			reapChildren()
		}
	}()
	go cleanup(listener, sock.StopSignal())
	fmt.Printf("Listening on port %d ...\n", port)

	for {
		slot := <-slots
		conn, peer, err := sock.Accept(listener)
		if errors.Is(err, sock.ErrShutdown) {
			select {} // cleanup ends the program
		}
		if err != nil {
			return err
		}
		err = createChild(listener, conn, child{slot, peer})
		for sock.LimitReached(err) {
			sock.Pause(err)
			err = createChild(listener, conn, child{slot, peer})
		}
		if err != nil {
			return err
		}
		// The child has its own copy. The client sees the end of the connection when all
		// copies are closed.
		unix.Close(conn)
	}
}

func main() {
	// The kernel kills a child when the thread that forked it ends (PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	// After a fork the kernel copies each page to which the parent writes. The fewer threads run
	// goroutines, the fewer pages these are.
	runtime.GOMAXPROCS(1)
	addr := option.Server()
	option.Parse()
	sock.Exit(serveForever(*addr))
}
