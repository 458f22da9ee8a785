//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// clients are the clients of one thread of a load: non-blocking sockets in an epoll, so that there
// can be thousands of them. Each makes one connection after the other, as the children of the
// client do.
type clients struct {
	epoll   int
	server  netip.AddrPort
	request []byte
	count   int
	open    map[int]*connection // by descriptor
	times   []time.Duration     // of those that have ended
	buf     [64 << 10]byte
}

type connection struct {
	client int
	begin  time.Time
	asked  bool // the request has been sent
	got    int  // bytes of the reply
}

// connect begins a connection of one of the clients.
func (c *clients) connect(client int) error {
	to, family, err := sock.Sockaddr(c.server)
	if err != nil {
		return err
	}
	conn := &connection{client: client, begin: time.Now()}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("create a socket: %w", err)
	}
	c.open[fd] = conn
	if err := unix.Connect(fd, to); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("connect: %w", err)
	}
	return c.send(fd, conn, unix.EPOLL_CTL_ADD) // on loopback it is connected already
}

// send sends the request, or waits until the connection is made.
func (c *clients) send(fd int, conn *connection, op int) error {
	events := uint32(unix.EPOLLIN)
	_, err := unix.Write(fd, c.request)
	switch {
	case err == unix.EAGAIN:
		events = unix.EPOLLOUT
	case err != nil:
		return fmt.Errorf("connect, and send the request: %w", err)
	default:
		conn.asked = true
		if c.count == 0 { // the end of the connection is the reply
			unix.Shutdown(fd, unix.SHUT_WR)
		}
	}
	return unix.EpollCtl(c.epoll, op, fd, &unix.EpollEvent{Fd: int32(fd), Events: events})
}

// receive reads a part of the reply, and reports whether it is complete.
func (c *clients) receive(fd int, conn *connection) (done bool, err error) {
	n, err := unix.Read(fd, c.buf[:])
	if err == unix.EAGAIN || err == unix.EINTR {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read the reply: %w", err)
	}
	conn.got += n
	switch {
	case conn.got > c.count:
		return false, fmt.Errorf("the reply has more than the %d bytes asked for", c.count)
	case n == 0 && c.count > 0:
		return false, fmt.Errorf("the reply ended after %d of %d bytes", conn.got, c.count)
	}
	return n == 0 || conn.got == c.count && c.count > 0, nil
}

func (c *clients) close() {
	for fd := range c.open {
		unix.Close(fd)
	}
	unix.Close(c.epoll)
}

// drive makes the connections of a load: loops of each client, or as many as begin within the
// time limit, but at least one of each. It is an error if one of them is not answered. There is a
// thread for each processor, as the children of the client use all of them, too.
func (l load) drive(ctx context.Context, server netip.AddrPort, loops int, limit time.Duration) (f figures, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all := make([]clients, min(runtime.NumCPU(), l.Children))
	begin := time.Now()
	var threads sync.WaitGroup
	for i := range all {
		all[i] = clients{server: server, count: l.Bytes, request: fmt.Appendf(nil, "%d\n", l.Bytes), open: map[int]*connection{}}
		threads.Go(func() {
			runtime.LockOSThread() // the scheduler of the Go runtime would cost much of the CPU time
			defer runtime.UnlockOSThread()
			if err := all[i].drive(ctx, (l.Children+i)/len(all), loops, begin.Add(limit)); err != nil {
				cancel(err)
			}
		})
	}
	threads.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var times []time.Duration
	for _, c := range all {
		times = append(times, c.times...)
	}
	slices.Sort(times)
	n := len(times)
	return figures{
		"answered":               float64(n),
		"connections_per_second": float64(n) / time.Since(begin).Seconds(),
		"p99_ms":                 times[(n*99+99)/100-1].Seconds() * 1000,
	}, nil
}

// drive makes the connections of number clients.
func (c *clients) drive(ctx context.Context, number, loops int, end time.Time) (err error) {
	if c.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("create the epoll: %w", err)
	}
	defer c.close()
	made := make([]int, number)
	for client := range made {
		if err := c.connect(client); err != nil {
			return err
		}
	}
	var events [256]unix.EpollEvent
	answered := time.Now()
	for yield := sock.Yielder(); len(c.open) > 0; yield() {
		n, err := unix.EpollWait(c.epoll, events[:], 1000)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Since(answered) > patience {
			return fmt.Errorf("no reply within %v", patience)
		}
		for _, event := range events[:max(n, 0)] {
			fd := int(event.Fd)
			conn := c.open[fd]
			if !conn.asked {
				if err := c.send(fd, conn, unix.EPOLL_CTL_MOD); err != nil {
					return err
				}
				continue
			}
			done, err := c.receive(fd, conn)
			if err != nil {
				return err
			}
			if !done {
				continue
			}
			unix.Close(fd)
			delete(c.open, fd)
			answered = time.Now()
			c.times = append(c.times, answered.Sub(conn.begin))
			made[conn.client]++
			if loops > 0 && made[conn.client] < loops || loops == 0 && answered.Before(end) {
				if err := c.connect(conn.client); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// connectIdle makes the idle connections of a load, and waits until the server has accepted
// them. They come from many addresses, because an address has 28,000 ports.
func (l load) connectIdle(ctx context.Context, server netip.AddrPort) (fds []int, err error) {
	to, _, err := sock.Sockaddr(server)
	if err != nil {
		return nil, err
	}
	for i := range l.Idle {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fds, fmt.Errorf("create a socket: %w", err)
		}
		fds = append(fds, fd)
		from := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 1, byte(1 + i/10_000)}}
		err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1), unix.Bind(fd, from))
		if err == nil {
			err = unix.Connect(fd, to)
		}
		if err != nil {
			return fds, fmt.Errorf("make idle connection %d: %w", i+1, err)
		}
		// A client that comes later is answered when the server has accepted those before.
		if (i+1)%1000 == 0 || i+1 == l.Idle {
			if _, err := (load{Children: 1, Bytes: 1}).drive(ctx, server, 20, 0); err != nil {
				return fds, fmt.Errorf("beside %d idle connections: %w", i+1, err)
			}
		}
	}
	return fds, nil
}
