package contract

import (
	"flag"
	"fmt"
	"runtime"
	"testing"
	"time"
)

// A design is what the contract has to know of a server.
type design struct {
	name   string
	alone  bool   // serves one client at a time: the others wait, whatever it does
	forks  bool   // has children
	copies bool   // and they are copies of their parent, with all that it has
	pool   int    // has a pool of children, of this size without -n
	queues bool   // each child has a queue of its own, whose clients wait while there is no child
	keeps  bool   // keeps connections open between requests
	counts string // what it counts at the end: the connections of a "child" or a "thread"
	most   int    // the most that -n takes, 0 where there is no -n
	crowd  int    // how many connections of each of 15 clients are a crowd, 30 if it is 0
	short  bool   // is tested with -short, too
}

var designs = []design{
	{name: "server00", alone: true},
	{name: "server01", forks: true, crowd: 5}, // as each connection starts a process
	{name: "server01a", forks: true, copies: true, crowd: 10},
	{name: "server02", keeps: true},
	{name: "server03", forks: true, pool: 10, most: 1024},
	{name: "server03a", short: true, forks: true, pool: 10, most: 1024, counts: "child"},
	{name: "server03b", forks: true, pool: 10, most: 1024, counts: "child"},
	{name: "server03c", forks: true, pool: 10, most: 1024, counts: "child"},
	{name: "server03d", forks: true, pool: 10, most: 1024, counts: "child"},
	{name: "server04", forks: true, pool: 10, most: 1000, counts: "child"},
	{name: "server05"},
	{name: "server05a", short: true},
	{name: "server06", keeps: true},
	{name: "server07", short: true, keeps: true},
	{name: "server08", most: 1024, counts: "thread"},
	{name: "server08a", most: 1024, counts: "thread"},
	{name: "server09", forks: true, pool: runtime.NumCPU(), most: 1024, counts: "child", queues: true, keeps: true},
	{name: "server09a", most: 1024, counts: "thread", keeps: true},
	{name: "server10", short: true, keeps: true},
}

// needs skips a test of a design that the system does not allow.
func (d design) needs(t testing.TB) {
	t.Helper()
	if d.name == "server10" {
		Needs(t, "io_uring")
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	if *yours != "" {
		if flag.Lookup("test.run").Value.String() == "" {
			flag.Set("test.run", "^TestYourServer$")
		}
		Patience = 10 * time.Second
		Main(m)
	}
	programs := []string{"client"}
	for _, d := range designs {
		programs = append(programs, d.name)
	}
	Main(m, programs...)
}

// Which designs a test is for.
func all(design) bool      { return true }
func forks(d design) bool  { return d.forks }
func pools(d design) bool  { return d.pool > 0 }
func keeps(d design) bool  { return d.keeps }
func counts(d design) bool { return d.counts != "" }

// few is the size of a small pool.
const few = 3

// few returns the options for a small pool.
func (d design) few() []string {
	if d.most == 0 {
		return nil
	}
	return []string{"-n", fmt.Sprint(few)}
}

// each runs a test for these designs.
func each(t *testing.T, which func(design) bool, test func(t *testing.T, d design)) {
	t.Parallel()
	for _, d := range designs {
		if d.crowd == 0 {
			d.crowd = 30
		}
		if which(d) && (d.short || !testing.Short()) {
			t.Run(d.name, func(t *testing.T) {
				t.Parallel()
				d.needs(t)
				test(t, d)
			})
		}
	}
}
