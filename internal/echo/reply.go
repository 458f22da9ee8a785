package echo

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/internal/sock"
)

// ChunkSize is how many bytes of a reply are generated and sent at a time. The longest
// reply needs no more memory than that. A [Client] takes twice as many, because each chunk costs
// its server a round of the loop.
const ChunkSize = 64 << 10

// A Reply is the reply to one request, while it is sent. Use it in turns: [Reply.Chunk] for
// the next bytes, write(2), [Reply.Sent] for what write has returned.
type Reply struct {
	conn     int
	count    int64 // bytes to send
	sent     int64 // bytes that were written to the socket
	unacked  int64 // bytes in the socket that the client has not acknowledged, at the last look
	progress time.Time
	random   *random // of the chunk under way
}

// NewReply returns a reply of count bytes on a connection, a descriptor.
func NewReply(conn int, count int64) Reply { return Reply{conn: conn, count: count} }

// Left returns how many bytes are still to be written.
func (r *Reply) Left() int64 { return r.count - r.sent }

// Chunk returns the next random bytes, at most [ChunkSize]. They are valid until Sent.
func (r *Reply) Chunk() []byte { return r.chunk(ChunkSize) }

func (r *Reply) chunk(most int64) []byte {
	r.random = randoms.Get().(*random)
	// What the socket does not take is not kept: the next random bytes are as good.
	return r.random.chunk(min(r.Left(), most))
}

// Sent notes that write has sent n bytes of the chunk, or has failed. Write may have sent
// nothing because of a signal (EINTR), or because the client has taken nothing for a
// [sock.Tick] (EAGAIN): then Sent returns an error only if the client has made no progress for
// as long as [sock.Timeout].
func (r *Reply) Sent(n int, err error) error {
	randoms.Put(r.random)
	r.random = nil
	if n > 0 {
		r.sent += int64(n)
		r.progress = time.Time{}
		return nil
	}
	if err != nil && err != unix.EAGAIN && err != unix.EINTR {
		return fmt.Errorf("send reply: %d of %d bytes sent: %w", r.sent, r.count, err)
	}
	// Each byte that the client's TCP acknowledges is progress. The time counts from the first
	// write that has sent nothing.
	now := time.Now()
	if unacked := sock.Queued(r.conn, sock.Unacknowledged); r.progress.IsZero() || unacked != r.unacked {
		r.progress, r.unacked = now, unacked
	}
	return r.stalled(r.progress, now)
}

// stalled returns an error if there was no progress since a time for as long as [sock.Timeout].
func (r *Reply) stalled(since, now time.Time) error {
	if now.Sub(since) < sock.Timeout {
		return nil
	}
	return fmt.Errorf("send reply: %d of %d bytes taken: none for %v", max(0, r.sent-r.unacked), r.count, sock.Timeout)
}

// A random is a source of random bytes: AES in counter mode, with a random key. Processors
// have instructions for AES, so it is ten times as fast as getrandom(2).
type random struct {
	stream cipher.Stream
	buf    [2 * ChunkSize]byte
}

// randoms has a source for each chunk that is being sent.
var randoms = sync.Pool{New: func() any {
	var seed [2 * aes.BlockSize]byte
	for i := 0; i < len(seed); i += 8 {
		binary.NativeEndian.PutUint64(seed[i:], rand.Uint64()) // the kernel has seeded it
	}
	block, _ := aes.NewCipher(seed[:aes.BlockSize]) // it fails only for a key of a wrong size
	return &random{stream: cipher.NewCTR(block, seed[aes.BlockSize:])}
}}

func (r *random) chunk(size int64) []byte {
	p := r.buf[:size]
	r.stream.XORKeyStream(p, p)
	return p
}
