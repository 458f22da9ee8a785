package stats

import "testing"

func TestSummary(t *testing.T) {
	counts := []int64{3, 1, 6}
	want := "10 connections; per child: fewest 1, mean 3.3, most 6\n"
	if got := summary("child", counts, nil); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	want += "25 context switches, 2.5 for each connection\n"
	if got := summary("child", counts, []int64{5, 20, 0}); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	want = "0 connections; per child: fewest 0, mean 0.0, most 0\n7 context switches\n"
	if got := summary("child", []int64{0}, []int64{7}); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
