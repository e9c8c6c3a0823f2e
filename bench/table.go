//go:build linux

package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// sample is the values of one measurement, one per round.
type sample []float64

func (s sample) median() float64 {
	sorted := slices.Sorted(slices.Values(s))
	if n := len(sorted); n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[len(sorted)/2]
}

// text is the median, with the least and the most where there are several.
func (s sample) text(form, unit string) string {
	switch {
	case len(s) == 0:
		return "–"
	case unit != "":
		unit = " " + unit
	}
	middle := fmt.Sprintf(form, s.median()) + unit
	if len(s) == 1 {
		return middle
	}
	return fmt.Sprintf("%s ("+form+"–"+form+")", middle, slices.Min(s), slices.Max(s))
}

// pairwise combines the values of the same round, which saw the same state of the machine.
func pairwise(ours, theirs sample, combine func(o, t float64) float64) sample {
	if len(ours) != len(theirs) {
		panic(fmt.Sprintf("bench: %d values of ours and %d of theirs", len(ours), len(theirs)))
	}
	pairs := make(sample, len(ours))
	for i := range ours {
		pairs[i] = combine(ours[i], theirs[i])
	}
	return pairs
}

// Ways to compare the values of one round.
func ratio(ours, theirs float64) float64   { return ours / theirs }
func speedup(ours, theirs float64) float64 { return theirs / ours } // of times
func excess(ours, theirs float64) float64  { return ours - theirs }

// bound is what a figure should reach: at least or at most a value.
type bound struct {
	atLeast bool
	value   float64
}

func atLeast(v float64) *bound { return &bound{true, v} }
func atMost(v float64) *bound  { return &bound{false, v} }

func (b *bound) met(v float64) bool {
	if b.atLeast {
		return v >= b.value
	}
	return v <= b.value
}

// row is one line of the table. compare says how ours and theirs become the value that
// target judges; without theirs it is ours.
type row struct {
	name    string
	form    string // of a value: "%.2f"
	unit    string
	ours    sample
	theirs  sample
	against string // who "theirs" is
	compare func(ours, theirs float64) float64
	apart   string // form and unit of the compared value; "" means a ratio
	target  *bound // nil: only to tell
}

// compared returns the values that target judges, and how to print them.
func (r row) compared() (values sample, form, unit string) {
	if r.compare == nil {
		return r.ours, r.form, r.unit
	}
	values = pairwise(r.ours, r.theirs, r.compare)
	if r.apart != "" {
		return values, r.form, r.apart
	}
	return values, "%.2f", ""
}

func (r row) cells() []string {
	values, form, unit := r.compared()
	theirs, between := "–", "–"
	if r.compare != nil {
		theirs = r.against + " " + r.theirs.text(r.form, r.unit)
		between = values.text(form, unit)
	}
	target, met := "–", "–"
	if r.target != nil {
		sign := "≤"
		if r.target.atLeast {
			sign = "≥"
		}
		target = strings.TrimSpace(fmt.Sprintf("%s %g %s", sign, r.target.value, unit))
		met = "no"
		if r.target.met(values.median()) {
			met = "yes"
		}
	}
	return []string{r.name, r.ours.text(r.form, r.unit), theirs, between, target, met}
}

// writeTable writes rows as text. Values are medians, with the range over all rounds.
func writeTable(w io.Writer, rows []row) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "figure\tours\ttheirs\tratio\ttarget\tmet")
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r.cells(), "\t"))
	}
	return t.Flush()
}
