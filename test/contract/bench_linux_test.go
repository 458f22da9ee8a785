package contract

import "testing"

// BenchmarkConnection is one connection through each server, one after the other,
// with a reply of 4096 bytes. The allocations are those of the client in this process.
func BenchmarkConnection(b *testing.B) {
	for _, d := range designs {
		b.Run(d.name, func(b *testing.B) {
			s := Serve(b, d.name)
			s.Ask("4096\n", 4096)
			b.ReportAllocs()
			for b.Loop() {
				s.Ask("4096\n", 4096)
			}
		})
	}
}
