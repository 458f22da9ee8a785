// Package exercises checks that the exercises of the chapters show what their answers say. For each
// exercise there is a patch with the change that it asks for. Above the change stand a command, and
// how its output differs after the change.
package exercises

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"csdesign/test/contract"
)

var update = flag.Bool("update", false, "put fresh outputs into the answers")

// TestMain lets more exercises run at the same time than there are processors, because many of them
// wait, but not as many as would slow down the tests of other packages.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	os.Exit(m.Run())
}

// An exercise is a patch, and a command. Its output matches a pattern only after the change
// (Shows), or has a number there that the change makes larger (More) or smaller (Less) by a third
// and more, or leaves within a half and twice (Same).
type exercise struct {
	name, chapter, run, differs string
	alone                       bool // it does not run beside others, because it looks at the Go runtime
	pattern                     *regexp.Regexp
	answer                      *regexp.Regexp // where the chapter shows the outputs
}

// exercises reads the patches.
func exercises(t *testing.T) (all []exercise) {
	t.Helper()
	patches, err := filepath.Glob("*.patch")
	if err != nil || len(patches) == 0 {
		t.Fatalf("there are no patches, %v", err)
	}
	for _, patch := range patches {
		text, err := os.ReadFile(patch)
		if err != nil {
			t.Fatal(err)
		}
		e := exercise{name: strings.TrimSuffix(patch, ".patch")}
		header, _, _ := strings.Cut(string(text), "\n\n")
		for line := range strings.SplitSeq(header, "\n") {
			switch key, value, _ := strings.Cut(line, ": "); key {
			case "Chapter":
				e.chapter = value
			case "Run":
				e.run = value
			case "Alone":
				e.alone = true
			case "Shows", "More", "Less", "Same":
				e.differs, e.pattern = key, regexp.MustCompile(value)
			default:
				t.Fatalf("%s: %s is not a field", patch, key)
			}
		}
		command := regexp.QuoteMeta(e.run)
		e.answer = regexp.MustCompile(`( *)\$ ` + command + "\n([^`]*?) *\\$ git apply test/exercises/" + patch + `\n *\$ ` + command + "\n([^`]*?) *```\n")
		all = append(all, e)
	}
	return all
}

// check compares the outputs before and after the change.
func (e exercise) check(before, after string) error {
	if e.differs == "Shows" {
		switch {
		case e.pattern.MatchString(before):
			return fmt.Errorf("shows %v before the change, too", e.pattern)
		case !e.pattern.MatchString(after):
			return fmt.Errorf("does not show %v after the change", e.pattern)
		}
		return nil
	}
	var figures [2]float64
	for i, out := range []string{before, after} {
		match := e.pattern.FindStringSubmatch(out)
		if match == nil {
			return fmt.Errorf("does not show %v", e.pattern)
		}
		figures[i], _ = strconv.ParseFloat(match[1], 64)
	}
	old, new := figures[0], figures[1]
	if good := map[string]bool{"More": new > old*4/3, "Less": new < old*3/4, "Same": new > old/2 && new < old*2}; !good[e.differs] {
		return fmt.Errorf("%v before the change and %v after it, want %s", old, new, e.differs)
	}
	return nil
}

// readChapter returns what a chapter says.
func readChapter(t *testing.T, chapter string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", chapter, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// shown returns the outputs that the chapter shows, before the change and after it.
func (e exercise) shown(t *testing.T) (before, after string) {
	t.Helper()
	match := e.answer.FindSubmatch(readChapter(t, e.chapter))
	if match == nil {
		t.Fatalf("the chapter of %s does not show what comes out", e.chapter)
	}
	indent := regexp.MustCompile("(?m)^" + string(match[1]))
	return string(indent.ReplaceAll(match[2], nil)), string(indent.ReplaceAll(match[3], nil))
}

// TestAnswers requires that each exercise of a chapter has an answer, with outputs that show what
// the exercise is about.
func TestAnswers(t *testing.T) {
	count := map[string]int{}
	for _, e := range exercises(t) {
		count[e.chapter]++
		if err := e.check(e.shown(t)); err != nil {
			t.Errorf("%s: the answer in %s %v", e.name, e.chapter, err)
		}
	}
	for chapter, n := range count {
		_, section, _ := bytes.Cut(readChapter(t, chapter), []byte("\n## Exercises\n"))
		section, _, _ = bytes.Cut(section, []byte("\n## "))
		asked, answered := len(regexp.MustCompile(`(?m)^\d+\. `).FindAll(section, -1)), bytes.Count(section, []byte("<details>"))
		if asked != n || answered != n {
			t.Errorf("%s has %d exercises and %d answers, and there are %d patches", chapter, asked, answered, n)
		}
	}
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
		case name == ".git" || name == "bin" || name == "site":
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

// command runs a command of the shell, and returns what it has printed.
func command(dir, text string) string {
	run := exec.Command("/bin/sh", "-c", text)
	run.Dir = dir
	// What has been built in another directory is used again, and no debugger needs it.
	run.Env = append(os.Environ(), "GOFLAGS=-trimpath -ldflags=-w")
	out, err := run.CombinedOutput()
	if len(out) == 0 && err != nil {
		return err.Error()
	}
	return string(out)
}

// put puts outputs into the chapter. Of lines that differ in their numbers alone it keeps two.
func (e exercise) put(t *testing.T, before, after string) {
	t.Helper()
	text := readChapter(t, e.chapter)
	at := e.answer.FindSubmatchIndex(text)
	if at == nil {
		t.Fatalf("the chapter of %s has no room for it", e.chapter)
	}
	indent := string(text[at[2]:at[3]])
	shown := func(out string) (block []byte) {
		digits, last, times := regexp.MustCompile(`\d+`), "", 0
		for line := range strings.SplitSeq(strings.TrimSpace(out), "\n") {
			if times++; digits.ReplaceAllString(line, "0") != last {
				last, times = digits.ReplaceAllString(line, "0"), 1
			}
			switch {
			case times < 3:
				block = append(block, strings.TrimRight(indent+line, " ")+"\n"...)
			case times == 3:
				block = append(block, indent+"...\n"...)
			}
		}
		return block
	}
	text = bytes.Join([][]byte{text[:at[4]], shown(before), text[at[5]:at[6]], shown(after), text[at[7]:]}, nil)
	if err := os.WriteFile(filepath.Join("../..", e.chapter, "README.md"), text, 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestExercises makes the changes, each in a copy of its own, and runs the commands. What comes out
// without the change is what the chapter shows; with -update the command is run for that, too.
func TestExercises(t *testing.T) {
	if testing.Short() {
		t.Skip("each exercise builds the collection")
	}
	contract.Needs(t, "git")
	same := t.TempDir() // where nothing is changed
	if *update {
		copyCollection(t, same)
	}
	for _, e := range exercises(t) {
		t.Run(e.name, func(t *testing.T) {
			if !e.alone && !*update {
				t.Parallel()
			}
			if e.chapter == "server10" {
				contract.Needs(t, "io_uring")
			}
			for option, name := range map[string]string{"-calls ": "strace", "ss -": "ss"} {
				if strings.Contains(e.run, option) {
					contract.Needs(t, name)
				}
			}
			dir := t.TempDir()
			copyCollection(t, dir)
			before, after := e.shown(t)
			var err error
			for range 3 { // a figure may be wrong on a busy machine
				if *update {
					before = command(same, e.run)
				}
				if out := command(dir, "git apply test/exercises/"+e.name+".patch && echo applied"); out != "applied\n" {
					t.Fatalf("git apply: %s", out)
				}
				after = command(dir, e.run)
				if err = e.check(before, after); err == nil {
					break
				}
				command(dir, "git apply -R test/exercises/"+e.name+".patch")
			}
			if err != nil {
				t.Fatalf("it %v:\n%s\nand after the change\n%s", err, before, after)
			}
			if *update {
				e.put(t, before, after)
			}
		})
	}
}
