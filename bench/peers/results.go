//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// results are what was measured, in the order in which it came.
type results struct {
	peers []peer
	order []string
	of    map[string]map[string][]float64
	notes map[string]map[string]string
}

func newResults(all []peer) *results {
	return &results{peers: all, of: map[string]map[string][]float64{}, notes: map[string]map[string]string{}}
}

func (r *results) row(what string) {
	if !slices.Contains(r.order, what) {
		r.order = append(r.order, what)
		r.of[what], r.notes[what] = map[string][]float64{}, map[string]string{}
	}
}

func (r *results) add(what string, p peer, value float64) {
	r.row(what)
	r.of[what][p.name] = append(r.of[what][p.name], value)
}

// note keeps what is no figure; the latest round's stands.
func (r *results) note(what string, p peer, text string) {
	r.row(what)
	r.notes[what][p.name] = text
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func figure(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// table is the section of docs/benchmarks.md.
func (r *results) table(description string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n| |", description)
	for _, p := range r.peers {
		fmt.Fprintf(&b, " %s |", p.name)
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(r.peers)) + "\n")
	for _, what := range r.order {
		fmt.Fprintf(&b, "| %s |", what)
		for _, p := range r.peers {
			text := "–"
			if values := r.of[what][p.name]; len(values) > 0 {
				text = figure(median(values))
			} else if note := r.notes[what][p.name]; note != "" {
				text = note
			}
			fmt.Fprintf(&b, " %s |", text)
		}
		b.WriteString("\n")
	}
	return b.String()
}

// The section of the document that the command writes.
const (
	sectionBegin = "<!-- make bench-peers writes from here -->\n"
	sectionEnd   = "<!-- to here -->\n"
)

func replaceSection(name, text string) error {
	old, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(old), sectionBegin)
	_, after, ended := strings.Cut(rest, sectionEnd)
	if !ok || !ended {
		return fmt.Errorf("%s has no section for the table", name)
	}
	return os.WriteFile(name, []byte(before+sectionBegin+text+sectionEnd+after), 0o644)
}

// plotted are the rows with a plot, and its file.
func plotted() map[string]string {
	return map[string]string{
		"cached blob, 4 connections, MiB/s":                                  "peers-cached.svg",
		"cold image of one layer, MiB/s":                                     "peers-cold.svg",
		"cached tag, requests/s":                                             "peers-tag.svg",
		"clients of one cold image: bytes from the registry, times its size": "peers-crowd.svg",
	}
}

func (r *results) plots(dir string) error {
	for what, name := range plotted() {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(r.plot(what)), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// plot draws bars, one for each peer, that are readable on light and dark paper.
func (r *results) plot(what string) string {
	const row, left, width = 26, 150, 360
	most := 0.0
	for _, values := range r.of[what] {
		most = max(most, median(values))
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13" fill="#777">`+"\n<text x=\"0\" y=\"16\">%s</text>\n",
		left+width+80, 30+row*len(r.peers), what)
	y := 30
	for i, p := range r.peers {
		if values := r.of[what][p.name]; len(values) > 0 {
			color := "#8aa"
			if i == 0 {
				color = "#2a7ade"
			}
			long := int(median(values) / most * width)
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%d" height="18" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
				left-8, y+14, p.name, left, y, max(long, 1), color, left+long+6, y+14, figure(median(values)))
		}
		y += row
	}
	b.WriteString("</svg>\n")
	return b.String()
}
