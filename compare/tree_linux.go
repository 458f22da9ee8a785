package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

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
	// All servers here start their children from the main thread.
	children, _ := os.ReadFile(fmt.Sprintf("%s/task/%d/children", dir, pid))
	for _, child := range strings.Fields(string(children)) {
		childPID, _ := strconv.Atoi(child)
		for name, value := range sample(childPID) {
			f[name] += value
		}
	}
	return f
}
