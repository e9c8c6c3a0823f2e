package upkeep

import (
	"time"

	"forebay/cache/store"
	"forebay/cache/tier"
)

// Stats are figures of the cache as a whole.
type Stats struct {
	Blobs        int64 // files, manifests included
	BlobBytes    int64
	Repositories int64
	Tags         int64
	Links        int64 // rights of repositories to digests

	UsedBytes int64 // of the folder, index and reservations of fills included
	MaxBytes  int64 // 0 means no limit
	DiskFree  uint64
	DiskTotal uint64

	PinnedBytes   int64
	PinLimitBytes int64 // 0 means no limit

	// Since the start.
	EvictedBlobs  int64
	EvictedBytes  int64
	TagsMoved     int64
	AgainBlobs    int64 // fetched again after it was evicted: a store of about twice the size would have kept it
	AgainBytes    int64
	EvictedIdle   time.Duration // how long half of what was evicted had not been used; 0 when nothing was
	ReleasesMoved int64         // tags of full versions, which nobody is expected to move

	QuarantineFiles int64
	QuarantineBytes int64
	Scrub           Scrub

	// Troubles are what is wrong with the disk now.
	Troubles []store.Trouble
	// Bucket is what is known of the bucket behind the folder; missing without one.
	Bucket *tier.Stats
	// EvictedUnsaved counts what was evicted before it was uploaded, since the start.
	EvictedUnsaved int64
}

// Stats returns figures of the cache. It reads no blob and lists no index.
func (k *Keeper) Stats() (Stats, error) {
	n, kept, pins, asked := k.Store.Index.Totals(), k.Store.Figures(), k.Images.Pins.Figures(), k.Cache.Figures()
	s := Stats{
		Blobs: n.Blobs, BlobBytes: n.Bytes, Repositories: n.Repositories, Tags: n.Tags, Links: n.Links,
		UsedBytes: kept.UsedBytes, MaxBytes: k.Store.MaxBytes(), PinnedBytes: pins.Bytes, PinLimitBytes: pins.LimitBytes,
		EvictedBlobs: kept.EvictedBlobs, EvictedBytes: kept.EvictedBytes, EvictedUnsaved: kept.EvictedUnsaved, AgainBlobs: kept.Again.Count, AgainBytes: kept.Again.Bytes, EvictedIdle: kept.EvictedAges.Quantile(0.5),
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
