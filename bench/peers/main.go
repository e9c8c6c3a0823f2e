//go:build linux

// Package main runs Forebay beside other mirrors: the same registry, the same clients, in turn.
// It writes the table and the plots of docs/benchmarks.md; ratios within a run say more than its figures.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
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
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
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
	kept     int   // blobs that are there at a start
	day      int   // pulls of it
	lasts    time.Duration
}

func run(args []string, stdout, stderr io.Writer) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	flags := flag.NewFlagSet("peers", flag.ContinueOnError)
	programs := flags.String("programs", "", "`folder` with forebay, registry (distribution v3) and zot")
	docs := flags.String("docs", "", "`folder` of the documents, whose benchmarks.md gets the table and images the plots; empty: print")
	rounds := flags.Int("rounds", 5, "`how often` each is measured")
	quick := flags.Bool("quick", false, "measure an eighth of it")
	kept := flags.Int("kept", 100_000, "`how many` blobs are kept by what is started with them")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := scale{rounds: *rounds, blob: 256 << 20, manifest: 20_000, crowd: 64, images: 1000, kept: *kept, day: 2000, lasts: 2 * time.Minute}
	if *quick {
		s = scale{rounds: *rounds, blob: 32 << 20, manifest: 2500, crowd: 8, images: 125, kept: *kept / 8, day: 250, lasts: 15 * time.Second}
	}
	dir, err := os.MkdirTemp("", "forebay-peers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	all, err := peers(*programs)
	if err != nil {
		return err
	}
	results := newResults(all)
	for round := range s.rounds {
		// In changing order, so that what slows the machine for a while is nobody's alone.
		for i := range all {
			p := all[(i+round)%len(all)]
			fmt.Fprintf(stderr, "round %d of %d: %s\n", round+1, s.rounds, p.name)
			storage := filepath.Join(dir, fmt.Sprint(round, "-", i))
			if err := measure(ctx, p, storage, s, uint64(round*len(all)+i+1), round == 0, results); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			// What a mirror leaves free on a disk would not be there for the last ones.
			if err := os.RemoveAll(storage); err != nil {
				return err
			}
		}
	}
	text := results.table(describe(ctx, all, s))
	if *docs == "" {
		_, err = io.WriteString(stdout, text)
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
	return fmt.Sprintf("%s, %d processors; load %s; %s; commit %s; %d rounds in changing order, the median of each.\nBlobs of %d MiB, %d requests for a tag over 8 connections, %d clients of one cold blob of a quarter of that, %d small images.\nOnce: a start with %d blobs, and a day of %d pulls that lasts %s.\nVersions: %s.",
		model, runtime.NumCPU(), strings.Join(strings.Fields(string(load))[:min(3, len(strings.Fields(string(load))))], " "),
		runtime.Version(), strings.TrimSpace(string(commit)), s.rounds, s.blob>>20, s.manifest, s.crowd, s.images, s.kept, s.day, s.lasts, strings.Join(versions, ", "))
}

// newHub is the registry behind all of them: one that wants no token and sends blobs itself,
// since not all can do otherwise.
func newHub() (*hubtest.Hub, error) {
	return hubtest.Start(hubtest.Options{Profile: hubtest.Plain, Anonymous: hubtest.Unlimited()})
}

// startWithin is how long a program may take to answer.
const startWithin = 30 * time.Second
