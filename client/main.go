// Client is the test client for all servers. It starts children. Each child makes its
// connections one after the other: it asks for a number of bytes, reads the whole reply,
// and closes. The parent waits for the children and prints a summary.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
)

// addresses is the environment variable by which children get the server's addresses.
const addresses = "CSDESIGN_ADDRESSES"

// connect returns a blocking socket that is connected to the server.
func connect(server netip.AddrPort) (conn int, err error) {
	to, family, err := sock.Sockaddr(server)
	if err == nil {
		conn, err = unix.Socket(family, unix.SOCK_STREAM, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("connect %v: %w", server, err)
	}
	if err = unix.Connect(conn, to); err != nil {
		unix.Close(conn)
		return -1, fmt.Errorf("connect %v: %w", server, err)
	}
	return conn, nil
}

// fetch asks for count bytes, reads the whole reply, and closes.
func fetch(conn int, request []byte, count int, buf []byte) error {
	defer unix.Close(conn)
	if _, err := unix.Write(conn, request); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	if count == 0 {
		// The end of the connection is what the client waits for. A server that keeps
		// connections open closes it when the client has nothing more to send.
		if err := unix.Shutdown(conn, unix.SHUT_WR); err != nil {
			return fmt.Errorf("shut down the connection for sending: %w", err)
		}
	}
	for got := 0; got < count || count == 0; {
		n, err := unix.Read(conn, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("read reply: %d of %d bytes read: %w", got, count, err)
		case n == 0 && count == 0:
			return nil
		case n == 0:
			return fmt.Errorf("read reply: it ended after %d of %d bytes", got, count)
		}
		if got += n; got > count {
			return fmt.Errorf("read reply: it has more than the %d bytes asked for", count)
		}
	}
	return nil
}

// childLoop is all that a child does.
func childLoop(servers []netip.AddrPort, count int, r results) error {
	request, buf := fmt.Appendf(nil, "%d\n", count), make([]byte, 64<<10)
	r[0].Store(now())
	for i := range r[times:] {
		begin := now()
		conn, err := connect(servers[0])
		// A name may have addresses at which the server does not listen.
		for ; i == 0 && err != nil && len(servers) > 1; conn, err = connect(servers[0]) {
			servers, begin = servers[1:], now()
		}
		if err == nil {
			err = fetch(conn, request, count, buf)
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i+1, err)
		}
		end := now()
		r[times+i].Store(end - begin)
		r[1].Store(end)
	}
	return nil
}

// lookUp puts the addresses of a host, which is given by name or by address, into the
// environment of the children: only the parent asks the resolver.
func lookUp(host string) error {
	if _, err := netip.ParseAddr(host); err == nil { // the resolver would lose the zone
		return os.Setenv(addresses, host)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
	if err != nil {
		return err
	}
	return os.Setenv(addresses, strings.Trim(fmt.Sprint(addrs), "[]"))
}

// servers returns what lookUp has found.
func servers(port int) (list []netip.AddrPort) {
	for _, s := range strings.Fields(os.Getenv(addresses)) {
		addr, _ := netip.ParseAddr(s)
		list = append(list, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
	}
	return list
}

// request makes childNum children make conNum connections each. It ends the program.
func request(childNum, conNum, count int) error {
	file, words, err := reexec.CreateShared(childNum * (times + conNum))
	if err != nil {
		return err
	}
	var all []results
	for r := range slices.Chunk(words, times+conNum) {
		all = append(all, r)
	}
	stop := sock.StopSignal()
	go func() {
		sig := <-stop
		finish(all, count, 128+int(sig.(unix.Signal))) // the children die with their parent
	}()
	pids, status := make([]int, childNum), 0
	for index := range pids {
		if pids[index], err = reexec.Start(index, file); err != nil {
			return err
		}
	}
	for running := childNum; running > 0; {
		var exit unix.WaitStatus
		pid, err := unix.Wait4(-1, &exit, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("wait for children: %w", err)
		}
		index := slices.Index(pids, pid)
		if index < 0 {
			continue // not ours: a child of the shell that became this program by exec
		}
		running--
		switch {
		case exit == 0:
			fmt.Printf("Child %d is done\n", index)
		case exit.Signal() == unix.SIGTERM, exit.Signal() == unix.SIGINT:
			fmt.Printf("Child %d was terminated\n", index)
			status = max(status, 128+int(exit.Signal()))
		default:
			status = max(status, 1)
			if all[index][times+conNum-1].Load() == 0 {
				failed.Add(1)
			}
			if exit.ExitStatus() != 1 { // otherwise it has said why
				fmt.Fprintf(os.Stderr, "child %d: %s\n", index, reexec.Describe(exit))
			}
		}
	}
	finish(all, count, status)
	return nil
}

func main() {
	index, _, isChild := reexec.Child()
	host := option.String("i", "host", "NAME", "", "name or address of the server (required)")
	port := option.Int("p", "port", 0, 1, 65535, "port of the server (required)")
	childNum := option.Int("c", "child-num", 5, 1, 1024, "number of children")
	conNum := option.Int("t", "con-num", 500, 1, 1_000_000, "number of connections of each child")
	count := option.Int("b", "bytes", 3000, 0, 1<<30, "number of bytes to ask for")
	option.Parse()
	if *host == "" || *port == 0 {
		option.Fail("options -i and -p are required")
	}
	var err error
	if isChild {
		signal.Reset(unix.SIGTERM) // a child has nothing to finish
		log.SetPrefix(fmt.Sprintf("child %d: ", index))
		var words []atomic.Int64
		if words, err = reexec.MapShared(reexec.FirstFile, *childNum*(times+*conNum)); err == nil {
			err = childLoop(servers(*port), *count, words[index*(times+*conNum):][:times+*conNum])
		}
	} else if err = lookUp(*host); err == nil {
		err = request(*childNum, *conNum, *count)
	}
	sock.Exit(err)
}
