// Server04 is a preforked TCP server whose parent passes descriptors. The parent
// alone accepts. It has a UNIX-domain socket pair to every child, and sends each
// connection through one of them to a child that is free, as a control message
// (SCM_RIGHTS). A child that is free says so by a byte in the other direction; while
// none is, the parent does not look at the listener, and clients wait in the backlog.
//
// See Stevens, UNIX Network Programming, 15.7 and 30.9, and Kerrisk, The Linux
// Programming Interface, 61.13.3.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
)

// writeFD sends a descriptor through a channel, together with a byte: a control
// message does not travel alone (unix(7)). The sender can close its copy at once.
func writeFD(channel, fd int) error {
	return unix.Sendmsg(channel, []byte{0}, unix.UnixRights(fd), nil, 0)
}

// readFD waits for a descriptor. At the end of the channel it returns io.EOF.
func readFD(channel int) (fd int, err error) {
	var data [1]byte
	control := make([]byte, unix.CmsgSpace(4))
	n, controlSize, _, _, err := unix.Recvmsg(channel, data[:], control, sock.CmsgCloexec)
	if err != nil {
		return -1, fmt.Errorf("receive a descriptor: %w", err)
	}
	if n == 0 {
		return -1, io.EOF
	}
	messages, err := unix.ParseSocketControlMessage(control[:controlSize])
	if err != nil || len(messages) != 1 {
		// The kernel drops a descriptor for which the process has no room.
		return -1, fmt.Errorf("receive a descriptor: none has come (%v)", err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return -1, fmt.Errorf("receive a descriptor: %w", err)
	}
	if sock.CmsgCloexec == 0 {
		unix.CloseOnExec(fds[0])
	}
	return fds[0], nil
}

// answering is held by a child from a request to the end of its reply.
var answering sync.Mutex

func handle(conn int, timeout time.Duration) error {
	defer unix.Close(conn)
	peer, err := sock.Peer(conn)
	if err != nil {
		return err
	}
	count, err := echo.ReadRequest(conn, timeout)
	if err == nil {
		answering.Lock()
		defer answering.Unlock()
		err = echo.SendReply(conn, count, timeout)
	}
	if err != nil {
		return fmt.Errorf("%v: %w", peer, err)
	}
	return nil
}

// childLoop is all that a child does.
func childLoop(channel int, terminate <-chan os.Signal, timeout time.Duration) error {
	go func() {
		<-terminate
		answering.Lock()
		os.Exit(0)
	}()
	// Two measures against the runtime's monitor thread, which takes a fifth of a
	// child's time otherwise. With a second processor, idle, it lets a blocking call
	// alone for 10 ms, not for 20 µs only; and it does not take for a computation
	// what yields in less than 10 ms.
	runtime.GOMAXPROCS(2)
	for served := 0; ; served++ {
		if served%8 == 0 {
			runtime.Gosched()
		}
		if _, err := unix.Write(channel, []byte{0}); err != nil {
			return fmt.Errorf("tell the parent of a free child: %w", err)
		}
		conn, err := readFD(channel)
		if err == io.EOF {
			return nil // there is no parent any more
		}
		if err == nil {
			err = handle(conn, timeout)
		}
		if err != nil {
			log.Print(err)
		}
	}
}

// A child is what the parent knows of one; the PID is 0 while it is to be started.
type child struct {
	pid     int
	started time.Time
	channel int  // the parent's end of the pair, 0 when it is closed
	free    bool // waits for a connection
	count   int  // connections passed to it, and to those that had its place before
}

// hear reads what the child has to say: that it is free or, by the end of the
// channel, that it is no more.
func (c *child) hear() {
	var data [1]byte
	n, err := unix.Read(c.channel, data[:])
	c.free = n == 1 && err == nil
	if !c.free {
		c.hangUp()
	}
}

func (c *child) hangUp() {
	if c.channel != 0 {
		unix.Close(c.channel)
	}
	c.channel, c.free = 0, false
}

func createChild(index int, c *child) error {
	pair, err := sock.Pair()
	if err != nil {
		return err
	}
	pid, err := reexec.Start(index, pair[1])
	unix.Close(pair[1]) // as long as it is open here, the other has no end
	if err != nil {
		unix.Close(pair[0])
		return err
	}
	fmt.Printf("Starting child with PID: %d\n", pid)
	*c = child{pid: pid, started: time.Now(), channel: pair[0], count: c.count}
	return nil
}

type server struct {
	listener int
	children []child
	early    int // deaths in a row within a second of the start
}

// fill starts a child in every place that has none, and reports whether the system
// had the means.
func (s *server) fill() (filled bool, err error) {
	for index := range s.children {
		if s.children[index].pid != 0 {
			continue
		}
		err := createChild(index, &s.children[index])
		if sock.Exhausted(err) {
			log.Print(err)
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

func (s *server) reap() error {
	for pid, status, ok := reexec.Reap(); ok; pid, status, ok = reexec.Reap() {
		index := slices.IndexFunc(s.children, func(c child) bool { return c.pid == pid })
		if index < 0 {
			continue // left to us by the shell whose place we took
		}
		c := &s.children[index]
		log.Printf("child %d (PID %d) %s", index, pid, reexec.Describe(status))
		s.early++
		if time.Since(c.started) >= time.Second {
			s.early = 0
		}
		c.hangUp()
		c.pid = 0
	}
	if s.early > 3*len(s.children)+10 {
		return errors.New("children die as soon as they start")
	}
	return nil
}

// pass passes a connection to the first child that is free, and reports whether there
// was one.
func (s *server) pass(conn int) bool {
	for index := range s.children {
		c := &s.children[index]
		if !c.free {
			continue
		}
		err := writeFD(c.channel, conn)
		if err == unix.EPIPE || err == unix.ECONNRESET {
			c.hangUp() // it has just died
			continue
		}
		if err != nil {
			log.Printf("pass a connection to child %d: %v", index, err)
		} else {
			c.free = false
			c.count++
		}
		unix.Close(conn) // the child has its own copy
		return true
	}
	return false
}

func (s *server) anyFree() bool {
	return slices.ContainsFunc(s.children, func(c child) bool { return c.free })
}

// wait returns the set of these descriptors, and of the children's channels, that
// are readable. It waits for one for at most limit, nil for ever.
func (s *server) wait(limit *unix.Timeval, fds ...int) (readable unix.FdSet, err error) {
	for _, c := range s.children {
		if c.channel != 0 {
			fds = append(fds, c.channel)
		}
	}
	for _, fd := range fds {
		readable.Set(fd)
	}
	_, err = unix.Select(slices.Max(fds)+1, &readable, nil, nil, limit)
	if err == unix.EINTR {
		return unix.FdSet{}, nil
	}
	if err != nil {
		return unix.FdSet{}, fmt.Errorf("select: %w", err)
	}
	return readable, nil
}

// cleanup ends all children; a child finishes the reply that it has under way.
func (s *server) cleanup(timeout time.Duration) error {
	var pids []int
	for _, c := range s.children {
		if c.pid != 0 {
			pids = append(pids, c.pid)
		}
	}
	return errors.Join(unix.Close(s.listener), reexec.End(pids, timeout))
}

func (s *server) printStats() {
	total, fewest, most := 0, s.children[0].count, 0
	fmt.Println()
	for index, c := range s.children {
		fmt.Printf("child %-2d: %d times\n", index, c.count)
		total, fewest, most = total+c.count, min(fewest, c.count), max(most, c.count)
	}
	mean := float64(total) / float64(len(s.children))
	fmt.Printf("\n%d connections; per child: fewest %d, mean %.1f, most %d\n", total, fewest, mean, most)
}

// serve returns nil when it is time to stop.
func (s *server) serve(stop, died int) error {
	conn := -1          // accepted, and not passed yet
	var retry time.Time // not to fill the pool again before
	for {
		var limit *unix.Timeval
		if time.Now().After(retry) {
			filled, err := s.fill()
			if err != nil {
				return err
			}
			if !filled {
				retry = time.Now().Add(time.Second)
			}
		}
		if wait := time.Until(retry); wait > 0 {
			tv := unix.NsecToTimeval(wait.Nanoseconds())
			limit = &tv
		}
		if conn >= 0 && s.pass(conn) {
			conn = -1
		}
		fds := []int{stop, died}
		if conn < 0 && s.anyFree() {
			fds = append(fds, s.listener)
		}
		readable, err := s.wait(limit, fds...)
		if err != nil {
			return err
		}
		for index := range s.children {
			if c := &s.children[index]; c.channel != 0 && readable.IsSet(c.channel) {
				c.hear()
			}
		}
		if readable.IsSet(stop) {
			return nil
		}
		if readable.IsSet(died) {
			var data [64]byte
			unix.Read(died, data[:])
			if err := s.reap(); err != nil {
				return err
			}
		}
		for readable.IsSet(s.listener) && conn < 0 && s.anyFree() {
			conn, _, err = sock.TryAccept(s.listener, false)
			if errors.Is(err, unix.EAGAIN) {
				break // no more
			}
			if sock.Exhausted(err) {
				log.Print(err)
				time.Sleep(time.Second) // meanwhile clients wait in the backlog
				break
			}
			if err != nil {
				return err
			}
			if s.pass(conn) {
				conn = -1
			}
		}
	}
}

func serveForever(addr netip.AddrPort, childNum int, timeout time.Duration) error {
	if err := sock.LimitDescriptors(); err != nil {
		return err
	}
	listener, bound, err := sock.Listen(addr)
	if err != nil {
		return err
	}
	// The client may be gone again between select and accept, which must not wait then.
	if err := unix.SetNonblock(listener, true); err != nil {
		return fmt.Errorf("make the listener non-blocking: %w", err)
	}
	stop, err := sock.SignalPipe(unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	if err != nil {
		return err
	}
	died, err := sock.SignalPipe(unix.SIGCHLD)
	if err != nil {
		return err
	}
	fmt.Printf("Listening on port %d ...\n", bound.Port())

	s := &server{listener: listener, children: make([]child, childNum)}
	err = s.serve(stop, died)
	err = errors.Join(err, s.cleanup(timeout))
	s.printStats()
	return err
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("server04: ")
	signal.Ignore(unix.SIGPIPE)
	_, terminate, isChild := reexec.Child()
	host := option.Addr("i", "host", "0.0.0.0", "address to listen on: IPv4, IPv6 or localhost")
	port := option.Int("p", "port", 2000, 0, 65535, "port to listen on, 0 for any that is free")
	childNum := option.Int("n", "child-num", 10, 1, 1000, "number of children, a descriptor of select for each")
	timeout := option.Duration("timeout", 30*time.Second, "how long a client may stay silent, or take nothing of its reply, 0 for ever")
	option.Parse()
	var err error
	if isChild {
		err = childLoop(reexec.FirstFile, terminate, *timeout)
	} else {
		err = serveForever(netip.AddrPortFrom(*host, uint16(*port)), *childNum, *timeout)
	}
	if err != nil {
		log.Fatal(err)
	}
}
