package option

import "golang.org/x/sys/unix"

// ClearLine takes a line that shows progress off the terminal. It is empty when
// standard error is none, and nobody is there to see any.
var ClearLine = func() string {
	if _, err := unix.IoctlGetWinsize(unix.Stderr, unix.TIOCGWINSZ); err != nil {
		return ""
	}
	return "\r\x1b[K"
}()
