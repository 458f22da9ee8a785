package faults

import (
	"fmt"
	"slices"
	"strings"
)

// A row of the table is which calls fail, how, and when: the first, the second and so on that a thread
// makes. An error that is not in capital letters is one of the other things that strace can do to a call.
// close(2) is not here: it releases the descriptor whatever it returns, but strace does not make a call
// that it lets fail.
type row struct {
	calls, errors, whens string
	always               bool // not only with -all
}

var table = []row{
	{"accept4", "EMFILE EPERM EPROTO", "2", true},
	{"pselect6 ppoll", "ENOMEM", "1", true},
	{"epoll_ctl", "ENOMEM", "4", true},
	{"epoll_pwait", "EINTR", "3", true},
	{"sendmsg", "ENOBUFS EPIPE", "1", true},
	{"recvmsg", "ENOMEM", "1", true},
	{"io_uring_enter", "EAGAIN EBUSY ENOMEM", "2..5", true},
	{"read recvfrom", "ECONNRESET", "2", true},
	{"write sendto", "EPIPE", "2", true},
	{"wait4", "ECHILD", "1", true},
	{"clone", "EAGAIN", "1", true},
	{"pipe2 socketpair", "EMFILE", "2", true},
	{"getsockname", "ENOBUFS", "1", true},
	{"shutdown", "EIO", "1", true},

	{"accept4", "ENOMEM ECONNABORTED ENETDOWN EINTR EAGAIN EIO ETIMEDOUT EINVAL EBADF ENOBUFS ENOSR ESOCKTNOSUPPORT", "2", false},
	{"accept4", "ENFILE ENETUNREACH", "1..2", false},
	{"accept4", "EMFILE ENFILE ENOMEM ENOBUFS EAGAIN", "1..3 4", false},
	{"accept4", "EHOSTUNREACH EHOSTDOWN ENOPROTOOPT EOPNOTSUPP ENONET EPERM", "1", false},
	{"read recvfrom", "EINTR EIO ENOMEM EAGAIN", "2", false},
	{"read", "ETIMEDOUT EIO ECONNRESET", "1 4", false},
	{"write sendto", "EINTR EAGAIN ENOBUFS", "2", false},
	{"write", "ENOMEM ECONNRESET ETIMEDOUT", "1 4 2..6", false},
	{"wait4", "EINTR", "1", false},
	{"clone clone3", "EAGAIN", "1 2 3 4", false},
	{"clone", "ENOMEM", "4", false},
	{"openat", "ENFILE", "6", true},
	{"openat", "ENFILE EMFILE", "1 3 5 6", false},
	{"openat", "EACCES ENOMEM", "6", false},
	{"epoll_ctl", "ENOMEM", "1 2 3 5 6", false},
	{"epoll_ctl", "ENOSPC EPERM", "4", false},
	{"epoll_pwait", "EINVAL", "3", false},
	{"pselect6 ppoll", "EINTR EAGAIN", "1 3", false},
	{"ioctl", "EIO", "1 2..9", false},
	{"shutdown", "ENOTCONN", "1", false},
	{"sendmsg", "EAGAIN ENOMEM ETOOMANYREFS EINTR", "1 2..3", false},
	{"sendmsg", "ENOBUFS EPIPE", "2..3", false},
	{"recvmsg", "EINTR ECONNRESET EMFILE", "1 2", false},
	{"io_uring_enter", "EINTR EAGAIN EBUSY ENOMEM EBADR", "1 3", false},
	{"fcntl", "ENOLCK", "4 7 14 16", false},
	{"pipe2 socketpair", "EMFILE ENFILE", "1 2 3", false},
	{"socket bind listen getsockname", "EMFILE EADDRINUSE", "1 2", false},
	{"setsockopt", "ENOMEM", "1 2 3 4 5 6 7", false},
	{"memfd_create ftruncate io_uring_setup io_uring_register", "ENOMEM EMFILE EPERM ENOSYS EINTR", "1", false},
	{"eventfd2 epoll_create1", "EMFILE", "1 2 3", false},
	{"prctl kill getsockopt", "EPERM", "1 2", false},
	{"dup3 prlimit64 getdents64", "EMFILE EPERM", "1 2", false},
	{"mmap", "ENOMEM", "1 22 24 26", false},
	{"rt_sigaction getrandom", "EINVAL", "1 3", false},
	{"accept4 read write epoll_pwait pselect6 ppoll recvmsg sendmsg io_uring_enter clone close", "signal=SIGTERM", "3", false},
	{"accept4 read write epoll_pwait pselect6 ppoll recvmsg sendmsg io_uring_enter", "signal=SIGCHLD", "3", false},
	{"clone execve wait4 openat socketpair sendmsg", "delay_enter=300000", "1", false},
	{"accept4 read write", "delay_enter=300000 delay_exit=300000", "2", false},
}

// A fault is a case of the table, for a server that makes the call.
type fault struct {
	server, call, how, when string
}

func (f fault) String() string { return fmt.Sprintf("%s:%s:when=%s", f.call, f.how, f.when) }

// errno returns the error that the call returns, or "".
func (f fault) errno() string {
	name, _ := strings.CutPrefix(f.how, "error=")
	return name
}

// faults returns the cases of a server, which makes each call that often without a fault, at most, in one
// thread.
func faults(server string, counts map[string]int, all bool) (cases []fault) {
	for _, r := range table {
		for _, call := range strings.Fields(r.calls) {
			for _, how := range strings.Fields(r.errors) {
				for _, when := range strings.Fields(r.whens) {
					if strings.ToUpper(how) == how {
						how = "error=" + how
					}
					f := fault{server, call, how, when}
					var first int
					fmt.Sscan(when, &first)
					if (r.always || all) && counts[call] >= first && f.impossible() == "" && !slices.Contains(cases, f) {
						cases = append(cases, f)
					}
				}
			}
		}
	}
	return cases
}

// impossible says why the kernel would never do that.
func (f fault) impossible() string {
	forks := strings.HasPrefix(f.server, "server01") || strings.HasPrefix(f.server, "server03") || f.server == "server04" || f.server == "server09"
	switch {
	case f.server == "server05a" && (slices.Contains([]string{"mmap", "getrandom", "prlimit64"}, f.call) || f.call == "read" && f.when == "1"):
		return "the loader of the C library makes the first of these calls"
	case f.server == "server05a" && f.call == "accept4" && f.errno() == "EAGAIN":
		return "the epoll of the Go runtime is edge-triggered: it does not report again a client of whom accept has said that it is not there"
	case forks && f.call == "read" && f.when == "4":
		return "package syscall reads from a pipe whether an exec has failed; that read does not fail"
	}
	return ""
}
