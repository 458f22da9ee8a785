package contract

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// statistics ends a server that counts, and returns the counts that it prints.
func statistics(t *testing.T, s *server) (counts []int) {
	t.Helper()
	s.signal(unix.SIGINT)
	if status := s.status(); status != 0 {
		t.Errorf("exit status %d", status)
	}
	lines := strings.Split(strings.TrimSuffix(s.stdout.String(), "\n"), "\n")
	form := regexp.MustCompile(`^child (\d+) *: (\d+) times$`)
	sum, fewest, most := 0, -1, 0
	var want []string
	for _, line := range lines {
		match := form.FindStringSubmatch(line)
		if match == nil {
			continue
		}
		count := number(t, match[2])
		want = append(want, fmt.Sprintf("child %-2d: %d times", len(counts), count))
		counts = append(counts, count)
		sum, most = sum+count, max(most, count)
		if fewest < 0 || count < fewest {
			fewest = count
		}
	}
	mean := float64(sum) / float64(len(counts))
	want = append(want, "", fmt.Sprintf("%d connections; per child: fewest %d, mean %.1f, most %d", sum, fewest, mean, most))
	want = append([]string{""}, want...)
	if got := lines[max(0, len(lines)-len(want)):]; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("it ends with\n%q\nwant\n%q", got, want)
	}
	return counts
}

func TestStatistics(t *testing.T) {
	t.Parallel()
	s := serve(t, "server03a")
	for range 4 { // more than 256 for each child
		crowd(s)
	}
	counts := statistics(t, s)
	if len(counts) != 10 {
		t.Fatalf("%d children", len(counts))
	}
	sum := 0
	for index, count := range counts {
		sum += count
		if count < 60 { // of 600 on average
			t.Errorf("child %d has stood idle: %d times", index, count)
		}
	}
	if sum != 6000 {
		t.Errorf("%d connections counted, want 6000", sum)
	}
}

func TestStatisticsOfManyChildren(t *testing.T) {
	t.Parallel()
	s := serve(t, "server03a", "-n", "101")
	if counts := statistics(t, s); len(counts) != 101 {
		t.Errorf("%d children", len(counts))
	}
}

func TestReplacedChildrenKeepTheirCount(t *testing.T) {
	t.Parallel()
	s := serve(t, "server03a", "-n", "3")
	var children []int
	for range 3 {
		children = s.poolOf(3, children)
		crowd(s)
		for _, pid := range children {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.poolOf(3, children)
	sum := 0
	for _, count := range statistics(t, s) {
		sum += count
	}
	if sum != 4500 {
		t.Errorf("%d connections counted, want 4500", sum)
	}
}
