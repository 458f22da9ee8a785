//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
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
	for _, task := range tasks {
		children, _ := os.ReadFile(task + "/children")
		for _, child := range strings.Fields(string(children)) {
			childPID, _ := strconv.Atoi(child)
			for name, value := range sample(childPID) {
				f[name] += value
			}
		}
	}
	return f
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
