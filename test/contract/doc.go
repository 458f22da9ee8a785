// Package contract tests the built programs from outside, with real processes, sockets and
// signals. Its tests are what every server promises. What one program promises alone is
// tested beside that program, with the functions of this package. They need /proc, so all of
// them run on Linux.
package contract
