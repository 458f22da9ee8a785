package main

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// A figure is a number, or not a number where it is not known. In JSON that is null,
// in a table "-".
type figure float64

var unknown = figure(math.NaN())

func (f figure) known() bool { return !math.IsNaN(float64(f)) }

func (f figure) MarshalJSON() ([]byte, error) {
	if !f.known() {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

func (f figure) text(decimals int) string {
	if !f.known() {
		return "-"
	}
	return fmt.Sprintf("%.*f", decimals, float64(f))
}

// median returns for each of the figures its median in these rounds.
func median(rounds []figures) (m figures) {
	of := func(field func(*figures) *figure) {
		var known []figure
		for i := range rounds {
			if f := *field(&rounds[i]); f.known() {
				known = append(known, f)
			}
		}
		*field(&m) = middle(known)
	}
	m.Answered = rounds[0].Answered
	of(func(f *figures) *figure { return &f.Rate })
	of(func(f *figures) *figure { return &f.CPU })
	of(func(f *figures) *figure { return &f.Switches })
	of(func(f *figures) *figure { return &f.Memory })
	of(func(f *figures) *figure { return &f.P99 })
	of(func(f *figures) *figure { return &f.Processes })
	of(func(f *figures) *figure { return &f.Threads })
	of(func(f *figures) *figure { return &f.Fewest })
	of(func(f *figures) *figure { return &f.Most })
	return m
}

// middle returns the median, of an even number the mean of the two in the middle.
func middle(all []figure) figure {
	if len(all) == 0 {
		return unknown
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
