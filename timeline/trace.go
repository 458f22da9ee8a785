//go:build linux

package main

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A call is a system call: of which thread, when, and on which connection.
type call struct {
	thread     int
	name, args string
	result     string
	begin, end time.Duration // from the begin of the scenario
	port       int           // of the client, or 0
}

// works is how long a call takes, under strace, that does not wait.
const works = 2 * time.Millisecond

func (c call) waits() bool { return c.end-c.begin > works }

// A row is a process, or a thread, of the picture.
type row struct {
	name  string
	calls []call
}

var (
	traceLine = regexp.MustCompile(`^(\d+) +(\d+\.\d+) (?:<\.\.\. )?(\w+)(\(| resumed>)(.*)$`)
	traceEnd  = regexp.MustCompile(`^(.*)\) += (.*) <([\d.]+)>$`)
	ofClient  = regexp.MustCompile(`<TCP:\[127\.0\.0\.1:\d+->127\.0\.0\.1:(\d+)\]>`)
	ofSocket  = regexp.MustCompile(`^\d+<(TCP|UNIX)|^\d+<anon_inode:\[io_uring\]>`)
	program   = regexp.MustCompile(`\["[^"]*?(?:: (child \d+))?"`)
)

// read reads what strace has written: one line for a call, or two if another thread made a call meanwhile.
func (s *scene) read(text string, begin time.Time) {
	open := map[int]call{}
	for line := range strings.Lines(text) {
		match := traceLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if match == nil {
			continue
		}
		thread, _ := strconv.Atoi(match[1])
		seconds, _ := strconv.ParseFloat(match[2], 64)
		at := time.UnixMicro(int64(seconds * 1e6)).Sub(begin)
		c := call{thread: thread, name: match[3], begin: at}
		if match[4] != "(" {
			c = open[thread]
			delete(open, thread)
		}
		rest, cut := strings.CutSuffix(match[5], " <unfinished ...>")
		end := traceEnd.FindStringSubmatch(rest)
		if cut || end == nil {
			c.args += rest
			c.end, c.result = s.length, "?"
			open[thread] = c
			continue
		}
		took, _ := strconv.ParseFloat(end[3], 64)
		c.args, c.result, c.end = c.args+end[1], end[2], c.begin+time.Duration(took*1e9)
		s.calls = append(s.calls, c)
	}
	for _, c := range open { // those that had not returned when the server was killed
		s.calls = append(s.calls, c)
	}
	slices.SortStableFunc(s.calls, func(a, b call) int { return cmp.Compare(a.begin, b.begin) })
	for i := range s.calls {
		c := &s.calls[i]
		if match := ofClient.FindStringSubmatch(c.args + " " + c.result); match != nil {
			c.port, _ = strconv.Atoi(match[1])
		}
	}
	s.arrange()
}

// arrange puts the calls of the scenario into rows. A goroutine may go on in another thread, so threads of a
// process whose calls do not overlap share a row.
func (s *scene) arrange() {
	process, names, all := map[int]int{}, map[int]string{}, map[int]bool{}
	for _, c := range s.calls {
		all[c.thread] = true
		id, err := strconv.Atoi(c.result)
		switch {
		case err == nil && strings.HasPrefix(c.name, "clone") && strings.Contains(c.args, "CLONE_THREAD"):
			process[id] = c.thread
		case err == nil && strings.HasPrefix(c.name, "clone"):
			process[id] = id
			names[id] = fmt.Sprintf("child %d", len(names)-1)
		case c.name == "execve" && c.result == "0":
			process[c.thread], names[c.thread] = c.thread, s.design.name
			if match := program.FindStringSubmatch(c.args); match != nil && match[1] != "" {
				names[c.thread] = match[1]
			}
		}
	}
	owner := func(thread int) int {
		for process[thread] != thread && process[thread] != 0 {
			thread = process[thread]
		}
		return thread
	}
	drawn, touches := map[int][]call{}, map[int]bool{}
	var order []int
	for _, c := range s.calls {
		if c.end < 0 || c.begin > s.length || !s.shows(c) {
			continue
		}
		c.begin, c.end = max(0, c.begin), min(s.length, c.end)
		if drawn[c.thread] == nil {
			order = append(order, c.thread)
		}
		drawn[c.thread] = append(drawn[c.thread], c)
		touches[c.thread] = touches[c.thread] || ofSocket.MatchString(c.args) || strings.Contains(c.args, "F_SETLKW")
	}
	order = slices.DeleteFunc(order, func(thread int) bool { return !touches[thread] })
	s.others = len(all) - len(order)
	isChild := func(thread int) int { return strings.Count(names[owner(thread)], "child ") }
	slices.SortStableFunc(order, func(a, b int) int { // the parent first
		return cmp.Or(cmp.Compare(isChild(a), isChild(b)), cmp.Compare(names[owner(a)], names[owner(b)]))
	})
	rowOf := map[int][]int{} // by process
	for _, thread := range order {
		p := owner(thread)
		i := slices.IndexFunc(rowOf[p], func(i int) bool { return !overlap(s.rows[i].calls, drawn[thread]) })
		if i >= 0 {
			r := &s.rows[rowOf[p][i]]
			r.calls = append(r.calls, drawn[thread]...)
			continue
		}
		rowOf[p] = append(rowOf[p], len(s.rows))
		name := names[p]
		if n := len(rowOf[p]); n > 1 {
			name = fmt.Sprintf("thread %d", n)
		}
		s.rows = append(s.rows, row{name, drawn[thread]})
	}
}

func overlap(a, b []call) bool {
	for _, c := range a {
		for _, d := range b {
			if c.begin < d.end && d.begin < c.end {
				return true
			}
		}
	}
	return false
}

// shows reports whether a call belongs into the picture: those on sockets, those in which a design waits, and the
// start and end of children.
func (s *scene) shows(c call) bool {
	switch c.name {
	case "accept4", "sendmsg", "recvmsg", "pselect6", "poll", "ppoll", "io_uring_enter":
		return true
	case "epoll_pwait": // the Go runtime has one, too
		return s.design.waits == "epoll_pwait"
	case "read", "recvfrom", "write", "sendto", "close", "shutdown":
		return c.port != 0
	case "fcntl":
		return strings.Contains(c.args, "F_SETLKW,") && strings.Contains(c.args, "F_WRLCK")
	case "clone", "clone3":
		return !strings.Contains(c.args, "CLONE_THREAD")
	case "wait4":
		return c.result != "0" && !strings.HasPrefix(c.result, "-1")
	}
	return false
}
