package config

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

// source says which kind of place a value comes from. A later one has precedence.
type source uint8

const (
	fromDefault source = iota
	fromFile
	fromEnv
	fromFlag
)

// Origin says where a value comes from. The zero value is the built-in default.
type Origin struct {
	source source
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
		cmp.Compare(o.source, p.source),
		cmp.Compare(o.Line, p.Line),
		cmp.Compare(o.Column, p.Column),
		cmp.Compare(o.Name, p.Name),
	)
}

// faultsMost bounds the faults of one configuration. Aliases make it possible to
// write a small file with billions of faults.
const faultsMost = 100

// collector gathers faults up to faultsMost.
type collector struct {
	faults Faults
	more   bool // faults were left out
}

func (c *collector) add(where Origin, key, format string, args ...any) {
	if c.full() {
		c.more = true
		return
	}
	c.faults = append(c.faults, Fault{Where: where, Key: key, Problem: fmt.Sprintf(format, args...)})
}

func (c *collector) full() bool { return len(c.faults) >= faultsMost }

// err returns the faults in order as an error, or nil.
func (c *collector) err() error {
	if len(c.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(c.faults, func(a, b Fault) int {
		return cmp.Or(a.Where.compare(b.Where), cmp.Compare(a.Key, b.Key))
	})
	if c.more {
		return append(c.faults, Fault{Problem: fmt.Sprintf("there are more; these are the first %d", faultsMost)})
	}
	return c.faults
}
