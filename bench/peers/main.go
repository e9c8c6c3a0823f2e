//go:build linux

// Package main runs Forebay beside other mirrors: the same registry, the same clients, in turn.
// It writes the table and the plots of docs/benchmarks.md; ratios within a run say more than its figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"forebay/test/hubtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

// scale is how much is measured.
type scale struct {
	rounds   int
	blob     int64 // bytes of a large one
	manifest int   // requests
	crowd    int   // clients of one cold blob
	images   int   // small ones
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	programs := flags.String("programs", "", "`folder` with forebay and registry (distribution v3)")
	docs := flags.String("docs", "", "`folder` of the documents, whose benchmarks.md gets the table and images the plots; empty: print")
	quick := flags.Bool("quick", false, "measure little, to see that it works")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := scale{rounds: 5, blob: 256 << 20, manifest: 20_000, crowd: 64, images: 1000}
	if *quick {
		s = scale{rounds: 1, blob: 8 << 20, manifest: 200, crowd: 8, images: 5}
	}
	dir, err := os.MkdirTemp("", "forebay-peers-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	all, err := peers(*programs)
	if err != nil {
		return err
	}
	results := newResults(all)
	for round := range s.rounds {
		// In changing order, so that what slows the machine for a while is nobody's alone.
		for i := range all {
			p := all[(i+round)%len(all)]
			fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round+1, s.rounds, p.name)
			if err := measure(ctx, p, filepath.Join(dir, fmt.Sprint(round, "-", i)), s, uint64(round*len(all)+i+1), results); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
		}
	}
	text := results.table(describe(ctx, all, s))
	if *docs == "" {
		_, err = fmt.Print(text)
		return err
	}
	return errors.Join(replaceSection(filepath.Join(*docs, "benchmarks.md"), text), results.plots(filepath.Join(*docs, "images")))
}

// describe says on what and with what the figures were taken.
func describe(ctx context.Context, all []peer, s scale) string {
	var versions []string
	for _, p := range all {
		if p.version != "" {
			versions = append(versions, p.name+" "+p.version)
		}
	}
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := strings.Cut(string(text), "model name\t: "); ok {
			model, _, _ = strings.Cut(rest, "\n")
		}
	}
	load, _ := os.ReadFile("/proc/loadavg") // only told
	commit, _ := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	return fmt.Sprintf("%s, %d processors; load %s; %s; commit %s; %d rounds in changing order, the median of each.\nVersions: %s.",
		model, runtime.NumCPU(), strings.Join(strings.Fields(string(load))[:min(3, len(strings.Fields(string(load))))], " "),
		runtime.Version(), strings.TrimSpace(string(commit)), s.rounds, strings.Join(versions, ", "))
}

// newHub is the registry behind all of them: one that wants no token and sends blobs itself,
// since not all can do otherwise.
func newHub() (*hubtest.Hub, error) {
	return hubtest.Start(hubtest.Options{Profile: hubtest.Plain, Anonymous: hubtest.Unlimited()})
}

// startWithin is how long a program may take to answer.
const startWithin = 30 * time.Second
