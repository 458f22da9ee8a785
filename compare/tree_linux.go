package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// sample returns how many processes and threads a process and its descendants are,
// and their proportional resident set in MiB (proc(5), smaps_rollup).
func sample(pid int) (processes, threads int, memory float64) {
	dir := fmt.Sprintf("/proc/%d", pid)
	tasks, err := filepath.Glob(dir + "/task/[0-9]*")
	if err != nil || len(tasks) == 0 {
		return 0, 0, 0 // it has ended meanwhile
	}
	processes, threads = 1, len(tasks)
	rollup, _ := os.ReadFile(dir + "/smaps_rollup")
	if _, after, ok := strings.Cut(string(rollup), "\nPss:"); ok {
		kib, _ := strconv.ParseFloat(strings.Fields(after)[0], 64)
		memory = kib / 1024
	}
	// All servers here start their children from the first thread.
	children, _ := os.ReadFile(fmt.Sprintf("%s/task/%d/children", dir, pid))
	for _, child := range strings.Fields(string(children)) {
		childPID, _ := strconv.Atoi(child)
		p, t, m := sample(childPID)
		processes, threads, memory = processes+p, threads+t, memory+m
	}
	return processes, threads, memory
}
