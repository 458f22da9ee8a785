package echo

import "testing"

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
	g := generators.Get().(*generator)
	defer generators.Put(g)
	b.SetBytes(ChunkSize)
	b.ReportAllocs()
	for b.Loop() {
		g.chunk(ChunkSize)
	}
}
