package main

import (
	"go/ast"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// manual returns the man page of a system call, by the name that x/sys/unix gives it.
func manual(name string) (page link, is bool) {
	var snake strings.Builder
	for i, r := range name {
		if unicode.IsUpper(r) && i > 0 {
			snake.WriteByte('_')
		}
		snake.WriteRune(unicode.ToLower(r))
	}
	call := snake.String()
	for prefix, name := range map[string]string{"setsockopt": "setsockopt", "getsockopt": "getsockopt", "ioctl": "ioctl", "fcntl": "fcntl", "set_nonblock": "fcntl", "close_on_exec": "fcntl", "sendmsg": "sendmsg"} {
		if strings.HasPrefix(call, prefix) {
			call = name
		}
	}
	section := "2"
	if call == "pthread_sigmask" {
		section = "3"
	}
	if !strings.Contains(calls, " "+call+" ") {
		return link{}, false
	}
	return link{call + "(" + section + ")", "https://man7.org/linux/man-pages/man" + section + "/" + call + "." + section + ".html"}, true
}

// calls are the system calls that have a man page under that name.
const calls = " accept accept4 bind close connect epoll_create1 epoll_ctl epoll_wait eventfd fcntl getrlimit getrusage getsockname " +
	"getsockopt gettid getpeername ioctl kill listen memfd_create mmap munmap pipe pipe2 poll ppoll prctl pthread_sigmask read recvmsg select " +
	"sendmsg sendto sendfile setrlimit setsockopt shutdown signalfd socket socketpair splice tgkill wait4 waitid write clock_gettime ftruncate dup dup2 open "

// findLinks returns where the names in a file lead to, by their offset: what a package of internal
// declares to the package's page, and a system call to its man page. The system calls are also
// returned by their position.
func findLinks(set *token.FileSet, tree *ast.File, root string, packages []*pkg) (links map[int]string, calls map[token.Pos]link) {
	links, calls = map[int]string{}, map[token.Pos]link{}
	imported := map[string]string{}
	for _, i := range tree.Imports {
		path, _ := strconv.Unquote(i.Path.Value)
		imported[path[strings.LastIndex(path, "/")+1:]] = path
	}
	ast.Inspect(tree, func(node ast.Node) bool {
		selector, is := node.(*ast.SelectorExpr)
		if !is {
			return true
		}
		of, is := selector.X.(*ast.Ident)
		if !is {
			return true
		}
		name, offset := selector.Sel.Name, set.Position(selector.Sel.Pos()).Offset
		if imported[of.Name] == "golang.org/x/sys/unix" {
			if page, is := manual(name); is {
				links[offset], calls[selector.Pos()] = page.URL, page
			}
			return true
		}
		for _, p := range packages {
			if id := p.id(name); imported[of.Name] == "csdesign/internal/"+p.name && id != "" {
				links[offset] = root + "internal/" + p.name + ".html#" + id
			}
		}
		return true
	})
	return links, calls
}

// id is that of the row in which a package declares a name, or empty.
func (p *pkg) id(name string) string {
	for _, f := range p.files {
		for _, r := range f.Rows {
			if slices.Contains(r.Declares, name) {
				return r.ID
			}
		}
	}
	return ""
}
