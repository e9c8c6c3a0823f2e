package upkeep

import (
	"forebay/cache/store"
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
	AgainBlobs    int64 `json:"again_blobs"` // fetched again after it was evicted: a store of about twice the size would have kept it
	AgainBytes    int64 `json:"again_bytes"`
	EvictedIdle   int64 `json:"evicted_idle_seconds"` // seconds that half of what was evicted had not been used for; 0 when nothing was
	ReleasesMoved int64 `json:"releases_moved"`       // tags of full versions, which nobody is expected to move

	QuarantineFiles int64 `json:"quarantine_files"`
	QuarantineBytes int64 `json:"quarantine_bytes"`
	Scrub           Scrub `json:"scrub"`

	// Troubles are what is wrong with the disk now.
	Troubles []store.Trouble `json:"-"`
	// Bucket is what is known of the bucket behind the folder; missing without one.
	Bucket *tier.Stats `json:"bucket,omitempty"`
	// EvictedUnsaved counts what was evicted before it was uploaded, since the start.
	EvictedUnsaved int64 `json:"evicted_unsaved"`
}

// Stats returns figures of the cache. It reads no blob and lists no index.
func (k *Keeper) Stats() (Stats, error) {
	n, kept, pins, asked := k.Store.Index.Totals(), k.Store.Figures(), k.Images.Pins.Figures(), k.Cache.Figures()
	s := Stats{
		Blobs: n.Blobs, BlobBytes: n.Bytes, Repositories: n.Repositories, Tags: n.Tags, Links: n.Links,
		UsedBytes: kept.UsedBytes, MaxBytes: k.Store.MaxBytes(), PinnedBytes: pins.Bytes, PinLimitBytes: pins.LimitBytes,
		EvictedBlobs: kept.EvictedBlobs, EvictedBytes: kept.EvictedBytes, EvictedUnsaved: kept.EvictedUnsaved, AgainBlobs: kept.Again.Count, AgainBytes: kept.Again.Bytes, EvictedIdle: int64(kept.EvictedAges.Quantile(0.5).Seconds()),
		TagsMoved: asked.TagsMoved, ReleasesMoved: asked.ReleasesMoved, Scrub: k.Scrub(), Troubles: k.Store.Troubles(),
	}
	if k.Store.Bucket != nil {
		b, refs := k.Store.Bucket.Stats(), k.Store.Refs.Stats()
		b.RefsBehind, b.RefsDamaged = refs.Behind, refs.Damaged
		s.Bucket = &b
	}
	bad, err := k.Store.Disk.Quarantined()
	if err != nil {
		return s, err
	}
	s.QuarantineFiles, s.QuarantineBytes = int64(bad.Files), bad.Bytes
	s.DiskFree, s.DiskTotal, err = k.Store.Disk.Free()
	return s, err
}
