package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// report gathers what came of the replays of all traces.
type report struct {
	settings
	traces []string // one line each
	names  []string // policies, in the order of the tables
	cells  map[cell]*sums
}

// cell is what a policy did in caches of one size.
type cell struct {
	policy string
	size   float64
	images bool
}

// sums are ratios summed over all traces: each trace counts the same, however large.
type sums struct {
	n                            float64
	bytes, requests, free, whole float64
}

// everything is the name of the cache that drops nothing.
const everything = "no limit"

func newReport(s settings) *report { return &report{settings: s, cells: map[cell]*sums{}} }

// add replays a trace through all caches.
func (r *report) add(t *trace) {
	f := t.facts()
	r.traces = append(r.traces, fmt.Sprintf(
		"%s: %d GETs (%d of manifests) of %d objects in %d pulls, %.0f GB asked for, %.0f GB unique, "+
			"%.0f %% of layers below 1 MiB, %.0f %% of objects asked for once",
		t.name, f.requests, f.manifests, f.objects, t.pulls, float64(f.bytes)/1e9, float64(f.unique)/1e9,
		100*f.small, 100*f.once))
	for _, c := range contenders(t) {
		if !r.policies.MatchString(c.name) {
			continue
		}
		for _, size := range r.sizes {
			capacity := int64(float64(f.unique) * size / 100)
			r.count(cell{c.name, size, false}, replay(t, capacity, false, c.build))
			if c.name != clairvoyantName {
				r.count(cell{c.name, size, true}, replay(t, capacity, true, c.build))
			}
		}
	}
	all := replay(t, f.unique, false, newFIFO)
	for _, size := range r.sizes {
		r.count(cell{everything, size, false}, all)
	}
}

func (r *report) count(where cell, c counts) {
	if !slices.Contains(r.names, where.policy) {
		r.names = append(r.names, where.policy)
	}
	s := r.cells[where]
	if s == nil {
		s = &sums{}
		r.cells[where] = s
	}
	s.n++
	s.bytes += share(c.hitBytes, c.bytes)
	s.requests += share(c.hits, c.requests)
	s.free += share(c.free, c.manifests)
	s.whole += share(c.whole, c.pulls)
}

// write prints the traces and a table for each figure.
func (r *report) write(out io.Writer) error {
	var b strings.Builder
	for _, t := range r.traces {
		fmt.Fprintf(&b, "%s\n", t)
	}
	fmt.Fprintf(&b, "\nPercent, means over %d traces, by size of the cache in percent of the unique bytes.\n"+
		"Second figures: the use of a manifest is one of all that it references.\n", len(r.traces))
	r.table(&b, "Bytes hit", func(s *sums) float64 { return s.bytes })
	r.table(&b, "Requests hit", func(s *sums) float64 { return s.requests })
	r.table(&b, "Upstream pulls avoided: GETs of manifests that the upstream did not see", func(s *sums) float64 { return s.free })
	r.table(&b, "Pulls that needed nothing of the upstream (0 where a trace does not tell pulls apart)",
		func(s *sums) float64 { return s.whole })
	_, err := io.WriteString(out, b.String())
	return err
}

func (r *report) table(b *strings.Builder, title string, of func(*sums) float64) {
	fmt.Fprintf(b, "\n%s\n\n| policy |", title)
	for _, size := range r.sizes {
		fmt.Fprintf(b, " %g %% |", size)
	}
	fmt.Fprintf(b, "\n|---|%s\n", strings.Repeat("---|", len(r.sizes)))
	for _, name := range r.names {
		fmt.Fprintf(b, "| %s |", name)
		for _, size := range r.sizes {
			plain, images := r.cells[cell{name, size, false}], r.cells[cell{name, size, true}]
			fmt.Fprintf(b, " %.1f", 100*of(plain)/plain.n)
			if images != nil {
				fmt.Fprintf(b, " · %.1f", 100*of(images)/images.n)
			}
			b.WriteString(" |")
		}
		b.WriteString("\n")
	}
}
