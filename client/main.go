// Client is the test client for all servers. It starts children. Each child makes its
// connections one after the other: it asks for a number of bytes, reads the whole reply,
// and closes. The parent waits for the children and prints a summary.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
)

// The descriptors that a child inherits.
const (
	resultsFile = reexec.FirstFile + iota // memory that it shares with the parent
	readyPipe                             // the child closes it when it is ready
	startPipe                             // the parent closes it when all children are
	donePipe                              // the child closes it after its last connection
)

// terminated is the exit status of a child that got SIGTERM.
const terminated = 128 + int(unix.SIGTERM)

// addresses is the environment variable by which children get the server's addresses.
const addresses = "CSDESIGN_ADDRESSES"

// clearLine removes the line that shows progress. It is empty if there is no terminal.
var clearLine = option.ClearLine()

// fetch makes one connection: it asks for count bytes and reads the whole reply.
func fetch(server netip.AddrPort, request []byte, count int, buf []byte) error {
	conn, err := connect(server)
	if err != nil {
		return err
	}
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
func childLoop(servers []netip.AddrPort, count int, t tally) error {
	defer unix.Close(donePipe)
	request := fmt.Appendf(nil, "%d\n", count)
	buf := make([]byte, 64<<10)
	unix.Close(readyPipe)
	awaitClose(startPipe)
	for i := 1; i < len(t); i++ {
		reexec.Yield()
		begin := time.Now()
		err := fetch(servers[0], request, count, buf)
		// A name may have addresses at which the server does not listen.
		for ; i == 1 && len(servers) > 1 && errors.Is(err, unix.ECONNREFUSED); servers = servers[1:] {
			begin = time.Now()
			err = fetch(servers[1], request, count, buf)
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		t[i].Store(int64(time.Since(begin)))
		t[0].Add(1)
	}
	return nil
}

// awaitClose waits until all processes have closed the other end of a pipe.
func awaitClose(pipe int) {
	for {
		if _, err := unix.Read(pipe, make([]byte, 1)); err != unix.EINTR {
			return
		}
	}
}

// startChildren starts the children, and stops early if there is something in stop. All
// children begin at the same time, because starting them takes longer than many runs: ready
// says when all have started, and begin makes them begin. done says when all have made their
// connections, because their end takes time, too.
func startChildren(childNum, results int, stop <-chan os.Signal) (pids []int, ready, done <-chan time.Time, begin func(), err error) {
	var readyPipe, startPipe, donePipe [2]int
	for _, pipe := range []*[2]int{&readyPipe, &startPipe, &donePipe} {
		if err := unix.Pipe(pipe[:]); err != nil {
			return nil, nil, nil, nil, fmt.Errorf("create a pipe: %w", err)
		}
		unix.CloseOnExec(pipe[0])
		unix.CloseOnExec(pipe[1])
	}
	for index := 0; index < childNum && len(stop) == 0; index++ {
		pid, err := reexec.Start(index, results, readyPipe[1], startPipe[0], donePipe[1])
		if err != nil {
			return nil, nil, nil, nil, err
		}
		pids = append(pids, pid)
	}
	for _, fd := range []int{readyPipe[1], startPipe[0], donePipe[1]} {
		unix.Close(fd) // the children have their own copies
	}
	closed := func(pipe int) <-chan time.Time {
		at := make(chan time.Time, 1)
		go func() {
			awaitClose(pipe)
			at <- time.Now()
		}()
		return at
	}
	return pids, closed(readyPipe[0]), closed(donePipe[0]), func() { unix.Close(startPipe[1]) }, nil
}

// request makes childNum children make conNum connections each, and returns the exit status
// of the program.
func request(childNum, conNum, count int) (status int, err error) {
	results, words, err := reexec.CreateShared(childNum * (1 + conNum))
	if err != nil {
		return 0, err
	}
	tallies := talliesIn(words, childNum)
	died, stop := reexec.Died(), sock.Stop(option.NoLimit)
	begin := time.Now()
	pids, ready, done, start, err := startChildren(childNum, results, stop)
	if err != nil {
		return 0, err
	}
	progress := time.NewTicker(200 * time.Millisecond)
	failed := 0
	var late time.Duration // how long to wait for a signal at the end
	for running := len(pids); running > 0; {
		select {
		case <-ready:
			begin, ready = time.Now(), nil
			start()
		case <-died:
		case <-progress.C:
			if clearLine != "" && time.Since(begin) > time.Second {
				fmt.Fprintf(os.Stderr, "%s%d of %d connections", clearLine, answered(tallies), childNum*conNum)
			}
		case sig := <-stop:
			status = 128 + int(sig.(unix.Signal))
			for _, pid := range pids {
				if pid != 0 {
					unix.Kill(pid, unix.SIGKILL)
				}
			}
		}
		for pid, exit := range reexec.Ended {
			index := slices.Index(pids, pid)
			if index < 0 {
				continue // not ours: a child of the shell that became this program by exec
			}
			pids[index] = 0
			running--
			fmt.Fprint(os.Stderr, clearLine)
			switch {
			case exit.ExitStatus() == 0:
				fmt.Printf("Child %d is done\n", index)
			case exit.ExitStatus() == terminated, exit.Signal() == unix.SIGINT: // Ctrl-C before it could ignore that
				fmt.Printf("Child %d was terminated\n", index)
				status, late = max(status, 1), 100*time.Millisecond
			case status <= 1:
				status = 1
				if tallies[index][0].Load() < int64(conNum) {
					failed++
				}
				if exit.ExitStatus() != 1 { // otherwise it has said why
					fmt.Fprintf(os.Stderr, "child %d: %v\n", index, exit)
				}
			}
		}
	}
	elapsed := max((<-done).Sub(begin), time.Nanosecond) // children may have died before they began
	// A signal may have come to all processes, and the children have been faster.
	for end := time.Now().Add(late); len(stop) == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	select {
	case sig := <-stop:
		status = 128 + int(sig.(unix.Signal))
	default:
	}
	fmt.Fprint(os.Stderr, clearLine)
	summarize(tallies, count, failed, elapsed)
	return status, nil
}

// lookUp puts the addresses of a host, which is given by name or by address, into the
// environment of the children: only the parent asks the resolver.
func lookUp(host string) error {
	if _, err := netip.ParseAddr(host); err == nil {
		return os.Setenv(addresses, host)
	}
	if err := sock.EnoughDescriptors(); err != nil {
		return fmt.Errorf("look up %s: %w", host, err)
	}
	addrs, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
	if err != nil {
		return err
	}
	var list []string
	for _, addr := range addrs {
		list = append(list, addr.Unmap().String())
	}
	return os.Setenv(addresses, strings.Join(list, " "))
}

// servers returns what lookUp has found.
func servers(port int) (list []netip.AddrPort, err error) {
	for _, s := range strings.Fields(os.Getenv(addresses)) {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return nil, err
		}
		list = append(list, netip.AddrPortFrom(addr, uint16(port)))
	}
	return list, nil
}

func main() {
	index, terminate, isChild := reexec.Child()
	host := option.String("i", "host", "NAME", "name or address of the server (required)")
	port := option.Int("p", "port", 0, 1, 65535, "port of the server (required)")
	childNum := option.Int("c", "child-num", 5, 1, 1024, "number of children")
	conNum := option.Int("t", "con-num", 500, 1, 1_000_000, "number of connections of each child")
	count := option.Int("b", "bytes", 3000, 0, 1<<30, "number of bytes to ask for")
	option.Parse()
	if *host == "" || *port == 0 {
		option.Fail("options -i and -p are required")
	}
	if isChild {
		log.SetPrefix(fmt.Sprintf("%schild %d: ", clearLine, index))
		go func() {
			<-terminate
			os.Exit(terminated)
		}()
		servers, err := servers(*port)
		if err != nil {
			log.Fatal(err)
		}
		words, err := reexec.MapShared(resultsFile, *childNum*(1+*conNum))
		if err != nil {
			log.Fatal(err)
		}
		if err := childLoop(servers, *count, talliesIn(words, *childNum)[index]); err != nil {
			log.Fatal(err)
		}
		return
	}
	if err := lookUp(*host); err != nil {
		log.Fatal(err)
	}
	os.Setenv("GOMAXPROCS", "2") // for the children, as in a reexec.Pool
	status, err := request(*childNum, *conNum, *count)
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(status)
}
