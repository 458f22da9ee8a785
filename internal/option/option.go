// Package option reads the command line in the form of the originals: an option has a
// short and a long form, its value is checked, and the help shows it once. It is built on
// package flag, and used in the same way: declare the options, then call [Parse].
package option

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/echo"
	"csdesign/internal/sock"
)

// help has a line for each option, in the order of their declaration.
var help strings.Builder

// Server declares the options that all servers have. It returns the address to listen on, which
// [Parse] fills in. Parse also sets [sock.Timeout] and [echo.Quiet]. Server makes the program ignore
// SIGPIPE, so that it goes on when its standard output is a pipe without a reader.
func Server() *netip.AddrPort {
	signal.Ignore(unix.SIGPIPE)
	addr := new(netip.AddrPort)
	declare("i", "host", "ADDRESS", netip.IPv4Unspecified(), "address to listen on: IPv4, IPv6 or localhost", parseAddr,
		func(host netip.Addr) { *addr = netip.AddrPortFrom(host, addr.Port()) })
	declare("p", "port", "N", 2000, "port to listen on, 0 for any that is free", wholeNumber(0, 65535),
		func(port int) { *addr = netip.AddrPortFrom(addr.Addr(), uint16(port)) })
	declare("", "timeout", "TIME", 30*time.Second, "how long a client may be silent, or take nothing of its reply, 0 for no limit", parseTime,
		func(timeout time.Duration) { sock.Timeout = timeout })
	boolVar(&echo.Quiet, "q", "quiet", "do not log requests")
	return addr
}

func parseAddr(s string) (netip.Addr, error) {
	if s == "localhost" {
		s = "127.0.0.1"
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return addr, errors.New("want an IPv4 or IPv6 address, or localhost")
	}
	return addr, nil
}

func parseTime(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errors.New("want a time such as 30s or 1m30s, or 0")
	}
	if d == 0 {
		d = sock.NoLimit
	}
	return min(d, sock.NoLimit), nil
}

func wholeNumber(least, most int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("want a whole number from %d to %d", least, most)
		}
		return n, nil
	}
}

// Int declares a whole number from least to most.
func Int(short, long string, value, least, most int, usage string) *int {
	p := new(int)
	declare(short, long, "N", value, usage, wholeNumber(least, most), func(n int) { *p = n })
	return p
}

// String declares a text with a default value. A placeholder stands for the text in the help.
func String(short, long, placeholder, value, usage string) *string {
	p := new(string)
	declare(short, long, placeholder, value, usage, func(s string) (string, error) { return s, nil }, func(s string) { *p = s })
	return p
}

// Func declares an option that may be given several times. Each time parse is called with its
// value.
func Func(long, placeholder, usage string, parse func(string) error) {
	flag.Func(long, "", parse)
	describe("-"+long+" "+placeholder, usage)
}

// Bool declares a switch, which is off by default.
func Bool(short, long, usage string) *bool {
	p := new(bool)
	boolVar(p, short, long, usage)
	return p
}

func boolVar(p *bool, short, long, usage string) {
	forms := "-" + long
	flag.BoolVar(p, long, false, "")
	if short != "" {
		forms = "-" + short + ", " + forms
		flag.BoolVar(p, short, false, "")
	}
	describe(forms, usage)
}

// declare declares an option with a short form, which may be empty, and a long one. It calls set
// with the default value, and with each value that is given. The help shows the default value,
// unless that is a zero.
func declare[T comparable](short, long, placeholder string, value T, usage string, parse func(string) (T, error), set func(T)) {
	set(value)
	read := func(s string) error {
		value, err := parse(s)
		if err == nil {
			set(value)
		}
		return err
	}
	forms := "-" + long + " " + placeholder
	if short != "" {
		forms = "-" + short + ", " + forms
		flag.Func(short, "", read)
	}
	flag.Func(long, "", read)
	if value != *new(T) {
		usage += fmt.Sprintf(" (default %v)", value)
	}
	describe(forms, usage)
}

func describe(forms, usage string) { fmt.Fprintf(&help, "  %-22s %s\n", forms, usage) }

// Parse reads the command line, and returns the arguments after the options. Each of them
// has to be one of these names. With -h it prints the help and ends the program; when
// something is wrong, it does what [Fail] does. It also makes the messages of package log
// begin with the name of the program.
func Parse(names ...string) (args []string) {
	log.SetFlags(0)
	log.SetPrefix(program() + ": ")
	if len(names) > 0 {
		arguments = " [" + names[0] + " ...]"
	}
	flag.CommandLine.Init("", flag.ContinueOnError)
	flag.CommandLine.SetOutput(io.Discard) // Fail says what is wrong
	err := flag.CommandLine.Parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		if _, err := fmt.Print(usage()); err != nil {
			log.Fatal(err)
		}
		os.Exit(0)
	}
	if err != nil {
		Fail(err.Error())
	}
	for _, arg := range flag.Args() {
		if !slices.Contains(names, arg) {
			Fail(fmt.Sprintf("unexpected argument %q", arg))
		}
	}
	return flag.Args()
}

// Fail says in a line what is wrong with the command line, prints the help, and ends the
// program with status 2.
func Fail(message string) {
	fmt.Fprintf(os.Stderr, "%s: %s\n%s", program(), message, usage())
	os.Exit(2)
}

// arguments is what the help shows after the options.
var arguments string

func usage() string {
	describe("-h", "show this help")
	return fmt.Sprintf("Usage: %s [options]%s\n%s", program(), arguments, &help)
}

func program() string { return filepath.Base(os.Args[0]) }
