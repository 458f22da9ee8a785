// Client is the test client for all servers. It starts child processes, each of
// which makes its connections one after the other: it asks for a number of bytes,
// reads the whole reply however it is cut up, and closes. The parent waits for the
// children and sums up.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/option"
	"csdesign/internal/reexec"
	"csdesign/internal/sock"
)

// The descriptors that a child inherits.
const (
	resultsFile = reexec.FirstFile + iota // memory that it shares with the parent
	readyPipe                             // which it closes when it is ready
	startPipe                             // which the parent closes when all are
)

// fetch makes one connection, sends a request for count bytes and reads the whole
// reply.
func fetch(server netip.AddrPort, request []byte, count int, buf []byte) error {
	conn, err := sock.Connect(server)
	if err != nil {
		return err
	}
	defer unix.Close(conn)
	if _, err := unix.Write(conn, request); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	for got := 0; got < count; {
		n, err := sock.Read(conn, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("read reply: %d of %d bytes read: %w", got, count, err)
		}
		if n == 0 {
			return fmt.Errorf("read reply: it ended after %d of %d bytes", got, count)
		}
		if got += n; got > count {
			return fmt.Errorf("read reply: there is more than the %d bytes asked for", count)
		}
	}
	return nil
}

// childLoop is all that a child does.
func childLoop(addrs []netip.Addr, port uint16, count int, t tally) error {
	// While a second processor is idle, the runtime leaves a thread that waits in a
	// system call alone for 10 ms. With one it steps in after 20 us, each time.
	runtime.GOMAXPROCS(2)
	request := fmt.Appendf(nil, "%d\n", count)
	buf := make([]byte, 64<<10)
	unix.Close(readyPipe)
	awaitClose(startPipe)
	for i := 1; i < len(t); i++ {
		begin := time.Now()
		err := fetch(netip.AddrPortFrom(addrs[0], port), request, count, buf)
		// A server need not listen at all addresses that its name has.
		for ; i == 1 && len(addrs) > 1 && errors.Is(err, unix.ECONNREFUSED); addrs = addrs[1:] {
			begin = time.Now()
			err = fetch(netip.AddrPortFrom(addrs[1], port), request, count, buf)
		}
		if err != nil {
			return fmt.Errorf("connection %d: %w", i, err)
		}
		t[i].Store(int64(time.Since(begin)))
		t[0].Add(1)
	}
	return nil
}

// awaitClose waits until every process has closed the other end of the pipe.
func awaitClose(pipe int) {
	for {
		if _, err := unix.Read(pipe, make([]byte, 1)); err != unix.EINTR {
			return
		}
	}
}

// startChildren returns the PIDs of the children, which all have begun at the same
// time: starting them takes longer than many a run.
func startChildren(childNum, results int) ([]int, error) {
	var ready, start [2]int
	if err := errors.Join(unix.Pipe(ready[:]), unix.Pipe(start[:])); err != nil {
		return nil, fmt.Errorf("create pipe: %w", err)
	}
	for _, fd := range []int{ready[0], ready[1], start[0], start[1]} {
		unix.CloseOnExec(fd)
	}
	pids := make([]int, childNum)
	for index := range pids {
		pid, err := reexec.Start(index, results, ready[1], start[0])
		if err != nil {
			return nil, err
		}
		pids[index] = pid
	}
	unix.Close(ready[1])
	unix.Close(start[0])
	awaitClose(ready[0])
	unix.Close(start[1])
	return pids, nil
}

// request has childNum children make conNum connections each, and returns the exit
// status of the program.
func request(childNum, conNum, count int) (status int, err error) {
	results, err := reexec.CreateShared(childNum * (1 + conNum))
	if err != nil {
		return 0, err
	}
	tallies, err := mapTallies(results, childNum, conNum)
	if err != nil {
		return 0, err
	}
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	pids, err := startChildren(childNum, results)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	progress := time.NewTicker(200 * time.Millisecond)
	failed := 0
	for running := childNum; running > 0; {
		select {
		case <-died:
		case <-progress.C:
			if option.ClearLine != "" && time.Since(begin) > time.Second {
				fmt.Fprintf(os.Stderr, "%s%d of %d connections", option.ClearLine, answered(tallies), childNum*conNum)
			}
		case sig := <-stop:
			status = 128 + int(sig.(unix.Signal))
			for _, pid := range pids {
				if pid != 0 {
					unix.Kill(pid, unix.SIGKILL)
				}
			}
		}
		for pid, ended, ok := reexec.Reap(); ok; pid, ended, ok = reexec.Reap() {
			index := slices.Index(pids, pid)
			if index < 0 {
				continue // left to us by the shell whose place we took
			}
			pids[index] = 0
			running--
			switch {
			case ended == 0:
				fmt.Fprint(os.Stderr, option.ClearLine)
				fmt.Printf("Child %d is done\n", index)
			case status <= 1:
				status = 1
				failed++
				if ended.Signaled() {
					fmt.Fprintf(os.Stderr, "%schild %d: %s\n", option.ClearLine, index, reexec.Describe(ended))
				}
			}
		}
	}
	elapsed := time.Since(begin)
	fmt.Fprint(os.Stderr, option.ClearLine)
	summarize(tallies, count, failed, elapsed)
	return status, nil
}

// resolve returns the addresses of a host that is given by its name or by one of
// them.
func resolve(host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, err
}

func main() {
	log.SetFlags(0)
	index, _, isChild := reexec.Child()
	host := option.String("i", "host", "NAME", "name or address of the server (required)")
	port := option.Int("p", "port", 0, 1, 65535, "port of the server (required)")
	childNum := option.Int("c", "child-num", 5, 1, 1024, "number of children")
	conNum := option.Int("t", "con-num", 500, 1, 1_000_000, "number of connections of each child")
	count := option.Int("b", "bytes", 3000, 0, 1<<30, "number of bytes to ask for")
	option.Parse()
	if *host == "" || *port == 0 {
		option.Fail("options -i and -p are required")
	}
	log.SetPrefix("client: ")
	addrs, err := resolve(*host)
	if err != nil {
		log.Fatal(err)
	}
	if isChild {
		log.SetPrefix(fmt.Sprintf("%schild %d: ", option.ClearLine, index))
		tallies, err := mapTallies(resultsFile, *childNum, *conNum)
		if err == nil {
			err = childLoop(addrs, uint16(*port), *count, tallies[index])
		}
		if err != nil {
			log.Fatal(err)
		}
		return
	}
	status, err := request(*childNum, *conNum, *count)
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(status)
}
