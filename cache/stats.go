package cache

import (
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/tier"
)

// Stats are figures of the cache as a whole.
type Stats struct {
	Blobs        int64 `json:"blobs"` // files, manifests included
	BlobBytes    int64 `json:"blob_bytes"`
	Repositories int64 `json:"repositories"`
	Tags         int64 `json:"tags"`
	Links        int64 `json:"links"` // rights of repositories to digests

	UsedBytes int64  `json:"used_bytes"` // of the folder, index and reservations of fills included
	MaxBytes  int64  `json:"max_bytes"`  // 0 means no limit
	DiskFree  uint64 `json:"disk_free_bytes"`
	DiskTotal uint64 `json:"disk_total_bytes"`

	PinnedBytes   int64 `json:"pinned_bytes"`
	PinLimitBytes int64 `json:"pin_limit_bytes"` // 0 means no limit

	// Since the start.
	EvictedBlobs  int64 `json:"evicted_blobs"`
	EvictedBytes  int64 `json:"evicted_bytes"`
	TagsMoved     int64 `json:"tags_moved"`
	ReleasesMoved int64 `json:"releases_moved"` // tags of full versions, which nobody is expected to move

	QuarantineFiles int64 `json:"quarantine_files"`
	QuarantineBytes int64 `json:"quarantine_bytes"`
	Scrub           Scrub `json:"scrub"`

	// Troubles are what is wrong with the disk now.
	Troubles []Trouble `json:"troubles"`
	// Bucket is what is known of the bucket behind the folder; missing without one.
	Bucket *tier.Stats `json:"bucket,omitempty"`
	// EvictedUnsaved counts what was evicted before it was uploaded, since the start.
	EvictedUnsaved int64 `json:"evicted_unsaved"`
}

// Stats returns figures of the cache. It reads no blob and lists no index.
func (c *Cache) Stats() (Stats, error) {
	n := c.index.Totals()
	s := Stats{
		Blobs: n.Blobs, BlobBytes: n.Bytes, Repositories: n.Repositories, Tags: n.Tags, Links: n.Links,
		UsedBytes: c.space.used(), MaxBytes: c.opts.MaxBytes, PinLimitBytes: c.pinLimit(),
		EvictedBlobs: c.space.evicted.Load(), EvictedBytes: c.space.freed.Load(),
		TagsMoved: c.counts.tagsMoved.Load(), ReleasesMoved: c.counts.releasesMoved.Load(), Scrub: c.Scrub(),
		Troubles: c.Troubles(),
	}
	s.EvictedUnsaved = c.space.unsaved.Load()
	if c.tier != nil {
		b := c.tier.Stats()
		s.Bucket = &b
	}
	c.loadPins()
	c.pins.mu.RLock()
	s.PinnedBytes = c.pins.bytes
	c.pins.mu.RUnlock()
	bad, err := c.disk.Quarantined()
	if err != nil {
		return s, err
	}
	s.QuarantineFiles, s.QuarantineBytes = int64(bad.Files), bad.Bytes
	s.DiskFree, s.DiskTotal, err = c.disk.Free()
	return s, err
}

// FillInfo is a fill in progress.
type FillInfo struct {
	Upstream   string  `json:"upstream"`
	Repository string  `json:"repository"`
	Digest     v1.Hash `json:"digest"`
	Bytes      int64   `json:"bytes"` // that have arrived
	Size       int64   `json:"size"`  // of the whole; -1 while unknown
	Clients    int     `json:"clients"`
	// Verifying is whether a kept blob is being verified beside its first reading: nothing
	// comes from the upstream.
	Verifying bool `json:"verifying,omitempty"`
}

// Fills lists the fills in progress, by name.
func (c *Cache) Fills() []FillInfo {
	c.mu.Lock()
	running := make([]*fill, 0, len(c.fills))
	for _, f := range c.fills {
		running = append(running, f)
	}
	c.mu.Unlock()
	list := []FillInfo{}
	for _, f := range running {
		bytes, _ := f.arrived()
		f.mu.Lock()
		if !f.ended {
			list = append(list, FillInfo{
				Upstream: f.source.repo.Upstream, Repository: f.source.repo.Name, Digest: f.digest,
				Bytes: bytes, Size: f.size, Clients: f.holders, Verifying: f.part == nil,
			})
		}
		f.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b FillInfo) int {
		return strings.Compare(a.Upstream+"/"+a.Repository+a.Digest.Hex, b.Upstream+"/"+b.Repository+b.Digest.Hex)
	})
	return list
}

// UpstreamInfo is how an upstream does, as far as the cache has seen.
type UpstreamInfo struct {
	Name string `json:"name"`
	// State is "answers", "fails" (its last word was a failure, a short while ago),
	// "offline" (it is never asked) or "unknown" (it was not asked since the start).
	State     string    `json:"state"`
	LastAsked time.Time `json:"last_asked,omitzero"` // when it last answered or failed
	// Failed is whether its last word was a failure, however long ago.
	Failed bool `json:"-"`
	// Sparing is whether so little is left of its budget that tags that moved are served stale.
	Sparing bool `json:"sparing"`
}

// Upstreams tells how the upstreams do, by name.
func (c *Cache) Upstreams() []UpstreamInfo {
	list := make([]UpstreamInfo, 0, len(c.upstreams))
	for name, o := range c.upstreams {
		u := UpstreamInfo{Name: name, State: "unknown", Sparing: o.low()}
		if last := o.health.last.Load(); last != 0 {
			u.State, u.LastAsked, u.Failed = "answers", time.Unix(0, max(last, -last)), last < 0
		}
		if o.health.ailing() {
			u.State = "fails"
		}
		if o.Offline {
			u.State = "offline"
		}
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b UpstreamInfo) int { return strings.Compare(a.Name, b.Name) })
	return list
}
