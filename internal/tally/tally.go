// Package tally counts events and durations on hot paths: by atomics, without a lock and
// without an allocation. Readers take a snapshot.
//
// A snapshot taken while things happen may lack the latest of them.
package tally

import (
	"sort"
	"sync/atomic"
	"time"
)

// Histogram counts durations by classes. Its methods may be called concurrently, on nil
// too: then nothing is counted.
type Histogram struct {
	bounds  []time.Duration // upper bounds, ascending; shared and never changed
	classes []atomic.Int64  // one more than bounds: what is larger than all
	sum     atomic.Int64    // nanoseconds
}

// NewHistogram returns an empty histogram with the given upper bounds, which must ascend
// and belong to it from now on.
func NewHistogram(bounds []time.Duration) *Histogram {
	return &Histogram{bounds: bounds, classes: make([]atomic.Int64, len(bounds)+1)}
}

// Add counts one duration; a negative one counts as none.
func (h *Histogram) Add(d time.Duration) {
	if h == nil {
		return
	}
	d = max(d, 0)
	h.classes[sort.Search(len(h.bounds), func(i int) bool { return d <= h.bounds[i] })].Add(1)
	h.sum.Add(int64(d))
}

// Since counts the time from start until now.
func (h *Histogram) Since(start time.Time) { h.Add(time.Since(start)) }

// Snapshot is what a [Histogram] had counted at a moment.
type Snapshot struct {
	Count   uint64
	Sum     time.Duration
	Buckets []Bucket // by ascending bounds
}

// Bucket says how many were at most as large as its bound.
type Bucket struct {
	UpTo  time.Duration
	Count uint64 // of all smaller ones too
}

// Read returns a snapshot; of nil an empty one.
func (h *Histogram) Read() Snapshot {
	if h == nil {
		return Snapshot{}
	}
	s := Snapshot{Buckets: make([]Bucket, len(h.bounds))}
	for i := range h.classes {
		s.Count += uint64(h.classes[i].Load())
		if i < len(h.bounds) {
			s.Buckets[i] = Bucket{UpTo: h.bounds[i], Count: s.Count}
		}
	}
	s.Sum = time.Duration(h.sum.Load())
	return s
}

// Plus returns the snapshot of both together. An empty one takes the bounds of the other; else they
// must have the same.
func (s Snapshot) Plus(o Snapshot) Snapshot { return s.combine(o, 1) }

// Minus returns what was counted after o, an earlier snapshot of the same histogram.
func (s Snapshot) Minus(o Snapshot) Snapshot { return s.combine(o, -1) }

func (s Snapshot) combine(o Snapshot, sign int64) Snapshot {
	if len(o.Buckets) == 0 {
		return s
	}
	out := Snapshot{Count: uint64(int64(s.Count) + sign*int64(o.Count)), Sum: s.Sum + time.Duration(sign)*o.Sum, Buckets: make([]Bucket, len(o.Buckets))}
	for i, b := range o.Buckets {
		out.Buckets[i] = Bucket{UpTo: b.UpTo, Count: uint64(sign * int64(b.Count))}
		if i < len(s.Buckets) {
			out.Buckets[i].Count += s.Buckets[i].Count
		}
	}
	return out
}

// Quantile returns a duration that the share q (0 to 1) of what was counted does not exceed, to a
// class: within it durations are taken to be spread evenly. 0 of nothing; of what is larger than
// all bounds the largest of them.
func (s Snapshot) Quantile(q float64) time.Duration {
	rank, below, from := q*float64(s.Count), 0.0, time.Duration(0)
	for _, b := range s.Buckets {
		if n := float64(b.Count); n >= rank && n > below {
			return from + time.Duration(float64(b.UpTo-from)*(max(rank-below, 0)/(n-below)))
		}
		below, from = float64(b.Count), b.UpTo
	}
	if s.Count == 0 {
		return 0
	}
	return from
}

// Latencies are bounds for work that needs a network or a disk: from half a millisecond to
// half a minute.
func Latencies() []time.Duration {
	const ms = time.Millisecond
	return []time.Duration{ms / 2, ms, 2 * ms, 5 * ms, 10 * ms, 25 * ms, 50 * ms, 100 * ms, 250 * ms, 500 * ms,
		time.Second, 2500 * ms, 5 * time.Second, 10 * time.Second, 30 * time.Second}
}

// Moments are bounds for work in memory or in the page cache.
func Moments() []time.Duration {
	const us = time.Microsecond
	return []time.Duration{us, 2 * us, 5 * us, 10 * us, 25 * us, 50 * us, 100 * us, 250 * us, 500 * us,
		time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, time.Second}
}

// Ages are bounds for the time since something was last used.
func Ages() []time.Duration {
	const day = 24 * time.Hour
	return []time.Duration{10 * time.Minute, time.Hour, 6 * time.Hour, day, 3 * day, 7 * day, 14 * day, 30 * day, 90 * day}
}
