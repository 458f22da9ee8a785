//go:build !linux

package main

import "syscall"

var attributes = &syscall.SysProcAttr{Setpgid: true}

// sample knows nothing without /proc.
func sample(int) figures { return nil }
