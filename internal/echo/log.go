package echo

import (
	"log"
	"os"
	"strconv"

	"csdesign/internal/reexec"
)

// Quiet makes [LogRequest] print nothing. Option -q sets it.
var Quiet bool

// LogRequest says on standard output how many bytes a client has asked for. Unlike fmt.Printf it
// makes no garbage. With garbage the heap of each child would grow to 4 MB before it is collected.
func LogRequest(count int64) {
	if Quiet {
		return
	}
	var buf [80]byte
	line := strconv.AppendInt(append(buf[:0], "Got request to send "...), count, 10)
	if _, err := os.Stdout.Write(append(line, " bytes. Sending them all...\n"...)); err != nil {
		LogFailed(err)
	}
}

// LogFailed says that a request could not be logged. It does so once, for a parent and all its
// children: the next request may be logged again.
func LogFailed(err error) {
	if reexec.FirstOfAll() {
		log.Printf("a request is not logged: %v (this is said only once)", err)
	}
}
