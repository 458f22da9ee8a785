// Package contract holds the tests of the built programs: what every server
// promises, written once, and what one of them or the client promises alone. They
// need /proc, so they run on Linux.
package contract
