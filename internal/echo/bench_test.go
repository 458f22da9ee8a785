package echo

import (
	"testing"
)

func BenchmarkParseRequest(b *testing.B) {
	request := []byte("4096\n")
	b.ReportAllocs()
	for b.Loop() {
		if count, err := ParseRequest(request); count != 4096 || err != nil {
			b.Fatal(count, err)
		}
	}
}

// BenchmarkReply is the generation of a reply, without sending it.
func BenchmarkReply(b *testing.B) {
	r := NewReply(-1, MaxReply)
	b.SetBytes(ChunkSize)
	b.ReportAllocs()
	for b.Loop() {
		r.Chunk()
		randoms.Put(r.random)
	}
}
