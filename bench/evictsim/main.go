// Package main measures which content a full cache had best drop. It makes the requests
// that a mirror of container registries sees, or reads them from traces, and replays them
// through caches of several sizes with several policies, package evict's among them.
//
//	go run ./bench/evictsim                                         # some seconds, a small mirror
//	go run ./bench/evictsim -scale 0.5 -seeds 3 -cache 2,5,10,20    # the tables of docs/adr; minutes
//	go run ./bench/evictsim prod-dal09-2017.08.01-0.json
//
// The traces are those of the IBM registries (FAST 2018), as published or as their
// replayer keeps them. The same settings give the same tables on every machine. Package
// main must not be imported by anything.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintf(os.Stderr, "evictsim: %s\n", err)
		os.Exit(1)
	}
}

// settings are what the command line says.
type settings struct {
	workloads *regexp.Regexp
	policies  *regexp.Regexp
	sizes     []float64 // of the cache, in hundredths of the unique bytes
	seeds     int
	scale     float64
	files     []string // traces to read instead
}

func parseSettings(args []string, stderr io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet("evictsim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: evictsim [flags] [trace.json …]")
		flags.PrintDefaults()
	}
	workloads := flags.String("workload", "^(mixed|cluster|ci)$", "workloads to make, as a `regexp`; unscanned is another")
	policies := flags.String("policy", "", "only policies that match this `regexp`")
	sizes := flags.String("cache", "5,20", "sizes of the cache in `percent` of the unique bytes")
	flags.IntVar(&s.seeds, "seeds", 1, "how often each workload is made")
	flags.Float64Var(&s.scale, "scale", 0.1, "size of the mirror; 1 has 2500 pulls a day")
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	s.files = flags.Args()
	if s.workloads, err = regexp.Compile(*workloads); err != nil {
		return s, fmt.Errorf("-workload: %w", err)
	}
	if s.policies, err = regexp.Compile(*policies); err != nil {
		return s, fmt.Errorf("-policy: %w", err)
	}
	if s.seeds < 1 || !(s.scale > 0 && s.scale <= 100) {
		return s, errors.New("-seeds must be at least 1, and -scale above 0 and at most 100")
	}
	for text := range strings.SplitSeq(*sizes, ",") {
		size, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil || !(size > 0 && size <= 100) {
			return s, fmt.Errorf("-cache: %q is not above 0 and at most 100", text)
		}
		s.sizes = append(s.sizes, size)
	}
	return s, nil
}

func run(args []string, out, stderr io.Writer) error {
	s, err := parseSettings(args, stderr)
	if err != nil {
		return err
	}
	r := newReport(s)
	if len(s.files) > 0 {
		err = s.eachFile(r.add)
	} else {
		err = s.eachShape(r.add)
	}
	if err != nil {
		return err
	}
	return r.write(out)
}

func (s settings) eachFile(f func(*trace)) error {
	for _, name := range s.files {
		file, err := os.Open(name)
		if err != nil {
			return err
		}
		t, err := readIBM(name, file)
		file.Close()
		if err != nil {
			return err
		}
		f(t)
	}
	return nil
}

func (s settings) eachShape(f func(*trace)) error {
	found := false
	for _, sh := range shapes() {
		if !s.workloads.MatchString(sh.name) {
			continue
		}
		found = true
		for seed := range s.seeds {
			f(generate(sh.scaled(s.scale), uint64(seed+1)))
		}
	}
	if !found {
		return fmt.Errorf("-workload: no workload matches %q", s.workloads)
	}
	return nil
}
