// Package option reads a program's command line in the form that the
// originals gave it: every option has a short and a long spelling, its value
// is checked as it is read, and the help shows it once.
//
// Options are declared before [Parse] is called, as with package flag, on which
// this is built.
package option

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// help holds the help text, a line an option, in the order of declaration.
var help strings.Builder

// arguments stands in the help for what may follow the options.
var arguments string

// Int declares a whole number from least to most. A value outside of these is no
// default that the help would show.
func Int(short, long string, value, least, most int, usage string) *int {
	p := &value
	shown := ""
	if value >= least && value <= most {
		shown = strconv.Itoa(value)
	}
	declare(short, long, "N", shown, usage, func(s string) error {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return fmt.Errorf("want a whole number from %d to %d", least, most)
		}
		*p = n
		return nil
	})
	return p
}

// Addr declares an IPv4 or IPv6 address; "localhost" stands for 127.0.0.1.
func Addr(short, long, value, usage string) *netip.Addr {
	addr := netip.MustParseAddr(value)
	declare(short, long, "ADDRESS", value, usage, func(s string) (err error) {
		if s == "localhost" {
			s = "127.0.0.1"
		}
		if addr, err = netip.ParseAddr(s); err != nil {
			return errors.New("want an IPv4 or IPv6 address, or localhost")
		}
		return nil
	})
	return &addr
}

// Duration declares a time that is not negative, such as 1.5s or 2m.
func Duration(long string, value time.Duration, usage string) *time.Duration {
	p := &value
	declare("", long, "TIME", value.String(), usage, func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			return errors.New("want a time such as 30s or 1m30s, or 0")
		}
		*p = d
		return nil
	})
	return p
}

// String declares a text, empty unless it is given. In the help a placeholder stands
// for it.
func String(short, long, placeholder, usage string) *string {
	p := new(string)
	declare(short, long, placeholder, "", usage, func(s string) error {
		*p = s
		return nil
	})
	return p
}

// Bool declares a switch, off unless it is given.
func Bool(long, usage string) *bool {
	p := flag.Bool(long, false, usage)
	describe("-"+long, "", usage)
	return p
}

func declare(short, long, placeholder, value, usage string, set func(string) error) {
	spellings := "-" + long + " " + placeholder
	if short != "" {
		spellings = "-" + short + ", " + spellings
		flag.Func(short, usage, set)
	}
	flag.Func(long, usage, set)
	describe(spellings, value, usage)
}

func describe(spellings, value, usage string) {
	fmt.Fprintf(&help, "  %-22s %s", spellings, usage)
	if value != "" {
		fmt.Fprintf(&help, " (default %s)", value)
	}
	help.WriteByte('\n')
}

// Parse reads the program's command line, and returns the arguments after the
// options, of which each has to be one of these names. It ends the program with the
// help and status 0 when -h asks for it, and as [Fail] does when a value is not as
// declared, an option unknown, or an argument not expected.
func Parse(names ...string) (args []string) {
	if len(names) > 0 {
		arguments = " [" + names[0] + " ...]"
	}
	flag.CommandLine.Init("", flag.ContinueOnError)
	flag.CommandLine.SetOutput(io.Discard)
	err := flag.CommandLine.Parse(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		usage(os.Stdout)
		os.Exit(0)
	case err != nil:
		Fail(err.Error())
	}
	for _, arg := range flag.Args() {
		if !slices.Contains(names, arg) {
			Fail(fmt.Sprintf("unexpected argument %q", arg))
		}
	}
	return flag.Args()
}

// Fail ends the program with status 2, after a line that says what is wrong with
// the command line, and the help.
func Fail(message string) {
	fmt.Fprintf(os.Stderr, "%s: %s\n", program(), message)
	usage(os.Stderr)
	os.Exit(2)
}

func usage(w io.Writer) {
	fmt.Fprintf(w, "Usage: %s [options]%s\n%s  %-22s %s\n", program(), arguments, &help, "-h", "show this help")
}

func program() string { return filepath.Base(os.Args[0]) }
