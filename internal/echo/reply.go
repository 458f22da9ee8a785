package echo

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"log"
	"math/rand/v2"
	"os"
	"sync"
)

// ChunkSize is how many bytes of a reply are generated and sent at a time. The longest
// reply needs no more memory than that.
const ChunkSize = 64 << 10

// A generator makes the random bytes of replies: AES in counter mode, with a random key.
// The processor has instructions for AES, so it is ten times as fast as getrandom(2).
type generator struct {
	stream cipher.Stream
	buf    [ChunkSize]byte
}

// generators holds one for every thread that sends.
var generators = sync.Pool{New: func() any {
	var seed [2 * aes.BlockSize]byte
	for i := 0; i < len(seed); i += 8 {
		binary.NativeEndian.PutUint64(seed[i:], rand.Uint64()) // the kernel has seeded it
	}
	block, _ := aes.NewCipher(seed[:aes.BlockSize]) // it fails only for a key of a wrong size
	return &generator{stream: cipher.NewCTR(block, seed[aes.BlockSize:])}
}}

// chunk returns the next bytes of a reply, of which left bytes are still to be sent. The
// next call overwrites them.
func (g *generator) chunk(left int64) []byte {
	p := g.buf[:min(left, ChunkSize)]
	g.stream.XORKeyStream(p, p)
	return p
}

// announce logs a request on standard output.
func announce(count int64) {
	var buf [80]byte
	if _, err := os.Stdout.Write(announcement(&buf, count)); err != nil {
		unlogged.Do(func() { log.Printf("requests are no longer logged: %v", err) })
	}
}

// announcement writes the line of a request to the end of buf. It is fmt.Appendf without
// garbage, and nosplit and norace for forked children, see Forked.
//
//go:nosplit
//go:norace
func announcement(buf *[80]byte, count int64) (line []byte) {
	const before, after = "Got request to send ", " bytes. Sending them all...\n"
	start := len(buf) - len(after)
	for i := range len(after) { // with the race detector, copy is a function that is not nosplit
		buf[start+i] = after[i]
	}
	for digit := true; digit; digit = count > 0 {
		start--
		buf[start] = byte('0' + count%10)
		count /= 10
	}
	start -= len(before)
	for i := range len(before) {
		buf[start+i] = before[i]
	}
	return buf[start:]
}

var unlogged sync.Once
