//go:build !linux

package main

import "log"

func main() {
	log.SetFlags(0)
	log.SetPrefix("server09a: ")
	log.Fatal("epoll is Linux's own; a portable server with threads is server08a")
}
