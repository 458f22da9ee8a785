// Server05a is a concurrent TCP server with one goroutine for each client. It is what a Go
// programmer writes: package net accepts a connection, and a goroutine serves it with calls
// that seem to block. Beneath, all sockets are non-blocking, and a goroutine whose call would
// block is parked until the epoll of the Go runtime says that its socket is ready. So it is
// written as server05 is, and waits as server07 does.
//
// See the documentation of package net, and src/runtime/netpoll.go in the Go sources.
package main

import (
	"errors"
	"fmt"
	"log"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"csdesign/internal/echo"
	"csdesign/internal/option"
	"csdesign/internal/sock"
)

// handle sets deadlines on the connection, by way of package echo: package net has no other
// timeouts.
func handle(conn *net.TCPConn, timeout time.Duration) error {
	defer conn.Close()
	count, err := echo.ReadRequestFrom(conn, timeout)
	if err != nil {
		return err
	}
	return echo.SendReplyTo(conn, count, timeout)
}

// serveForever returns only when something has gone wrong.
func serveForever(addr netip.AddrPort, timeout time.Duration) error {
	if err := sock.EnoughDescriptors(); err != nil {
		return fmt.Errorf("listen %v: %w", addr, err)
	}
	network := "tcp"
	if addr.Addr().Is4() {
		network = "tcp4" // with "tcp", 0.0.0.0 would take clients on IPv6, too
	}
	listener, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return err
	}
	stop := sock.Stop(timeout)
	go func() {
		<-stop
		listener.Close()
		echo.Finish(timeout) // the replies under way
		os.Exit(0)
	}()
	fmt.Printf("Listening on port %d ...\n", listener.Addr().(*net.TCPAddr).Port)

	for {
		conn, err := listener.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			select {} // the goroutine above ends the program
		}
		if sock.Exhausted(err) {
			sock.Pause(err)
			continue
		}
		if err != nil {
			return err
		}
		go func() {
			if err := handle(conn, timeout); err != nil {
				log.Printf("%v: %v", conn.RemoteAddr(), err)
			}
		}()
	}
}

func main() {
	// Package reexec keeps main on its thread, for programs that have children. Here main is a
	// goroutine like the others.
	runtime.UnlockOSThread()
	host, port, timeout := option.Server()
	option.Parse()
	log.Fatal(serveForever(netip.AddrPortFrom(*host, uint16(*port)), *timeout))
}
