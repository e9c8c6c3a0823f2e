package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

func linkOf(desc v1.Descriptor) index.Link {
	return index.Link{MediaType: string(desc.MediaType), Size: desc.Size, At: time.Now()}
}

// linkManifest records that repo holds the manifest desc.
func (c *Cache) linkManifest(repo Repo, desc v1.Descriptor) error {
	return c.record(func(b *index.Batch) error {
		return b.PutLink(repo, index.Manifest, desc.Digest, linkOf(desc))
	})
}

// linked reports whether repo holds d.
func (c *Cache) linked(repo Repo, k index.Kind, d v1.Hash) bool {
	_, ok, err := c.index.Link(repo, k, d)
	return ok && err == nil
}

// keeps reports whether the manifest d can be served for repo without the upstream.
func (c *Cache) keeps(repo Repo, d v1.Hash) bool {
	if c.hot.Contains(hotKey(repo, d)) {
		return true
	}
	_, ok := c.storedSize(d)
	return ok && c.linked(repo, index.Manifest, d)
}

// keptSize returns the size of committed content.
func (c *Cache) keptSize(d v1.Hash) (int64, bool) {
	size, err := c.disk.Stat(d)
	return size, err == nil
}

// readKept returns the bytes of committed content of at most most bytes.
func (c *Cache) readKept(d v1.Hash, most int64) ([]byte, error) {
	f, size, err := c.disk.Blob(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > most {
		return nil, fmt.Errorf("%s has %d bytes, want at most %d", d, size, most)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", d, err)
	}
	return b, nil
}

// possesses reports whether there are bytes of d, complete or not: then a repository that
// is not linked to it must prove that it holds it before any of them goes out.
func (c *Cache) possesses(d v1.Hash) bool {
	_, kept := c.storedSize(d)
	return kept || c.running(d) != nil || c.disk.HasPartial(d)
}

// unreadable notes that kept content cannot be read: to its readers it is absent, and
// comes from the upstream.
func (c *Cache) unreadable(d v1.Hash, err error) {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return
	}
	c.storeUsed(&c.reads, err)
	c.log.Error("kept content cannot be read", logkey.Digest(d), logkey.Err(err))
}

// unread notes that the index could not tell something: it counts as unknown.
func (c *Cache) unread(err error) {
	c.storeUsed(&c.records, err)
	c.log.Error("index cannot be read", logkey.Err(err))
}

// readRefs notes how large a manifest says its blobs are, which shapes requests only, and
// returns what it refers to, its own children before all.
func (c *Cache) readRefs(manifest []byte) (refs []v1.Hash) {
	m, ok := parseDoc(manifest)
	if !ok {
		return nil
	}
	for _, child := range m.Manifests {
		if d, ok := child.digest(); ok {
			refs = append(refs, d)
		}
	}
	for _, p := range m.blobs() {
		refs = append(refs, p.Digest)
		if p.Size > 0 {
			c.sizes.Add(p.Digest, p.Size)
		}
	}
	return refs
}

// Troubled reports whether a fill of repo failed for good a short while ago, so that a
// client that cannot fall back for a blob should not begin with a manifest.
func (c *Cache) Troubled(repo Repo) bool {
	_, ok := c.trouble.get(repo)
	return ok
}

// Servable reports whether a client that has m will get its blobs: all of them are kept
// and linked, or the upstream is not known to fail. Of an index only the children tell.
func (c *Cache) Servable(_ context.Context, repo Repo, m *Manifest) bool {
	o, err := c.origin(repo)
	if err != nil || !o.health.ailing() {
		return err == nil
	}
	doc, ok := parseDoc(m.Bytes)
	if !ok {
		return false
	}
	for _, p := range doc.blobs() { // foreign layers are not ours to serve, and not among them
		if _, ok := c.storedSize(p.Digest); !ok || !c.linked(repo, index.Blob, p.Digest) {
			return false
		}
	}
	return true
}

// Run does the cache's work in the background until ctx is done: it writes what was
// gathered in memory and sweeps partial fills that nobody asked for again.
func (c *Cache) Run(ctx context.Context) error {
	errs := make(chan error, 1)
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { errs <- c.index.Run(ctx) })
	work.Go(func() { c.refreshAhead(ctx) })
	work.Go(func() { c.space.run(ctx) })
	work.Go(func() { c.scrub(ctx) })
	work.Go(func() { c.upkeep(ctx) })
	work.Go(func() { c.keepWants(ctx) })
	work.Go(func() { c.heal(ctx) })
	if c.tier != nil {
		work.Go(func() { c.tier.Run(ctx) })
	}
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		c.dropOld()
		if _, err := c.disk.SweepPartials(time.Now().Add(-partialAge)); err != nil {
			c.log.Warn("old partial fills not swept", logkey.Err(err))
		}
		select {
		case <-tick.C:
		case err := <-errs:
			return err
		}
	}
}

const (
	// partialAge is how long a partial fill waits to be asked for again.
	partialAge = 24 * time.Hour
	sweepEvery = time.Hour
)

// Close stops the fills, keeping what they have for a later start, and closes the index
// and the store. Readers must be gone.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.stop()
	c.mu.Unlock()
	c.wg.Wait()
	var err error
	if c.wants.file != "" {
		err = c.wants.write()
	}
	return errors.Join(err, c.index.Close(), c.disk.Close())
}

// tooLate is what a caller gets whose own time is over.
func tooLate(ctx context.Context, repo Repo, op string) error {
	return &pull.Error{Kind: pull.Timeout, Upstream: repo.Upstream, Op: op, Err: ctx.Err()}
}
