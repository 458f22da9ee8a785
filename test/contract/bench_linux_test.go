package contract

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

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

// BenchmarkBesideIdle is one connection through a multiplexer that has others, which are idle.
func BenchmarkBesideIdle(b *testing.B) {
	for _, test := range []struct {
		name string
		most int
	}{{"server02", 900}, {"server06", 9000}, {"server07", 9000}} {
		for _, idle := range []int{0, 900, 9000} {
			if idle > test.most {
				continue
			}
			name := fmt.Sprintf("%s/%d", test.name, idle)
			if idle == 0 {
				name = test.name + "/none"
			}
			b.Run(name, func(b *testing.B) {
				var limit unix.Rlimit
				if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(idle+100) {
					b.Skipf("the limit of descriptors is %d, %v", limit.Cur, err)
				}
				s := Serve(b, test.name)
				for range idle {
					s.Connect()
				}
				s.Ask("4096\n", 4096)
				for b.Loop() {
					s.Ask("4096\n", 4096)
				}
			})
		}
	}
}
