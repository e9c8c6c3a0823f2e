package activity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// The history has two tiers: the last two hours finely, and eight days coarsely, so that
// the same day of the last week can be compared with.
const (
	fineStep    = 10 * time.Second
	fineSlots   = 720
	coarseStep  = 5 * time.Minute
	coarseSlots = 8 * 24 * 12
)

// budgetsMost bounds the upstreams whose budget is in the history: the first to tell one.
const budgetsMost = 8

// columns of a bucket. Their order is that of what is stored: append only, and raise
// seriesVersion.
const (
	colHit = iota
	colJoined
	colMiss
	colStale
	colPassed
	colError
	colPulls
	colSavedPulls
	colClientBytes
	colUpstreamBytes
	colEvicted
	colEvictedBytes
	colUsedBytes // as it was at the end of the bucket
	colsFixed
	// Budgets follow, each one more than what was left; 0 means not known.
	cols = colsFixed + budgetsMost
)

// valueMost bounds a number that is stored to seven bytes, and so a tier to
// 2304 × (21 × 7 + 3) bytes, well below NoteMost.
const valueMost = 1<<49 - 1

// bucket is what happened in one step of a tier.
type bucket struct {
	slot   int64 // Unix time divided by the step; 0 means empty
	values [cols]int64
}

// tier is a ring of buckets by slot.
type tier struct {
	step    time.Duration
	buckets []bucket
}

func (t *tier) slot(at time.Time) int64 { return at.UnixNano() / int64(t.step) }

// at returns the bucket of a slot, emptied if it was of another one.
func (t *tier) at(slot int64) *bucket {
	b := &t.buckets[slot%int64(len(t.buckets))]
	if b.slot != slot {
		*b = bucket{slot: slot}
	}
	return b
}

// ordered returns the buckets of the slots from first to last that are not empty.
func (t *tier) ordered(first, last int64) []bucket {
	var list []bucket
	for _, b := range t.buckets {
		if b.slot != 0 && b.slot >= first && b.slot <= last {
			list = append(list, b)
		}
	}
	slices.SortFunc(list, func(a, b bucket) int { return int(a.slot - b.slot) })
	return list
}

// series is the history.
type series struct {
	mu      sync.Mutex
	fine    tier     // guarded by mu
	coarse  tier     // guarded by mu
	names   []string // guarded by mu; of the upstreams of the budget columns
	last    Traffic  // guarded by mu; totals as of the last sample
	evicted [2]int64 // guarded by mu; likewise, blobs and bytes
}

func (s *series) init() {
	s.fine = tier{step: fineStep, buckets: make([]bucket, fineSlots)}
	s.coarse = tier{step: coarseStep, buckets: make([]bucket, coarseSlots)}
}

// take adds what happened since the last sample to the buckets of now.
func (s *series) take(now time.Time, all Traffic, g Gauges) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.last
	more := [colUsedBytes]int64{
		colHit: all.Hit - l.Hit, colJoined: all.Joined - l.Joined, colMiss: all.Miss - l.Miss, colStale: all.Stale - l.Stale,
		colPassed: all.Passed - l.Passed, colError: all.Error - l.Error, colPulls: all.Pulls - l.Pulls,
		colSavedPulls: all.SavedPulls - l.SavedPulls, colClientBytes: all.ClientBytes - l.ClientBytes,
		colUpstreamBytes: all.UpstreamBytes - l.UpstreamBytes,
		colEvicted:       g.Evicted - s.evicted[0], colEvictedBytes: g.EvictedBytes - s.evicted[1],
	}
	s.last, s.evicted = all, [2]int64{g.Evicted, g.EvictedBytes}
	for _, t := range []*tier{&s.fine, &s.coarse} {
		b := t.at(t.slot(now))
		for i, n := range more {
			b.values[i] = clamp(b.values[i] + n)
		}
		b.values[colUsedBytes] = clamp(g.UsedBytes)
		for name, left := range g.Budgets {
			if i := s.budget(name); i >= 0 {
				b.values[i] = clamp(left + 1)
			}
		}
	}
}

// budget returns the column of an upstream's budget, or -1 when there is no room. s.mu is held.
func (s *series) budget(name string) int {
	i := slices.Index(s.names, name)
	if i < 0 && len(s.names) < budgetsMost && len(name) <= upstreamLen {
		i = len(s.names)
		s.names = append(s.names, name)
	}
	if i < 0 {
		return -1
	}
	return colsFixed + i
}

func clamp(n int64) int64 { return min(max(n, 0), valueMost) }

// Span is how much of the history is asked for.
type Span string

// The spans.
const (
	LastHour Span = "hour" // in steps of 10 s
	LastDay  Span = "day"  // in steps of 5 min
	LastWeek Span = "week" // eight days, in steps of 30 min
)

// Series is a part of the history. The columns are as long as Times; steps in which the
// mirror did not run are left out.
type Series struct {
	Span        Span
	StepSeconds int64
	Times       []int64 // Unix seconds at which the steps begin
	Hit         []int64
	Joined      []int64
	Miss        []int64
	Stale       []int64
	Passed      []int64
	Error       []int64
	Pulls       []int64
	SavedPulls  []int64
	ClientBytes []int64
	FromBytes   []int64
	Evicted     []int64
	EvictedSize []int64
	UsedBytes   []int64            // at the end of each step
	Budgets     map[string][]int64 // pulls left at the end of each step, by upstream; -1 when not known
	// Sum is all of it together.
	Sum Traffic
}

// Series returns a part of the history, up to this moment.
func (r *Recorder) Series(span Span) *Series {
	r.sample()
	now := time.Now()
	s := &r.series
	s.mu.Lock()
	defer s.mu.Unlock()
	switch span {
	case LastDay:
		return s.cut(span, &s.coarse, now, 24*12, 1)
	case LastWeek:
		return s.cut(span, &s.coarse, now, coarseSlots, 6)
	default:
		return s.cut(LastHour, &s.fine, now, 360, 1)
	}
}

// cut makes a Series of the last slots of a tier. Each step merges so many slots.
func (s *series) cut(span Span, t *tier, now time.Time, slots, merged int64) *Series {
	last := t.slot(now)
	list := merge(t.ordered(last-slots+1, last), merged)
	out := &Series{Span: span, StepSeconds: merged * int64(t.step/time.Second), Times: []int64{}, Budgets: map[string][]int64{}}
	for _, b := range list {
		out.Times = append(out.Times, b.slot*out.StepSeconds)
	}
	column := func(i int) []int64 {
		values := make([]int64, len(list))
		for n := range list {
			values[n] = list[n].values[i]
		}
		return values
	}
	out.Hit, out.Joined, out.Miss, out.Stale = column(colHit), column(colJoined), column(colMiss), column(colStale)
	out.Passed, out.Error, out.Pulls, out.SavedPulls = column(colPassed), column(colError), column(colPulls), column(colSavedPulls)
	out.ClientBytes, out.FromBytes = column(colClientBytes), column(colUpstreamBytes)
	out.Evicted, out.EvictedSize, out.UsedBytes = column(colEvicted), column(colEvictedBytes), column(colUsedBytes)
	for i, name := range s.names {
		values := column(colsFixed + i)
		for n := range values {
			values[n]--
		}
		out.Budgets[name] = values
	}
	out.Sum = Traffic{
		Hit: sum(out.Hit), Joined: sum(out.Joined), Miss: sum(out.Miss), Stale: sum(out.Stale), Passed: sum(out.Passed),
		Error: sum(out.Error), Pulls: sum(out.Pulls), SavedPulls: sum(out.SavedPulls),
		ClientBytes: sum(out.ClientBytes), UpstreamBytes: sum(out.FromBytes),
	}
	return out
}

func sum(list []int64) (all int64) {
	for _, n := range list {
		all += n
	}
	return all
}

// merge makes one bucket of each n slots. Values that are no sums are those of the last slot.
func merge(list []bucket, n int64) []bucket {
	if n == 1 {
		return list
	}
	var out []bucket
	for _, b := range list {
		slot := b.slot / n
		if len(out) == 0 || out[len(out)-1].slot != slot {
			out = append(out, bucket{slot: slot})
		}
		to := &out[len(out)-1]
		for i, v := range b.values {
			switch {
			case i < colUsedBytes:
				to.values[i] += v
			case i == colUsedBytes || v != 0:
				to.values[i] = v
			}
		}
	}
	return out
}

// seriesVersion is the first byte of what is stored.
const seriesVersion = 1

// encode writes a tier: the names of the budget columns, then the buckets in order, all
// numbers as uvarints.
func (s *series) encode(t *tier) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := []byte{seriesVersion}
	b = binary.AppendUvarint(b, uint64(len(s.names)))
	for _, name := range s.names {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
	}
	list := t.ordered(1, valueMost)
	b = binary.AppendUvarint(b, uint64(len(list)))
	before := int64(0)
	for _, one := range list {
		b = binary.AppendUvarint(b, uint64(one.slot-before))
		before = one.slot
		for _, v := range one.values[:colsFixed+len(s.names)] {
			b = binary.AppendUvarint(b, uint64(v))
		}
	}
	return b
}

var errSeries = errors.New("stored history is damaged")

// decode reads what encode wrote into a tier. Buckets that are taken already stay.
func (s *series) decode(b []byte, t *tier) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(b) == 0 || b[0] != seriesVersion {
		return fmt.Errorf("%w: unknown version", errSeries)
	}
	d := decoder{b: b[1:]}
	names := make([]int, 0, budgetsMost) // the column of each
	n := d.number(budgetsMost)
	for range n {
		names = append(names, s.budget(d.text(upstreamLen)))
	}
	count := d.number(int64(len(t.buckets)))
	slot := int64(0)
	for range count {
		slot += d.number(valueMost)
		one := bucket{slot: slot}
		for i := range colsFixed {
			one.values[i] = d.number(valueMost)
		}
		for _, column := range names {
			if v := d.number(valueMost); column >= 0 {
				one.values[column] = v
			}
		}
		if d.bad || slot <= 0 || slot > valueMost {
			return errSeries
		}
		if to := &t.buckets[slot%int64(len(t.buckets))]; to.slot < slot {
			*to = one
		}
	}
	if d.bad || len(d.b) > 0 {
		return errSeries
	}
	return nil
}

// decoder reads numbers and texts; bad is set once something is not as it should be.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) number(most int64) int64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || v > uint64(most) {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return int64(v)
}

func (d *decoder) text(most int64) string {
	n := d.number(most)
	if n > int64(len(d.b)) {
		d.bad, d.b = true, nil
		return ""
	}
	s := string(d.b[:n])
	d.b = d.b[n:]
	return s
}
