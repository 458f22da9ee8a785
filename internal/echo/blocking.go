package echo

import (
	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// ReadRequest reads a request from a blocking connection, and returns the number of bytes that it
// asks for. The error says why there is none: the client was silent for [sock.Timeout], has closed, or
// has sent something else.
func ReadRequest(conn int) (count int64, err error) {
	var request [MaxRequest + 1]byte
	n, err := unix.Read(conn, request[:])
	for err == unix.EINTR { // a signal
		n, err = unix.Read(conn, request[:])
	}
	if err != nil {
		return 0, ReadError(err)
	}
	return ParseRequest(request[:n])
}

// SendReply sends a reply of count bytes on a blocking connection. Then it is safe to close the
// connection (see [sock.Linger]). The error says how much of the reply the client has got.
func SendReply(conn int, count int64) error {
	for reply := NewReply(conn, count); reply.Left() > 0; {
		n, err := unix.Write(conn, reply.Chunk())
		if err := reply.Sent(n, err); err != nil {
			return err
		}
	}
	return sock.Linger(conn, count, sock.ReadForTick)
}
