package upkeep

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/logkey"
)

// Collected says what a collection of garbage removed, or would.
type Collected struct {
	DryRun bool `json:"dry_run"`
	// Blobs are files that no repository holds, and BlobBytes their sizes.
	Blobs     int64 `json:"blobs"`
	BlobBytes int64 `json:"blob_bytes"`
	// Adopted are files that the index did not know and some repository holds; they stay.
	Adopted int64 `json:"adopted"`
	// Rows are records of the index without a file.
	Rows int64 `json:"rows"`
	// Links and Tags were of content that is not kept, and older than three months.
	Links int64 `json:"links"`
	Tags  int64 `json:"tags"`
	// Partials are fills that nobody went on with for a day.
	Partials     int64 `json:"partials"`
	PartialBytes int64 `json:"partial_bytes"`
}

// collectAge is how old a file must be that nobody holds: one that has just arrived is
// linked a moment later.
const collectAge = 10 * time.Minute

// Collect removes what nothing leads to: files that no repository holds, records without
// a file, and fills that nobody goes on with. With dryRun it only counts. It may run while
// the cache is in use. tell, if not nil, is called now and then.
func (k *Keeper) Collect(ctx context.Context, dryRun bool, tell func(Progress)) (*Collected, error) {
	g := collection{k: k, dryRun: dryRun, done: Collected{DryRun: dryRun}}
	g.progress.itemsTotal.Store(k.Store.Index.Totals().Blobs)
	ended := g.progress.report(tell)
	defer ended()
	for _, step := range []func(context.Context) error{g.files, g.rows, g.absent, g.partials} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("collect garbage: %w", err)
		}
	}
	k.log.Info("garbage collected", zap.Bool("dry_run", dryRun), zap.Int64("blobs", g.done.Blobs),
		logkey.Bytes(g.done.BlobBytes), zap.Int64("rows", g.done.Rows), zap.Int64("partials", g.done.Partials))
	return &g.done, nil
}

// collection is one run of Collect.
type collection struct {
	k        *Keeper
	dryRun   bool
	progress progress
	done     Collected
}

// files removes the files that nobody holds, and records those that are held and unknown.
func (g *collection) files(ctx context.Context) error {
	old := time.Now().Add(-collectAge)
	return g.k.Store.Walk(func(d v1.Hash, size int64, modTime time.Time) error {
		g.progress.items.Add(1)
		if err := ctx.Err(); err != nil {
			return err
		}
		held, err := g.k.Store.Index.Held(d)
		if err != nil {
			return err
		}
		if held {
			return g.adopt(d, size, modTime)
		}
		// A fill commits its file before its link, and ends after both.
		if modTime.After(old) || g.k.Cache.Fills().Of(d) != nil || g.k.Store.Awaits(d) {
			return nil
		}
		g.done.Blobs++
		g.done.BlobBytes += size
		if g.dryRun {
			return nil
		}
		// It may have been linked since.
		if held, err := g.k.Store.Index.Held(d); held || err != nil {
			return err
		}
		return g.k.Store.Remove(d)
	})
}

func (g *collection) adopt(d v1.Hash, size int64, modTime time.Time) error {
	info, known, err := g.k.Store.Index.Blob(d)
	if err == nil && known && info.Size == size {
		return nil
	}
	g.done.Adopted++
	if g.dryRun {
		return nil
	}
	return g.k.Store.Adopt(d, size, modTime)
}

// rows forgets the records whose file is gone.
func (g *collection) rows(ctx context.Context) error {
	var after v1.Hash
	for {
		blobs, err := g.k.Store.Index.BlobsAfter(after, scrubPage)
		if err != nil || len(blobs) == 0 {
			return err
		}
		for _, b := range blobs {
			after = b.Digest
			if _, err := g.k.Store.Disk.Stat(b.Digest); !errors.Is(err, fs.ErrNotExist) {
				continue
			}
			g.done.Rows++
			if g.dryRun {
				continue
			}
			if err := g.k.Store.Gone(b.Digest); err != nil {
				return err
			}
			if _, err := g.k.Store.Disk.Stat(b.Digest); err == nil {
				if err := g.k.Store.Adopt(b.Digest, b.Size, time.Now()); err != nil { // fetched again in between
					return err
				}
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// forgetAfter is how old the link to content that is not kept must be to be forgotten.
const forgetAfter = 90 * 24 * time.Hour

// absent forgets links and tags of what is long gone.
func (g *collection) absent(ctx context.Context) error {
	f, err := g.k.forgetAbsent(ctx, g.dryRun)
	g.done.Links, g.done.Tags = f.Links, f.Tags
	return err
}

// forgetAbsent keeps the index from growing for ever. Where a bucket has what the disk has
// not, links are still of use.
func (k *Keeper) forgetAbsent(ctx context.Context, dryRun bool) (index.Forgotten, error) {
	if k.Store.Bucket != nil {
		return index.Forgotten{}, nil
	}
	partials, err := k.Store.Disk.Partials()
	if err != nil {
		return index.Forgotten{}, err
	}
	keep := func(d v1.Hash) bool {
		return k.Cache.Fills().Of(d) != nil || k.Store.Awaits(d) || k.Images.Pins.Pinned(d) || partials[d]
	}
	f, err := k.Store.Index.ForgetAbsent(ctx, time.Now().Add(-forgetAfter), keep, dryRun)
	if f.Tags > 0 && !dryRun {
		k.Cache.ForgetTags()
	}
	return f, err
}

// partials removes the fills that nobody goes on with.
func (g *collection) partials(context.Context) error {
	before := time.Now().Add(-store.PartialAge)
	n, bytes, err := g.k.Store.Disk.OldPartials(before)
	g.done.Partials, g.done.PartialBytes = int64(n), bytes
	if err != nil || g.dryRun {
		return err
	}
	n, err = g.k.Store.Disk.SweepPartials(before)
	g.done.Partials = int64(n)
	return err
}
