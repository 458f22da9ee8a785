// Test runs all tests, as go test ./... does, and says at the end which were skipped, and why. go test does
// not say that without -v. It also does not run a test again while the sources are the same, even if what was
// missing on the machine is there now; so Test has all run. Its arguments are those of go test: go run ./test -short
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// An event is what go test -json prints (go doc test2json).
type event struct {
	Action, Package, Test, Output string
}

// need matches what a test says that the machine cannot run.
var need = regexp.MustCompile(`^ +\S+\.go:\d+: (needs .*)\n$`)

// report prints what go test prints without -v, and returns how many tests of a package were skipped
// for the same reason.
func report(events io.Reader, out io.Writer) (skipped map[string]int, err error) {
	outputs, skipped := map[string]string{}, map[string]int{} // by package and test
	for decoder := json.NewDecoder(events); ; {
		var e event
		if err := decoder.Decode(&e); err == io.EOF {
			return skipped, nil
		} else if err != nil {
			return nil, fmt.Errorf("go test -json: %w", err)
		}
		key := e.Package + " " + e.Test
		switch {
		case e.Action == "build-output", e.Action == "output" && e.Test == "" && e.Output != "PASS\n":
			if !strings.Contains(e.Output, "[no test files]") && !strings.HasPrefix(e.Output, "coverage:") {
				fmt.Fprint(out, e.Output)
			}
		case e.Action == "output":
			if match := need.FindStringSubmatch(e.Output); match != nil {
				skipped[e.Package+" "+match[1]]++
			}
			if !strings.HasPrefix(e.Output, "=== ") {
				outputs[key] += e.Output
			}
		case e.Action == "fail":
			fmt.Fprint(out, outputs[key])
		}
	}
}

// run tests these packages.
func run(packages ...string) error {
	cmd := exec.Command("go", slices.Concat([]string{"test", "-json", "-count=1"}, os.Args[1:], packages)...)
	cmd.Stderr = os.Stderr
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	skipped, err := report(events, os.Stdout)
	for _, reason := range slices.Sorted(maps.Keys(skipped)) {
		name, why, _ := strings.Cut(reason, " ")
		fmt.Printf("skipped: %d in %s: %s\n", skipped[reason], name, why)
	}
	return errors.Join(err, cmd.Wait())
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("test: ")
	list, err := exec.Command("go", "list", "./...").Output()
	if err != nil {
		log.Fatalf("go list: %v", err)
	}
	// The exercises build the collection again and again, so they come after the others.
	const last = "csdesign/test/exercises"
	others := slices.DeleteFunc(strings.Fields(string(list)), func(name string) bool { return name == last })
	if err := errors.Join(run(others...), run(last)); err != nil {
		log.Fatal(err)
	}
}
