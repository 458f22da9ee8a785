package guide

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"iter"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"csdesign/test/contract"
)

var (
	update  = flag.Bool("update", false, "put fresh outputs into the guide")
	measure = flag.Bool("measure", false, "run the blocks that measure, too")
)

// patience is how long a block may take.
const patience = 10 * time.Minute

// chapters returns the README.md files, by their paths from the root.
func chapters(t *testing.T) (paths []string) {
	t.Helper()
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(strings.TrimSpace(string(root)))
	for _, pattern := range []string{"README.md", "*/README.md", "*/*/README.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, found...)
	}
	return paths
}

// A block of the guide shows a console: commands behind "$ ", each with its output below. A line
// "..." stands for any lines. One with a line "^C" is that of another terminal: its
// command goes on while the next one runs, and then gets SIGINT.
var block = regexp.MustCompile("(?ms)^```console\n(.*?)^```$")

// inside says that this process is in namespaces of its own.
const inside = "GUIDE_INSIDE"

// sandbox are the options of unshare(1) for network, PID and mount namespaces.
var sandbox = []string{"--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"}

// TestOutputs runs the blocks of every chapter, and compares what they print. Each chapter has
// namespaces of its own: its ports, its processes and its /tmp are not those of the machine, or of
// another chapter.
func TestOutputs(t *testing.T) {
	if testing.Short() {
		t.Skip("the chapters wait now and then")
	}
	paths := chapters(t)
	if os.Getenv(inside) == "" {
		if out, err := exec.Command("go", "build", "-o", "bin/", "./...").CombinedOutput(); err != nil {
			t.Fatalf("go build: %v\n%s", err, out)
		}
		if exec.Command("unshare", append(sandbox, "true")...).Run() != nil {
			sandbox = append(sandbox, "--map-root-user") // for an ordinary user
		}
		if out, err := exec.Command("unshare", append(sandbox, "ip", "link", "set", "lo", "up")...).CombinedOutput(); err != nil {
			t.Skipf("needs namespaces: %v %s", err, out)
		}
	}
	for _, path := range paths {
		t.Run(filepath.Dir(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for name := range tools(text) {
				contract.Needs(t, name)
			}
			if os.Getenv(inside) == "" {
				t.Parallel()
				again(t)
				return
			}
			runChapter(t, path, text)
		})
	}
}

// again runs this test again, inside of namespaces.
func again(t *testing.T) {
	t.Helper()
	test := []string{os.Args[0], "-test.run=^" + strings.ReplaceAll(t.Name(), "/", "$/^") + "$", "-test.timeout=0",
		fmt.Sprintf("-update=%v", *update), fmt.Sprintf("-measure=%v", *measure)}
	// The collection itself may be in /tmp. Then it is put there again.
	script := `root=$PWD; ip link set lo up && mount -t tmpfs tmpfs /tmp &&
		case $root in /tmp/*) mkdir -p $root && mount -c --bind /proc/self/cwd $root && cd $root;; esac && exec "$@"`
	cmd := exec.Command("unshare", slices.Concat(sandbox, []string{"sh", "-c", script, "sh"}, test)...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// The test itself may be in /tmp, so it is opened before that is another directory.
	self, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd.ExtraFiles = []*os.File{self}
	cmd.Args[slices.Index(cmd.Args, os.Args[0])] = "/proc/self/fd/3"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// tools yields the programs that a chapter needs beside Go and what every system has.
func tools(text []byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, name := range []string{"strace", "ss", "ps", "pgrep", "nc", "awk", "cc", "python3", "prlimit"} {
			for _, match := range block.FindAllSubmatch(text, -1) {
				if regexp.MustCompile(`(?m)^\$ (.*[\s|;(])?` + name + ` `).Match(match[1]) {
					if !yield(name) {
						return
					}
					break
				}
			}
		}
	}
}

// measures reports whether a block measures the machine, which takes long.
func measures(block string) bool {
	return regexp.MustCompile(`(?m)^\$ .*(/compare|/million|-bench|/contract -server) `).MatchString(strings.ReplaceAll(block, "\n", " \n"))
}

// runChapter runs the blocks of a chapter.
func runChapter(t *testing.T, path string, text []byte) {
	t.Helper()
	var other *console // the one of the other terminal
	var fresh [][]byte
	for _, match := range block.FindAllSubmatch(text, -1) {
		s := newConsole(string(match[1]))
		fresh = append(fresh, nil)
		if measures(s.shown) && !*measure {
			t.Logf("not run without -measure:\n%s", s.shown)
			continue
		}
		s.index = len(fresh) - 1
		s.start(t)
		if s.interrupted {
			other = s
			s.waitFor(t)
			continue
		}
		fresh[s.index] = s.finish(t)
		if other != nil {
			syscall.Kill(-other.cmd.Process.Pid, syscall.SIGINT)
			fresh[other.index] = other.finish(t)
			other = nil
		}
	}
	if other != nil {
		t.Fatalf("nothing comes after\n%s", other.shown)
	}
	if *update {
		i := -1
		text = block.ReplaceAllFunc(text, func(old []byte) []byte {
			if i++; fresh[i] == nil {
				return old
			}
			return slices.Concat([]byte("```console\n"), fresh[i], []byte("```"))
		})
		if err := os.WriteFile(path, text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// A console is a block that is run.
type console struct {
	shown       string
	interrupted bool
	index       int
	commands    []string
	outputs     [][]string // as shown
	cmd         *exec.Cmd
	output      string // the file of the real output
}

// mark separates the outputs of two commands.
const mark = "== the next command =="

func newConsole(shown string) *console {
	s := &console{shown: shown}
	for line := range strings.Lines(shown) {
		line = strings.TrimSuffix(line, "\n")
		command, isCommand := strings.CutPrefix(line, "$ ")
		last := len(s.outputs) - 1
		switch {
		case isCommand:
			s.commands, s.outputs = append(s.commands, command), append(s.outputs, nil)
		case line == "^C":
			s.interrupted = true
			s.outputs[last] = append(s.outputs[last], line)
		default:
			s.outputs[last] = append(s.outputs[last], line)
		}
	}
	return s
}

func (s *console) start(t *testing.T) {
	t.Helper()
	script := strings.Join(s.commands, "\necho '"+mark+"'\n") + "\n"
	if s.interrupted {
		script = "exec " + script
	}
	s.output = filepath.Join(t.TempDir(), "output")
	out, err := os.Create(s.output)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s.cmd = exec.Command("bash", "-c", script)
	s.cmd.Stdout, s.cmd.Stderr = out, out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) })
}

// waitFor waits until the console has printed what it shows before the first "..." or "^C".
func (s *console) waitFor(t *testing.T) {
	t.Helper()
	end := slices.IndexFunc(s.outputs[0], func(line string) bool { return line == "..." || line == "^C" })
	want := strings.Join(append(slices.Clone(s.outputs[0][:end]), "..."), "\n")
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(s.output)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := compare(want, string(text), false); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("$ %s\nprinted\n%s\nand not yet\n%s", s.commands[0], text, want)
		}
	}
}

// finish waits for its end, compares, and returns the block with the real
// output.
func (s *console) finish(t *testing.T) (fresh []byte) {
	t.Helper()
	late := time.AfterFunc(patience, func() { syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) })
	defer late.Stop()
	var exit *exec.ExitError
	if err := s.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	text, err := os.ReadFile(s.output)
	if err != nil {
		t.Fatal(err)
	}
	real := strings.Split(string(text), mark+"\n")
	var out bytes.Buffer
	for i, command := range s.commands {
		fmt.Fprintf(&out, "$ %s\n", command)
		if i >= len(real) {
			t.Fatalf("$ %s\nwas not run: it ended with\n%s", command, text)
		}
		got := strings.TrimSuffix(real[i], "\n")
		shown := strings.Join(s.outputs[i], "\n")
		lines, err := compare(shown, got, strings.Contains(command, "trace"))
		if err != nil && *update && !s.interrupted {
			lines, err = strings.Split(got, "\n"), nil
		}
		if err != nil {
			t.Errorf("$ %s\nprinted\n%s\nand the guide shows\n%s\n%v", command, got, shown, err)
		}
		for _, line := range lines {
			if line != "" || len(lines) > 1 {
				fmt.Fprintln(&out, line)
			}
		}
	}
	return out.Bytes()
}

// compare compares the lines of an output with those that are shown, and returns what is shown
// with the real lines in it. Of a trace the system calls are compared, in their order, and
// others may come between them.
func compare(shown, real string, isTrace bool) (lines []string, err error) {
	equal := same
	if isTrace {
		equal = sameCall
	}
	rest := strings.Split(real, "\n")
	skip := isTrace
	for line := range strings.SplitSeq(shown, "\n") {
		if line == "..." || line == "^C" {
			skip = skip || line == "..."
			lines = append(lines, line)
			continue
		}
		at := slices.IndexFunc(rest, func(r string) bool { return equal(line, r) })
		if at < 0 || at > 0 && !skip {
			return nil, fmt.Errorf("this is not there: %s", line)
		}
		lines = append(lines, rest[at])
		rest, skip = rest[at+1:], isTrace
	}
	if !skip && strings.Join(rest, "") != "" {
		return nil, fmt.Errorf("this is not shown: %s", rest[0])
	}
	return lines, nil
}

var (
	number = regexp.MustCompile(`0x[0-9a-f]+|\d+(\.\d+)?`)
	bars   = regexp.MustCompile(`[█▏▎▍▌▋▊▉]+`)
	spaces = regexp.MustCompile(`\s+`)
	call   = regexp.MustCompile(`(\w+)(\(| resumed>)`)
	count  = regexp.MustCompile(`^\d+$|^\d+ connections(;| answered.*)`)
)

// same reports whether two lines have the same form: numbers may differ. What a command has
// counted, and how many connections there were, must be equal.
func same(shown, real string) bool {
	return form(shown) == form(real) && count.FindString(shown) == count.FindString(real)
}

func form(line string) string {
	line = number.ReplaceAllString(line, "0")
	line = bars.ReplaceAllString(line, " ")
	return strings.TrimSpace(spaces.ReplaceAllString(line, " "))
}

// sameCall reports whether two lines of a trace are about the same system call.
func sameCall(shown, real string) bool {
	a, b := call.FindStringSubmatch(shown), call.FindStringSubmatch(real)
	return a != nil && b != nil && a[1] == b[1] || a == nil && b == nil && same(shown, real)
}

// TestFunctions requires that a chapter tells of every function of its program, and of no
// others.
func TestFunctions(t *testing.T) {
	for _, path := range chapters(t) {
		dir := filepath.Dir(path)
		if !strings.HasPrefix(dir, "server") && dir != "client" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, match := range regexp.MustCompile("\\*\\*`(\\w+)`\\*\\*").FindAllStringSubmatch(string(text), -1) {
			told = append(told, match[1])
		}
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		var functions []string
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") || filepath.Base(file) == "other.go" {
				continue
			}
			tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range tree.Decls {
				if f, ok := decl.(*ast.FuncDecl); ok && f.Name.Name != "main" {
					functions = append(functions, f.Name.Name)
				}
			}
		}
		for _, name := range functions {
			if !slices.Contains(told, name) {
				t.Errorf("%s does not tell of %s", path, name)
			}
		}
		for _, name := range told {
			if !slices.Contains(functions, name) {
				t.Errorf("%s tells of %s, which is not there", path, name)
			}
		}
	}
}

// TestLinks requires that what the guide links to is there.
func TestLinks(t *testing.T) {
	for _, path := range chapters(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), match[1])); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}
