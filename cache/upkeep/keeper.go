// Package upkeep works on what is kept: it verifies and repairs, fetches images whole,
// purges, imports and collects garbage, for operators and by itself.
//
// It promises that clients come first, and that nothing is lost that somebody asked to
// keep: what is pinned goes only by force. What it does it does through the floors below,
// so that no file changes without its record.
package upkeep

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache"
	"forebay/cache/image"
	"forebay/cache/store"
	"forebay/internal/logkey"
)

// Repo names a repository of an upstream.
type Repo = cache.Repo

// Options configures a [Keeper]. The zero value does no scrub.
type Options struct {
	// ScrubInterval is how long everything that is kept may go unread before it is compared
	// with its digest again. 0 means never.
	ScrubInterval time.Duration
	ScrubRate     int64 // bytes per second that this reads at most; 0 means 16 MiB
}

// Keeper keeps a cache in order. Its methods may be called concurrently.
type Keeper struct {
	Cache  *cache.Cache
	Store  *store.Store
	Images *image.Images

	opts     Options
	log      *zap.Logger
	imports  imports
	signers  signers
	scrubbed atomic.Pointer[scrubState] // as of the last blob; nil while it is off
}

// New returns the keeper of a cache, which is not yet in use. It starts nothing: the caller
// starts Run once, beside the cache's.
func New(c *cache.Cache, o Options) *Keeper {
	k := &Keeper{Cache: c, Store: c.Store(), Images: c.Images(), opts: o, log: c.Store().Log, signers: newSigners(c.Store().Dir())}
	k.Store.OnDamaged(func(d v1.Hash) {
		if k.check(c.Life(), d, nil, nil).bad != nil {
			k.refetch(c.Life(), d)
		}
	})
	return k
}

// Run scrubs and sweeps until ctx is done.
func (k *Keeper) Run(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { k.scrub(ctx) })
	work.Go(func() { k.lookAfterGone(ctx) })
	k.sweep(ctx)
}

const (
	// sweepEvery is how often pins are gathered anew and old quarantine is removed.
	sweepEvery = time.Hour
	// forgetEvery is how often links of what is long gone are looked for.
	forgetEvery = 24 * time.Hour
	// quarantineAge is how long damaged blobs are kept for somebody to look at.
	quarantineAge = 14 * 24 * time.Hour
)

// sweep gathers the pins anew, since tags move, and removes what has been in quarantine or
// unknown for long enough, until ctx is done.
func (k *Keeper) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	forgot := time.Now()
	for {
		if time.Since(forgot) > forgetEvery {
			forgot = time.Now()
			f, err := k.forgetAbsent(ctx, false)
			if f.Links+f.Tags > 0 || err != nil && ctx.Err() == nil {
				k.log.Info("links of what is long gone forgotten", zap.Int64("links", f.Links), zap.Int64("tags", f.Tags), logkey.Err(err))
			}
		}
		if n, err := k.Store.Disk.SweepQuarantine(time.Now().Add(-quarantineAge)); n > 0 || err != nil {
			k.log.Info("quarantine swept", logkey.Count(n), logkey.Err(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if k.Images.Pins.InUse() {
			k.Images.Pins.List()
		}
	}
}

// Pin pins a tag, or a digest if the tag is empty, in place of a pin of the same name. It
// asks the upstream for manifests that are needed to tell how large the image is, and
// fetches no blob: see [Keeper.Repair]. The error is [image.ErrPinsTooLarge] when it does
// not fit beside the other pins.
func (k *Keeper) Pin(ctx context.Context, repo Repo, tag string, d v1.Hash, platforms []string) (*image.Pin, error) {
	if err := image.CheckPlatforms(platforms); err != nil {
		return nil, err
	}
	f := k.newFetching(Request{Repo: repo, Tag: tag, Digest: d, Platforms: platforms}, inFull)
	if err := f.learn(ctx); err != nil {
		return nil, fmt.Errorf("pin %s: %w", image.Name(repo, tag, d), err)
	}
	return k.Images.Pins.Put(ctx, repo, tag, d, platforms)
}
