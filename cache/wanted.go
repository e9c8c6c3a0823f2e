package cache

import (
	"context"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/image"
	"forebay/cache/wanted"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

const wantedName = "wanted.json"

// keepWanted writes the list, and that of what is gone, soon after they changed, until ctx is done.
func (c *Cache) keepWanted(ctx context.Context) {
	c.wanted.Run(ctx, c.gone.Write, func(err error) {
		if c.known.warned.First(key{what: aFile, ref: wantedName}) {
			c.log.Warn("list of what is wanted is not written", logkey.Err(err))
		}
	})
}

// openWanted reads the list that an earlier run left.
func (c *Cache) openWanted() {
	var err error
	if c.wanted, err = wanted.Open(filepath.Join(c.opts.Store.Dir, wantedName)); err != nil {
		c.log.Warn("list of what is wanted is lost", logkey.Err(err))
	}
}

// offlineMiss is the answer of an upstream that must not be asked, for what a client wants
// of it: a tag, or the digest of a manifest or of a blob. It is noted as wanted.
func (c *Cache) offlineMiss(ctx context.Context, repo Repo, tag string, d v1.Hash, blob bool) error {
	o := c.origins()[repo.Upstream]
	drilled := o != nil && !o.Offline
	if pull.Client(ctx) != "" && !drilled { // not for what we or operators want, nor what is there after a rehearsal
		w := wanted.Wanted{Ref: image.Name(repo, tag, d), Blob: blob}
		if blob {
			if holder := c.images.HolderOf(repo, d); holder != "" {
				w = wanted.Wanted{Ref: holder}
			}
		}
		c.wanted.Add(w, pull.Client(ctx), time.Now())
	}
	return offlineError(repo)
}

// Wanted is the list of what clients asked for in vain, what has come since by another way included: see upkeep.
func (c *Cache) Wanted() *wanted.List { return c.wanted }
