package echo

import (
	"fmt"
	"log"
	"math/rand/v2"
	"sync"
)

// ChunkSize is how much of a reply is generated and sent at a time, in bytes, so
// that the longest reply needs no more memory than a short one.
const ChunkSize = 64 << 10

// A generator makes the random bytes of replies. ChaCha8 is more than twice as
// fast as getrandom(2), which is all that matters here.
type generator struct {
	source *rand.ChaCha8
	buf    [ChunkSize]byte
}

// generators has one for every thread that sends.
var generators = sync.Pool{New: func() any {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32()) // seeded by the kernel at start-up
	}
	return &generator{source: rand.NewChaCha8(seed)}
}}

// chunk returns the next bytes of a reply of which so many are left. They are
// overwritten by the next call.
func (g *generator) chunk(left int64) []byte {
	p := g.buf[:min(left, ChunkSize)]
	g.source.Read(p) // never fails
	return p
}

// announce says on standard output what is going to be sent. A server whose
// output nobody takes any more goes on without it.
func announce(count int64) {
	_, err := fmt.Printf("Got request to send %d bytes. Sending them all...\n", count)
	if err != nil {
		unlogged.Do(func() { log.Printf("requests are no longer logged: %v", err) })
	}
}

var unlogged sync.Once
