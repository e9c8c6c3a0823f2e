//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Sizes in bytes.
const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// figure is one thing to measure. It may give several rows.
type figure struct {
	name, what string
	measure    func(ctx context.Context, b *bench) ([]row, error)
}

func figures() []figure {
	return []figure{
		{"blob", "cached blob against nginx serving the same file", measureBlob},
		{"manifest", "cached manifest against a bare net/http handler", measureManifest},
		{"login", "cached manifest with a password and with a token against without", measureLogin},
		{"policy", "cached manifest of a mirror with policies against one without", measurePolicy},
		{"fleet", "cached manifest of a mirror of a fleet against one alone", measureFleet},
		{"memory-cached", "memory with 500 concurrent cached downloads", measureMemoryCached},
		{"memory-cold", "memory with 16 cold 64 MiB blobs at once", measureMemoryCold},
		{"small", "small cold blobs, one after the other, against the hub itself", measureSmall},
		{"small-images", "many cold images of small objects against a net/http proxy that keeps nothing", measureSmallImages},
		{"cold", "one client of a cold blob against the hub itself", measureCold},
		{"cold-limited", "cold blob from a CDN of 16 MiB/s a connection", measureColdLimited},
		{"first-byte", "first byte of a cold blob against the hub's own", measureFirstByte},
		{"suffix", "64 KiB suffix of a cold blob at 16 MiB/s a connection", measureSuffix},
		{"bundle", "export and import of 1 GiB against tar of the same bytes", measureBundle},
		{"big-bundle", "memory of export and import of 10 GiB", measureBundleMemory},
		{"curves", "what clients and upstreams cost, the more there are", measureCurves},
		{"crowd", "many clients of one cold blob at a 32 MiB/s line", measureCrowd},
	}
}

// bench is one run: its settings, its folder, and the programs that all figures use.
// close must be called.
type bench struct {
	settings
	dir      string // all that is written goes here
	progress io.Writer
	hub      *hub
	load     *load
	mirrors  int // started so far, for names
	seed     uint64
}

func newBench(ctx context.Context, s settings, progress io.Writer) (_ *bench, err error) {
	b := &bench{settings: s, progress: progress}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.dir, err = os.MkdirTemp("", "forebay-bench-"); err != nil {
		return nil, err
	}
	if b.forebay == "" {
		b.forebay = filepath.Join(b.dir, "forebay")
		fmt.Fprintln(progress, "building forebay")
		if err := buildForebay(ctx, b.forebay); err != nil {
			return nil, err
		}
	}
	if b.hub, err = startHub(ctx, b.dir); err != nil {
		return nil, err
	}
	b.load, err = startLoad(ctx, b.dir, anyCPU)
	return b, err
}

// close ends all processes and removes all files.
func (b *bench) close() error {
	var errs []error
	if b.load != nil {
		errs = append(errs, b.load.stop())
	}
	if b.hub != nil {
		errs = append(errs, b.hub.stop())
	}
	if b.dir != "" {
		errs = append(errs, os.RemoveAll(b.dir))
	}
	return errors.Join(errs...)
}

// pick returns full, or small in a quick run.
func pick[T any](b *bench, full, small T) T {
	if b.quick {
		return small
	}
	return full
}

// freshBlob makes a blob that nobody has asked for yet.
func (b *bench) freshBlob(size int64) (blob, error) {
	b.seed++
	return b.hub.addBlob(b.seed, size)
}

// takeTurns calls each of measure once in every round, in turns: A B, B A, A B. What slows
// the machine for a while then slows both.
func (b *bench) takeTurns(ctx context.Context, what string, measure ...func(round int) error) error {
	for round := range b.rounds {
		fmt.Fprintf(b.progress, "  %s: round %d of %d\n", what, round+1, b.rounds)
		for i := range measure {
			if round%2 == 1 {
				i = len(measure) - 1 - i
			}
			if err := measure[i](round); err != nil {
				return fmt.Errorf("round %d: %w", round+1, err)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
}
