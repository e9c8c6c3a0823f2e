package store

import (
	"forebay/cache/evict"
	"forebay/internal/tally"
)

// Figures are what became of content since the start, and how much there is.
type Figures struct {
	UsedBytes int64 // of the folder, index and reservations of fills included
	// What was evicted, how much of it before it was uploaded, and how long it had not been used.
	EvictedBlobs   int64
	EvictedBytes   int64
	EvictedUnsaved int64
	EvictedAges    tally.Snapshot
	// Again is what was fetched again after it had been evicted: a store of about twice the size would have kept it.
	Again   evict.Again
	Damaged int64 // blobs that were found not to have their digest any more
}

// Figures returns what was counted.
func (s *Store) Figures() Figures {
	n := &s.Room.counts
	return Figures{
		UsedBytes:    s.Room.used(),
		EvictedBlobs: n.blobs.Load(), EvictedBytes: n.bytes.Load(), EvictedUnsaved: n.unsaved.Load(), EvictedAges: n.ages.Read(), Again: s.Room.policy.Again(),
		Damaged: s.damaged.Load(),
	}
}
