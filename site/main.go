// Site makes pages of the guide: each chapter with its words and its code side by side. It serves
// them on a loopback port, or writes them as files. It reads the chapters and the sources as
// they are; nothing is written twice.
//
//	go run -C site .
//	go run -C site . -o DIR
package main

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// write writes the pages below a directory.
func write(pages map[string][]byte, dir string) error {
	for name, page := range pages {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(name, page, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// handler serves the pages.
func handler(pages map[string][]byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
		if _, is := pages[path.Join(name, "index.html")]; is {
			if name != "" && !strings.HasSuffix(r.URL.Path, "/") {
				http.Redirect(w, r, "/"+name+"/", http.StatusMovedPermanently) // or relative links lead elsewhere
				return
			}
			name = path.Join(name, "index.html")
		}
		page, is := pages[name]
		if !is {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(page))
	})
}

func run(root fs.FS, port int, dir string) error {
	pages, err := build(root)
	if err != nil {
		return err
	}
	if dir != "" {
		return write(pages, dir)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	fmt.Printf("http://%v/\n", l.Addr())
	return http.Serve(l, handler(pages))
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("site: ")
	port := flag.Int("p", 6060, "port to serve on, 0 for any that is free")
	dir := flag.String("o", "", "write the pages into this directory, and do not serve")
	flag.Parse()
	if flag.NArg() > 0 {
		log.Fatalf("unexpected argument %q", flag.Arg(0))
	}
	if _, err := os.Stat("../server00/main.go"); err != nil {
		log.Fatal("it reads the collection in the directory above, so run it with: go run -C site .")
	}
	if err := run(os.DirFS(".."), *port, *dir); err != nil {
		log.Fatal(err)
	}
}
