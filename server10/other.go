//go:build !linux

package main

import "log"

func main() {
	log.SetFlags(0)
	log.SetPrefix("server10: ")
	log.Fatal("io_uring is Linux's own; the portable one is server06, with poll")
}
