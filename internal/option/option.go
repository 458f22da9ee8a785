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
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// NoLimit is the -timeout that means no limit: 146 years.
const NoLimit = time.Duration(1 << 62)

// help has a line for each option, in the order of their declaration.
var help strings.Builder

// Server declares the options that all servers have: where to listen, how long to wait for a
// client, and whether to log requests, see [LogRequest]. It also makes the server ignore SIGPIPE,
// so that it goes on when its standard output is a pipe without a reader.
func Server() (host *netip.Addr, port *int, timeout *time.Duration) {
	signal.Ignore(unix.SIGPIPE)
	defer func() { quiet = Bool("q", "quiet", "do not log requests") }()
	return declare("i", "host", "ADDRESS", netip.IPv4Unspecified(), "address to listen on: IPv4, IPv6 or localhost", parseAddr),
		Int("p", "port", 2000, 0, 65535, "port to listen on, 0 for any that is free"),
		declare("", "timeout", "TIME", 30*time.Second, "how long a client may be silent, or take nothing of its reply, 0 for no limit", parseTime)
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
		d = NoLimit
	}
	return min(d, NoLimit), nil
}

// Int declares a whole number from least to most.
func Int(short, long string, value, least, most int, usage string) *int {
	return declare(short, long, "N", value, usage, func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("want a whole number from %d to %d", least, most)
		}
		return n, nil
	})
}

// String declares a text with a default value. A placeholder stands for the text in the help.
func String(short, long, placeholder, value, usage string) *string {
	return declare(short, long, placeholder, value, usage, func(s string) (string, error) { return s, nil })
}

// Func declares an option that may be given several times. Each time parse is called with its
// value.
func Func(long, placeholder, usage string, parse func(string) error) {
	flag.Func(long, "", parse)
	describe("-"+long+" "+placeholder, usage)
}

// Bool declares a switch, which is off by default.
func Bool(short, long, usage string) *bool {
	forms := "-" + long
	value := flag.Bool(long, false, "")
	if short != "" {
		forms = "-" + short + ", " + forms
		flag.BoolVar(value, short, false, "")
	}
	describe(forms, usage)
	return value
}

// LogRequest prints a number in a format with one %d on standard output, or nothing with -q. It
// is fmt.Printf without garbage, which would make the heap of each child grow to the 4 MB at which
// it is collected.
func LogRequest(format string, count int64) {
	if *quiet {
		return
	}
	var buf [80]byte
	before, after, _ := strings.Cut(format, "%d")
	line := append(strconv.AppendInt(append(buf[:0], before...), count, 10), after...)
	if _, err := os.Stdout.Write(line); err != nil {
		unlogged.Do(func() { log.Printf("requests are no longer logged: %v", err) })
	}
}

// Quiet reports whether -q was given.
func Quiet() bool { return *quiet }

var (
	quiet    = new(bool)
	unlogged sync.Once
)

// declare declares an option with a short form, which may be empty, and a long one. The
// help shows its default value, unless that is a zero.
func declare[T comparable](short, long, placeholder string, value T, usage string, parse func(string) (T, error)) *T {
	set := func(s string) (err error) {
		value, err = parse(s)
		return err
	}
	forms := "-" + long + " " + placeholder
	if short != "" {
		forms = "-" + short + ", " + forms
		flag.Func(short, "", set)
	}
	flag.Func(long, "", set)
	if value != *new(T) {
		usage += fmt.Sprintf(" (default %v)", value)
	}
	describe(forms, usage)
	return &value
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
		fmt.Print(usage())
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
