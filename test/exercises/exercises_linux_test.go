// Package exercises checks that the exercises of the chapters show what they say. For each of them
// there is a patch with the change that the exercise asks for. Above the change it says how to
// check it, and what comes out.
package exercises

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"csdesign/test/contract"
)

// An exercise is a patch.
type exercise struct {
	chapter, run string
	shows        *regexp.Regexp
}

func read(t *testing.T, path string) (e exercise) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch key {
		case "Chapter":
			e.chapter = value
		case "Run":
			e.run = value
		case "Shows":
			e.shows = regexp.MustCompile(value)
		case "":
			return e
		}
	}
	return e
}

// copyCollection copies what an exercise needs of the collection.
func copyCollection(t *testing.T, to string) {
	t.Helper()
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		switch name := entry.Name(); {
		case name == ".git" || name == "bin" || name == "site" || name == "misc":
		case entry.IsDir():
			err = os.CopyFS(filepath.Join(to, name), os.DirFS(filepath.Join("../..", name)))
		case strings.HasPrefix(name, "go."):
			var text []byte
			if text, err = os.ReadFile(filepath.Join("../..", name)); err == nil {
				err = os.WriteFile(filepath.Join(to, name), text, 0o666)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestExercises(t *testing.T) {
	if testing.Short() {
		t.Skip("each exercise builds the collection")
	}
	contract.Needs(t, "git")
	patches, err := filepath.Glob("*.patch")
	if err != nil || len(patches) == 0 {
		t.Fatalf("there are no patches, %v", err)
	}
	for _, patch := range patches {
		t.Run(strings.TrimSuffix(patch, ".patch"), func(t *testing.T) {
			t.Parallel()
			e := read(t, patch)
			if e.chapter == "server10" {
				contract.Needs(t, "io_uring")
			}
			for _, name := range []string{"strace", "pgrep"} {
				if strings.Contains(e.run, name+" ") {
					contract.Needs(t, name)
				}
			}
			chapter, err := os.ReadFile(filepath.Join("../..", e.chapter, "README.md"))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(chapter), "\n## Exercises\n") {
				t.Errorf("the chapter of %s has no exercises", e.chapter)
			}
			dir := t.TempDir()
			copyCollection(t, dir)
			path, err := filepath.Abs(patch)
			if err != nil {
				t.Fatal(err)
			}
			apply := exec.Command("git", "apply", path)
			apply.Dir = dir
			if out, err := apply.CombinedOutput(); err != nil {
				t.Fatalf("git apply: %v\n%s", err, out)
			}
			var out []byte
			for range 3 { // a figure of compare may be wrong on a busy machine
				run := exec.Command("/bin/sh", "-c", e.run)
				run.Dir = dir
				run.Env = append(os.Environ(), "GOFLAGS=-trimpath") // what has been built in another directory is used again
				if out, _ = run.CombinedOutput(); e.shows.Match(out) {
					return
				}
			}
			t.Errorf("it does not show %v:\n%s", e.shows, out)
		})
	}
}
