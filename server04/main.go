// Server04 is a preforked TCP server whose parent passes descriptors. Only the parent
// accepts. It has a UNIX-domain socket pair, a channel, to each child, and sends a
// connection through it to a child that is free, as a control message (SCM_RIGHTS). A child
// that is free sends a byte in the other direction. While no child is free, the parent does
// not look at the listener, and clients wait in the backlog.
//
// See Stevens, UNIX Network Programming, sections 15.7 and 30.9, and Kerrisk, The Linux
// Programming Interface, section 61.13.3.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
	"csdesign/internal/stats"
)

// writeFD sends a connection's descriptor through a channel, as a control message. Such a
// message cannot be sent without data (unix(7)); here the data are the client's address.
// The sender can close its copy of the descriptor at once.
func writeFD(channel, fd int, peer netip.AddrPort) error {
	data, _ := peer.MarshalBinary() // it never fails
	if err := unix.Sendmsg(channel, data, unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("send a descriptor: %w", err)
	}
	return nil
}

// readFD receives a descriptor. At the end of the channel it returns io.EOF.
func readFD(channel int) (fd int, peer netip.AddrPort, err error) {
	var data, control [64]byte
	// Unlike unix.Recvmsg this makes no garbage, so the child's heap does not grow.
	n, controlSize, _, _, err := syscall.Recvmsg(channel, data[:], control[:], 0)
	for err != nil && sock.Retry(fmt.Errorf("receive a descriptor: %w", err)) {
		n, controlSize, _, _, err = syscall.Recvmsg(channel, data[:], control[:], 0)
	}
	if err != nil {
		return -1, peer, fmt.Errorf("receive a descriptor: %w", err)
	}
	if n == 0 {
		return -1, peer, io.EOF
	}
	_, rights, _, err := unix.ParseOneSocketControlMessage(control[:controlSize])
	if err != nil || len(rights) < 4 {
		// The kernel drops a descriptor for which the process has no room.
		return -1, peer, fmt.Errorf("receive a descriptor: there is none in the message (%v)", err)
	}
	err = peer.UnmarshalBinary(data[:n])
	return int(binary.NativeEndian.Uint32(rights)), peer, err
}

func handle(conn int) error {
	sock.Serve(conn)
	defer sock.Close(conn)
	count, err := echo.ReadRequest(conn)
	if err != nil {
		return err
	}
	echo.LogRequest(count)
	return echo.SendReply(conn, count)
}

// childLoop is all that a child does.
func childLoop(channel int, terminate <-chan os.Signal) error {
	go sock.Finish(terminate)
	for yield := sock.Yielder(); ; yield() { // lets the Go scheduler run now and then
		if _, err := unix.Write(channel, []byte{0}); err != nil {
			return fmt.Errorf("tell the parent that the child is free: %w", err)
		}
		conn, peer, err := readFD(channel)
		if err == io.EOF {
			return nil // the parent is gone
		}
		if err != nil {
			return err
		}
		if err := handle(conn); err != nil {
			log.Printf("%v: %v", peer, err)
		}
	}
}

// A child is what the parent knows of a child.
type child struct {
	channel int  // the parent's end, or -1
	free    bool // the child waits for a connection
}

// hear reads what the child says: that it is free or, by the end of the channel, that it has
// died.
func (c *child) hear() {
	var data [1]byte
	n, err := unix.Read(c.channel, data[:])
	if n == 1 {
		c.free = true
	} else if err != unix.EINTR {
		c.hangUp()
	}
}

func (c *child) hangUp() {
	unix.Close(c.channel)
	c.channel, c.free = -1, false
}

type server struct {
	listener int
	children []child
	counters []atomic.Int64 // of connections passed to each child, and to those that had its place before it
}

func (s *server) createChild(index int) (pid int, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return 0, fmt.Errorf("create a socket pair: %w", err)
	}
	unix.CloseOnExec(pair[0])
	unix.CloseOnExec(pair[1])
	pid, err = reexec.Start(index, pair[1])
	unix.Close(pair[1]) // the child has its own copy
	if err != nil {
		unix.Close(pair[0])
		return 0, err
	}
	fmt.Printf("Starting child with PID: %d\n", pid)
	c := &s.children[index]
	if c.channel >= 0 {
		c.hangUp() // the last child in this place has just died
	}
	c.channel = pair[0]
	return pid, nil
}

// freeChild returns the index of the first child that is free, or -1.
func (s *server) freeChild() int {
	return slices.IndexFunc(s.children, func(c child) bool { return c.free })
}

// passClient passes a connection to a child that is free.
func (s *server) passClient(conn int, peer netip.AddrPort) error {
	defer unix.Close(conn) // the child has its own copy
	for index := s.freeChild(); index >= 0; index = s.freeChild() {
		c := &s.children[index]
		err := writeFD(c.channel, conn, peer)
		switch {
		case err == nil:
			c.free = false
			s.counters[index].Add(1)
			return nil
		case errors.Is(err, unix.EPIPE):
			c.hangUp() // the child has just died: another one gets the connection
		case !sock.Retry(err):
			return err
		}
	}
	log.Printf("%v: no child is left", peer)
	return nil
}

// acceptClients accepts clients, and passes each to a child, as long as a child is free.
func (s *server) acceptClients() error {
	for s.freeChild() >= 0 {
		conn, peer, err := sock.TryAccept(s.listener, sock.Blocking)
		if err == unix.EAGAIN || sock.Retry(err) {
			return nil // no client waits, or there was no descriptor
		}
		if err != nil {
			return err
		}
		if err := s.passClient(conn, peer); err != nil {
			return err
		}
	}
	return nil
}

// wait waits until stop or died or a channel is readable, or the listener if a child is
// free, but not longer than limit.
func (s *server) wait(stop, died int, limit time.Duration) (readable unix.FdSet, err error) {
	readable.Set(stop)
	readable.Set(died)
	for _, c := range s.children {
		if c.channel >= 0 {
			readable.Set(c.channel)
		}
	}
	if s.freeChild() >= 0 {
		readable.Set(s.listener)
	}
	timeval := unix.NsecToTimeval(limit.Nanoseconds())
	if _, err := unix.Select(unix.FD_SETSIZE, &readable, nil, nil, &timeval); err != nil {
		return unix.FdSet{}, fmt.Errorf("select: %w", err)
	}
	return readable, nil
}

// cleanup ends all children.
func (s *server) cleanup(pool *reexec.Pool) error {
	err := sock.Shutdown(s.listener)
	pool.End() // a child that serves finishes its reply
	return err
}

// serve returns nil when it has been told to stop.
func (s *server) serve(pool *reexec.Pool, stop, died int) error {
	for yield := sock.Yielder(); ; yield() { // lets the Go scheduler run now and then
		limit, err := pool.Fill()
		if err != nil {
			return err
		}
		readable, err := s.wait(stop, died, limit)
		if err != nil && !sock.Retry(err) {
			return err
		}
		for index := range s.children {
			if c := &s.children[index]; c.channel >= 0 && readable.IsSet(c.channel) {
				c.hear()
			}
		}
		if readable.IsSet(stop) {
			return nil
		}
		if readable.IsSet(died) {
			var data [64]byte
			unix.Read(died, data[:])
			if err := pool.Reap(); err != nil {
				return err
			}
		}
		if readable.IsSet(s.listener) {
			if err := s.acceptClients(); err != nil {
				return err
			}
		}
	}
}

func serveForever(addr netip.AddrPort, childNum int) error {
	if err := sock.LimitDescriptors(); err != nil {
		return err
	}
	// The listener is non-blocking, because a client may have gone between select and accept.
	listener, port, err := sock.Listen(addr, sock.Nonblocking)
	if err != nil {
		return err
	}
	stop, err := sock.SignalPipe(sock.StopSignal())
	if err != nil {
		return err
	}
	died, err := sock.SignalPipe(reexec.ChildDied())
	if err != nil {
		return err
	}
	// The parent makes a little garbage with every connection, and keeps nothing. Collect it at
	// 400 KB, not at 4 MB.
	debug.SetGCPercent(10)
	fmt.Printf("Listening on port %d ...\n", port)

	children := slices.Repeat([]child{{channel: -1}}, childNum)
	s := &server{listener: listener, children: children, counters: make([]atomic.Int64, childNum)}
	pool := reexec.NewPool(childNum, s.createChild)
	err = s.serve(pool, stop, died)
	return errors.Join(err, s.cleanup(pool), stats.Print("child", s.counters, nil))
}

func main() {
	_, terminate, isChild := reexec.Child()
	addr := option.Server()
	childNum := option.Int("n", "child-num", 10, 1, 1000, "number of children; select watches a descriptor for each")
	option.Parse()
	if isChild {
		sock.Exit(childLoop(reexec.FirstFile, terminate))
	}
	sock.Exit(serveForever(*addr, *childNum))
}
