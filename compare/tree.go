//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// interval is how often a process tree is looked at. To sum up the memory of a pool takes
// the system some milliseconds, which the servers lack.
const interval = 50 * time.Millisecond

// watch looks at a process tree, again and again, until stop is called. Then the peaks are
// in f.
func (f figures) watch(pid int) (stop func()) {
	end, ended := make(chan bool), make(chan bool)
	go func() {
		defer close(ended)
		for {
			for name, value := range sample(pid) {
				f[name] = max(f[name], value)
			}
			select {
			case <-time.After(interval):
			case <-end:
				return
			}
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

var attributes = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

// sample returns the number of processes and threads that a process and its descendants
// are, and their proportional resident set in MiB (proc(5), smaps_rollup).
func sample(pid int) figures {
	dir := fmt.Sprintf("/proc/%d", pid)
	tasks, err := filepath.Glob(dir + "/task/[0-9]*")
	if err != nil || len(tasks) == 0 {
		return nil // it has ended
	}
	f := figures{"processes": 1, "threads": float64(len(tasks))}
	rollup, _ := os.ReadFile(dir + "/smaps_rollup")
	if _, after, ok := strings.Cut(string(rollup), "\nPss:"); ok {
		kib, _ := strconv.ParseFloat(strings.Fields(after)[0], 64)
		f["memory_mib"] = kib / 1024
	}
	for _, child := range childrenOf(tasks) {
		for name, value := range sample(child) {
			f[name] += value
		}
	}
	return f
}

// childrenOf returns the children that threads have started.
func childrenOf(tasks []string) (pids []int) {
	for _, task := range tasks {
		children, _ := os.ReadFile(task + "/children")
		for _, child := range strings.Fields(string(children)) {
			pid, _ := strconv.Atoi(child)
			pids = append(pids, pid)
		}
	}
	return pids
}

var switchesLine = regexp.MustCompile(`(?m)^voluntary_ctxt_switches:\t(\d+)$`)

// soFar returns what a process and its descendants that run have used up to now.
func soFar(pid int) (u used) {
	var clock unix.Timespec
	if unix.ClockGettime(int32(^pid<<3|2), &clock) == nil { // its CPU time, see clock_getcpuclockid(3)
		u.cpu = time.Duration(clock.Nano())
	}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/[0-9]*", pid))
	for _, task := range tasks {
		status, _ := os.ReadFile(task + "/status")
		if match := switchesLine.FindSubmatch(status); match != nil {
			n, _ := strconv.ParseInt(string(match[1]), 10, 64)
			u.switches += n
		}
	}
	for _, child := range childrenOf(tasks) {
		c := soFar(child)
		u.cpu, u.switches = u.cpu+c.cpu, u.switches+c.switches
	}
	return u
}

// slab returns the memory that the kernel uses for its objects, such as sockets, in bytes
// (proc(5), meminfo).
func slab() (bytes float64) {
	text, _ := os.ReadFile("/proc/meminfo")
	if _, after, ok := strings.Cut(string(text), "\nSlab:"); ok {
		bytes, _ = strconv.ParseFloat(strings.Fields(after)[0], 64)
	}
	return bytes * 1024
}
