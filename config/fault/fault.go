// Package fault is what is wrong with a configuration, and where it says so.
//
// It promises that faults are told in the order in which they stand, and no more of them than
// somebody reads.
package fault

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing wrong with a configuration. Its text never holds the value of
// a secret.
type Fault struct {
	Where   Origin
	Key     string // "upstreams.docker.io.tag_ttl"; empty when the fault is of the whole
	Problem string // what is wrong and what is allowed
}

func (f Fault) String() string {
	text := f.Problem
	if f.Key != "" {
		text = f.Key + ": " + text
	}
	if at := f.Where.String(); at != "" {
		text = at + ": " + text
	}
	return text
}

// Faults are all things wrong with a configuration, one a line: those of the file by
// line, then those of the environment, then those of the command line.
type Faults []Fault

func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// Source says which kind of place a value comes from. A later one has precedence.
type Source uint8

// The sources.
const (
	FromDefault Source = iota
	FromFile
	FromEnv
	FromFlag
)

// Origin says where a value comes from. The zero value is the built-in default.
type Origin struct {
	Source Source
	Name   string // file name, "FOREBAY_LISTEN" or "--listen"
	Line   int    // from 1; 0 when there is none
	Column int    // from 1, counted in characters; 0 when there is none
}

// String returns "forebay.yaml:12:5", "FOREBAY_LISTEN", "--listen", or "" for a default.
func (o Origin) String() string {
	if o.Line == 0 {
		return o.Name
	}
	return fmt.Sprintf("%s:%d:%d", o.Name, o.Line, o.Column)
}

func (o Origin) compare(p Origin) int {
	return cmp.Or(
		cmp.Compare(o.Source, p.Source),
		cmp.Compare(o.Line, p.Line),
		cmp.Compare(o.Column, p.Column),
		cmp.Compare(o.Name, p.Name),
	)
}

// Most bounds the faults of one configuration. Aliases make it possible to
// write a small file with billions of faults.
const Most = 100

// Collector gathers faults, as many as anybody reads.
type Collector struct {
	Faults Faults
	More   bool // faults were left out
}

// Add notes a fault of a key.
func (c *Collector) Add(where Origin, key, format string, args ...any) {
	if c.Full() {
		c.More = true
		return
	}
	c.Faults = append(c.Faults, Fault{Where: where, Key: key, Problem: fmt.Sprintf(format, args...)})
}

// Full reports whether further faults are left out.
func (c *Collector) Full() bool { return len(c.Faults) >= Most }

// Err returns the faults in order as an error, or nil.
func (c *Collector) Err() error {
	if len(c.Faults) == 0 {
		return nil
	}
	slices.SortStableFunc(c.Faults, func(a, b Fault) int {
		return cmp.Or(a.Where.compare(b.Where), cmp.Compare(a.Key, b.Key))
	})
	if c.More {
		return append(c.Faults, Fault{Problem: fmt.Sprintf("there are more; these are the first %d", Most)})
	}
	return c.Faults
}
