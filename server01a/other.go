//go:build !linux

package main

import "log"

func main() {
	log.SetFlags(0)
	log.SetPrefix("server01a: ")
	log.Fatal("clone(2), as it is called here, is Linux's own; the portable one is server01, with an exec")
}
