// Package faults makes the system calls of each server fail, one at a time, and looks what comes of it.
package faults
