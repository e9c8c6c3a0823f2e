//go:build linux

// Package main measures forebay against what it wants to be as good as: a static file
// server, a bare HTTP handler, the registry itself. Each figure is a ratio of two
// measurements that took turns within one run, on real processes of this machine.
//
//	go run ./bench                    # everything, some 15 minutes
//	go run ./bench -run blob -quick   # one figure, roughly
//
// It needs Debian's nginx, curl and coreutils, leaves no process and no file behind, and
// speaks to loopback only. Its numbers mean something only on a machine that does nothing
// else meanwhile. Package main must not be imported by anything.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == childWord {
		if err := runChild(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintf(os.Stderr, "bench %s: %s\n", os.Args[2], err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", err)
		os.Exit(1)
	}
}

// settings are what the command line says.
type settings struct {
	only    *regexp.Regexp // figures to measure
	rounds  int
	quick   bool   // smaller blobs and fewer clients: to try the harness, not to publish
	forebay string // binary to measure; "" means to build it
}

func parseSettings(args []string, stderr io.Writer) (s settings, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("run", "", "measure only figures whose name matches this `regexp`")
	flags.IntVar(&s.rounds, "rounds", 0, "rounds of each figure (default 5, with -quick 2)")
	flags.BoolVar(&s.quick, "quick", false, "smaller blobs and fewer clients, to try the harness")
	flags.StringVar(&s.forebay, "forebay", "", "measure this `binary` (default: build ./cmd/forebay)")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./bench [flags]")
		flags.PrintDefaults()
		fmt.Fprintln(stderr, "\nfigures:")
		for _, f := range figures() {
			fmt.Fprintf(stderr, "  %-16s %s\n", f.name, f.what)
		}
	}
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("argument %q is not understood", flags.Arg(0))
	}
	if s.only, err = regexp.Compile(*only); err != nil {
		return s, fmt.Errorf("-run: %w", err)
	}
	switch {
	case s.rounds < 0:
		return s, fmt.Errorf("-rounds: %d is negative", s.rounds)
	case s.rounds == 0 && s.quick:
		s.rounds = 2
	case s.rounds == 0:
		s.rounds = 5
	}
	return s, nil
}

// run measures what args ask for and writes the table to stdout, progress to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	s, err := parseSettings(args, stderr)
	if err != nil {
		return err
	}
	var chosen []figure
	for _, f := range figures() {
		if s.only.MatchString(f.name) {
			chosen = append(chosen, f)
		}
	}
	if len(chosen) == 0 {
		return fmt.Errorf("-run: no figure has a name that matches %q", s.only)
	}
	b, err := newBench(ctx, s, stderr)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	var rows []row
	for _, f := range chosen {
		fmt.Fprintf(stderr, "%s: %s\n", f.name, f.what)
		found, err := f.measure(ctx, b)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		rows = append(rows, found...)
	}
	fmt.Fprint(stdout, describeRun(ctx, b), "\n")
	return writeTable(stdout, rows)
}
