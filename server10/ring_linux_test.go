package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"csdesign/test/contract"
)

// draw draws a queue with three entries, and above them its head and its tail.
func draw(queue string, head, tail uint32, entry func(i uint32) string, what string) string {
	labels, row := "", ""
	for i := range uint32(3) {
		label, text := "", ""
		switch {
		case i == head && i == tail:
			label = "head, tail"
		case i == head:
			label = "head"
		case i == tail:
			label = "tail"
		}
		switch {
		case i < head:
			text = "(taken)"
		case i < tail:
			text = entry(i)
		}
		labels += fmt.Sprintf("%-15s", label)
		row += fmt.Sprintf("│ %-13s", text)
	}
	return fmt.Sprintf("%28s%s\n    %-23s%s│   %s\n", "", strings.TrimRight(labels, " "), queue, row, what)
}

// TestPicture steps a ring, and requires that the chapter shows what is in its queues.
func TestPicture(t *testing.T) {
	contract.Needs(t, "io_uring")
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, err := newRing(4)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(r.fd)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])

	calls := func(what string) string {
		return draw("queue of calls", r.callHead.Load(), r.callTail.Load(), func(i uint32) string {
			return fmt.Sprintf("%s on 9", map[uint8]string{opRecv: "recv", opSend: "send"}[r.calls[i].op])
		}, what)
	}
	results := func(what string) string {
		return draw("queue of results", r.resultHead.Load(), r.resultTail.Load(), func(i uint32) string {
			return fmt.Sprintf("%d: %d bytes", r.results[i].data, r.results[i].res)
		}, what)
	}
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	var steps []string
	do(r.add(call{op: opRecv, how: selectBuffer, fd: int32(pair[0]), data: 9}))
	steps = append(steps, calls("1. add writes the entry, moves the tail"))
	do(r.enter(0))
	steps = append(steps, calls("2. the kernel takes it, moves the head"))
	_, err = unix.Write(pair[1], []byte("3000\n"))
	do(err)
	do(r.submit(time.Minute))
	steps = append(steps, results("3. the kernel writes, when 5 bytes have come"))
	if _, ok := r.next(); !ok {
		t.Fatal("there is no result")
	}
	steps = append(steps, results("4. next reads it, moves the head"))
	do(r.add(call{op: opSend, fd: int32(pair[0]), data: 9}))
	steps = append(steps, calls("5. add writes the next call"))

	chapter, err := os.ReadFile("README.md")
	do(err)
	if picture := strings.Join(steps, "\n"); !strings.Contains(string(chapter), picture) {
		t.Errorf("the chapter does not show\n%s", picture)
	}
}
