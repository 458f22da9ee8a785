package guide

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A mark stands in a comment behind a sentence that repeats a figure of a table. It names the chapter
// and its console block, a row and a column, or two whose ratio is meant, and what the words of the
// sentence allow:
//
//	<!-- figure: compare 1: server01[CPU us] / server00[CPU us] = 50.. -->
var figure = regexp.MustCompile(`<!-- figure: (\S+) (\d+): ([^\[]+)\[([^\]]+)\](?: / ([^\[]+)\[([^\]]+)\])? = ([\d.]+?)\.\.([\d.]*) -->`)

// cell returns a figure of a table that compare has printed. The row begins with these words. The
// columns are those of the line that begins with "server ", and their figures end below the ends
// of their names; or the figure stands before the name, as in "0.92 of the rate".
func cell(table, row, column string) (float64, error) {
	head := ""
	for line := range strings.Lines(table) {
		if strings.HasPrefix(line, "server ") {
			head = strings.TrimRight(line, "\n")
		}
		if words := spaces.ReplaceAllString(strings.TrimSpace(line), " "); !strings.HasPrefix(words, row+" ") {
			continue
		}
		if match := regexp.MustCompile(`([\d.]+) of the ` + regexp.QuoteMeta(column)).FindStringSubmatch(line); match != nil {
			return strconv.ParseFloat(match[1], 64)
		}
		at := regexp.MustCompile(`(?:^|[ ,])` + regexp.QuoteMeta(column) + `(?: |$)`).FindStringIndex(head)
		if at == nil {
			return 0, fmt.Errorf("there is no column %s", column)
		}
		end := len([]rune(strings.TrimRight(head[:at[1]], " ")))
		cells := []rune(line)
		if end > len(cells) {
			return 0, fmt.Errorf("the row %s is too short", row)
		}
		upTo := string(cells[:end])
		return strconv.ParseFloat(upTo[strings.LastIndex(upTo, " ")+1:], 64)
	}
	return 0, fmt.Errorf("there is no row %s", row)
}

// TestFigures requires that each sentence with a mark agrees with its table.
func TestFigures(t *testing.T) {
	for _, path := range chapters(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		marks := figure.FindAllStringSubmatch(string(text), -1)
		if n := strings.Count(string(text), "<!-- figure"); n != len(marks) {
			t.Errorf("%s has %d marks, and %d of them can be read", path, n, len(marks))
		}
		for _, m := range marks {
			table, err := os.ReadFile(filepath.Join(m[1], "README.md"))
			if err != nil {
				t.Fatal(err)
			}
			blocks := block.FindAllSubmatch(table, -1)
			n, _ := strconv.Atoi(m[2])
			if n < 1 || n > len(blocks) {
				t.Errorf("%s: %s: there are %d blocks", path, m[0], len(blocks))
				continue
			}
			value, err := cell(string(blocks[n-1][1]), m[3], m[4])
			if err == nil && m[5] != "" {
				var other float64
				other, err = cell(string(blocks[n-1][1]), m[5], m[6])
				value /= other
			}
			least, _ := strconv.ParseFloat(m[7], 64)
			most, errMost := strconv.ParseFloat(m[8], 64)
			if err != nil || value < least || errMost == nil && value > most {
				t.Errorf("%s: %s: it is %.3g, %v", path, m[0], value, err)
			}
		}
	}
}

// claim is what a sentence says that tells a ratio of costs.
var claim = regexp.MustCompile(`(?i)\b(times|thirds?|half|twice|quarters?|tenths?|fifth|sixth|seventh|twentieth|hundredth|percent)\b[^.:]*\b(CPU time|memory|faster|slower|connections? a second)\b`)

// TestClaims requires that a paragraph that says such a ratio has a mark, or the command that shows
// it, or says that it is what we think.
func TestClaims(t *testing.T) {
	for _, path := range chapters(t) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = regexp.MustCompile("(?ms)^```.*?^```$|^ *<details>.*?</details>").ReplaceAll(text, nil)
		for _, paragraph := range regexp.MustCompile(`\n\n+|\n(?:- |\d+\. )`).Split(string(text), -1) {
			flat := spaces.ReplaceAllString(paragraph, " ")
			if said := claim.FindString(flat); said != "" && !strings.Contains(flat, "<!-- figure") &&
				!regexp.MustCompile("`go (run|test)|We think").MatchString(flat) {
				t.Errorf("%s says without a mark or a command: %s", path, said)
			}
		}
	}
}
