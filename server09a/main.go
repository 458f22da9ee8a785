//go:build linux

// Server09a is a server with an event loop in each thread, as memcached, Netty, and most of
// today's frameworks have it. The main thread accepts all connections, and hands each to the next
// loop. A loop is a server07 without a listener. It is server09 with threads: the kernel spreads
// nothing by a hash, so the loops have equal numbers of connections, but each connection goes
// through the main thread, and a crash ends all.
//
// See Kerrisk, The Linux Programming Interface, section 63.4, and eventfd(2).
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
	"csdesign/internal/stats"
)

// A client is a connection that was accepted.
type client struct {
	conn int
	peer netip.AddrPort
}

// A loop serves many clients in one thread.
type loop struct {
	clients   echo.Table
	epoll     int                  // the descriptor of the list
	interests []echo.Interest      // by descriptor: what the list says of it
	events    [256]unix.EpollEvent // room for what epoll_wait returns
	queue     chan client          // from the main thread, which closes it at the end
	wake      int                  // an eventfd, readable when something is in the queue
	counter   *atomic.Int64        // of connections
	buf       [echo.MaxRequest + 1]byte
}

func newLoop(counter *atomic.Int64) (l *loop, err error) {
	l = &loop{queue: make(chan client, 64), counter: counter}
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("create the epoll: %w", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("create the eventfd: %w", err)
	}
	return l, l.watch(l.wake, echo.WantRead)
}

// watch sets what a descriptor waits for.
func (l *loop) watch(fd int, interest echo.Interest) error {
	for len(l.interests) <= fd {
		l.interests = append(l.interests, echo.WantNothing)
	}
	before := l.interests[fd]
	if interest == before {
		return nil // as in most cases, and without a system call
	}
	op := unix.EPOLL_CTL_MOD
	switch echo.WantNothing {
	case before:
		op = unix.EPOLL_CTL_ADD
	case interest:
		op = unix.EPOLL_CTL_DEL
	}
	event := unix.EpollEvent{Fd: int32(fd), Events: unix.EPOLLIN}
	if interest == echo.WantWrite {
		event.Events = unix.EPOLLOUT
	}
	if err := unix.EpollCtl(l.epoll, op, fd, &event); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	l.interests[fd] = interest
	return nil
}

// wait waits until descriptors are ready, but not longer than limit.
func (l *loop) wait(limit time.Duration) (ready []unix.EpollEvent, err error) {
	n, err := unix.EpollWait(l.epoll, l.events[:], int(limit.Milliseconds())+1)
	if err != nil {
		return nil, fmt.Errorf("epoll_wait: %w", err)
	}
	return l.events[:n], nil
}

// awake makes epoll_wait of the loop return. The main thread calls it.
func (l *loop) awake() error {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	if _, err := unix.Write(l.wake, one[:]); err != nil {
		return fmt.Errorf("wake a loop: %w", err)
	}
	return nil
}

// takeClients takes the clients that the main thread has put into the queue.
func (l *loop) takeClients() error {
	if _, err := unix.Read(l.wake, l.buf[:8]); err != nil { // it is 0 again
		return fmt.Errorf("read the eventfd: %w", err)
	}
	for {
		select {
		case c, open := <-l.queue:
			if !open { // finish the replies under way
				l.clients.Shutdown()
				return l.watch(l.wake, echo.WantNothing)
			}
			incCounter(l.counter)
			l.clients.Add(c.conn, c.peer)
			l.update(c.conn)
		default:
			return nil
		}
	}
}

// handle makes the call for which a client's socket is ready: it receives a request, or sends
// up to 128 KiB of a reply. The rest of a reply has to wait until the other clients had their
// turn.
func (l *loop) handle(fd int) {
	client := l.clients.Client(fd)
	if client.Interest() == echo.WantRead {
		n, err := unix.Read(fd, l.buf[:])
		client.Received(l.buf[:max(n, 0)], err)
	}
	if client.Interest() == echo.WantWrite { // after a request, too: most replies fit into the socket at once
		n, err := unix.Write(fd, client.Chunk())
		client.Sent(n, err)
	}
	l.update(fd)
}

// update sets what a client waits for. If it has ended, update closes its connection.
func (l *loop) update(fd int) {
	client := l.clients.Client(fd)
	if client.Interest() != echo.WantNothing {
		err := l.watch(fd, client.Interest())
		if err == nil {
			return
		}
		client.End(err) // for example, the user has too many watches (max_user_watches)
	}
	l.clients.Remove(fd)
	unix.Close(fd) // it leaves the list of the epoll, as no other descriptor refers to the socket
	l.interests[fd] = echo.WantNothing
}

// threadLoop is all that a thread does.
func (l *loop) threadLoop() error {
	runtime.LockOSThread()
	for yield := sock.Yielder(); l.clients.Serving(); yield() { // lets the Go scheduler run now and then
		expired, limit := l.clients.Expire()
		for _, fd := range expired {
			l.update(fd)
		}
		ready, err := l.wait(limit)
		if err != nil && !sock.Retry(err) {
			return err
		}
		for _, event := range ready {
			if fd := int(event.Fd); fd != l.wake {
				l.handle(fd)
			} else if err := l.takeClients(); err != nil && !sock.Retry(err) {
				return err
			}
		}
	}
	return nil
}

// incCounter is atomic because the counter may be printed while the thread writes it.
func incCounter(counter *atomic.Int64) { counter.Add(1) }

// cleanup begins the end of the server when the signal comes.
func cleanup(listener int, stop <-chan os.Signal) {
	<-stop
	if err := sock.Shutdown(listener); err != nil { // accept returns
		log.Fatal(err)
	}
}

// finish waits until the loops have finished the replies under way.
func finish(loops []*loop, threads *sync.WaitGroup) error {
	for _, l := range loops {
		close(l.queue)
		if err := l.awake(); err != nil {
			return err
		}
	}
	threads.Wait()
	return nil
}

func serveForever(addr netip.AddrPort, threadNum int) error {
	listener, port, err := sock.Listen(addr, sock.Blocking)
	if err != nil {
		return err
	}
	// A thread that blocks keeps its processor, so there is one for each.
	runtime.GOMAXPROCS(threadNum + 2)
	stop := sock.StopSignal()
	fmt.Printf("Listening on port %d ...\n", port)

	counters := make([]atomic.Int64, threadNum)
	var loops []*loop
	var threads sync.WaitGroup
	for index := range counters {
		l, err := newLoop(&counters[index])
		if err != nil {
			return err
		}
		loops = append(loops, l)
		threads.Go(func() {
			if err := l.threadLoop(); err != nil {
				log.Fatal(err)
			}
		})
	}
	go cleanup(listener, stop)
	for next := 0; ; {
		conn, peer, err := sock.TryAccept(listener, sock.Nonblocking)
		if errors.Is(err, unix.EAGAIN) || sock.Retry(err) {
			continue // EAGAIN: the listener's SO_RCVTIMEO is over
		}
		if errors.Is(err, sock.ErrShutdown) {
			return errors.Join(finish(loops, &threads), stats.Print("thread", counters, nil))
		}
		if err != nil {
			return err
		}
		loops[next].queue <- client{conn, peer}
		if err := loops[next].awake(); err != nil {
			return err
		}
		next = (next + 1) % threadNum
	}
}

func main() {
	addr := option.Server()
	threadNum := option.Int("n", "child-num", runtime.NumCPU(), 1, 1024, "number of threads")
	option.Parse()
	sock.Exit(serveForever(*addr, *threadNum))
}
