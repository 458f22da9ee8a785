package contract

import "testing"

// A design is what the contract has to know of a server.
type design struct {
	name   string
	forks  bool   // has children
	pool   bool   // has a pool of children, as many as -n says
	keeps  bool   // keeps connections open between requests
	counts string // what it counts at the end: the connections of a "child" or a "thread"
	most   int    // the most that -n takes, 0 where there is no -n
	crowd  int    // how many connections of each of 15 clients are a crowd
}

var designs = []design{
	{name: "server01", forks: true, crowd: 20}, // as each connection starts a process
	{name: "server02", keeps: true},
	{name: "server03", forks: true, pool: true, most: 1024},
	{name: "server03a", forks: true, pool: true, most: 1024, counts: "child"},
	{name: "server04", forks: true, pool: true, most: 1000, counts: "child"},
	{name: "server05"},
	{name: "server06", keeps: true},
	{name: "server07", keeps: true},
	{name: "server08", most: 1024, counts: "thread"},
}

func TestMain(m *testing.M) {
	programs := []string{"client"}
	for _, d := range designs {
		programs = append(programs, d.name)
	}
	Main(m, programs...)
}

// Which designs a test is for.
func all(design) bool      { return true }
func forks(d design) bool  { return d.forks }
func pools(d design) bool  { return d.pool }
func keeps(d design) bool  { return d.keeps }
func counts(d design) bool { return d.counts != "" }

// each runs a test for these designs.
func each(t *testing.T, which func(design) bool, test func(t *testing.T, d design)) {
	t.Parallel()
	for _, d := range designs {
		if d.crowd == 0 {
			d.crowd = 100
		}
		if which(d) {
			t.Run(d.name, func(t *testing.T) {
				t.Parallel()
				test(t, d)
			})
		}
	}
}
