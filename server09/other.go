//go:build !linux

package main

import "log"

func main() {
	log.SetFlags(0)
	log.SetPrefix("server09: ")
	log.Fatal("epoll is Linux's own; the portable one is server03, without it")
}
