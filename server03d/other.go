//go:build !linux

package main

import "log"

func main() {
	log.SetFlags(0)
	log.SetPrefix("server03d: ")
	log.Fatal("epoll is Linux's own; the portable one is server03b, with poll")
}
