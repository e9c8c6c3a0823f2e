package activity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"forebay/internal/tally"
)

// The history has two tiers: the last two hours finely, and eight days coarsely, so that
// the same day of the last week can be compared with.
const (
	fineStep    = 10 * time.Second
	fineSlots   = 720
	coarseStep  = 5 * time.Minute
	coarseSlots = 8 * 24 * 12
)

// upstreamsMost bounds the upstreams that are in the history: the first to be asked.
const upstreamsMost = 8

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
	colsOfOne    // as many had version 1
)

const (
	// Time to the first byte, in units of latencyUnit; 0 where there was none.
	colHitMedian = colsOfOne + iota
	colHitSlow
	colMissMedian
	colMissSlow
	colAgain // what was fetched again after it was evicted
	colAgainBytes
	colsFixed
)

// Columns of each upstream follow. Version 1 had the first only.
const (
	upLeft   = iota // of its budget, one more than what was left; 0 means not known
	upAsked         // requests to it
	upFailed        // of these, those that it failed, limited or did not answer
	upMedian        // time until the head of its answer, in milliseconds; 0 where there was none
	upSlow
	colsOfUpstream

	cols = colsFixed + upstreamsMost*colsOfUpstream
)

const (
	latencyUnit  = 100 * time.Microsecond
	upstreamUnit = time.Millisecond
	// slowShare is the share of requests that are faster than what is called slow.
	slowShare = 0.95
)

// mostOf bounds a number of a column, by how many bytes it may be stored in: 97 for the fixed
// columns and 15 for each upstream, so that a tier of 2304 slots stays below [NoteMost] with 3 for
// the slot.
func mostOf(column int) int64 {
	width := 5
	switch up := column - colsFixed; {
	case up >= 0:
		width = [...]int{5, 3, 3, 2, 2}[up%colsOfUpstream]
	case column >= colHitMedian && column <= colMissSlow:
		width = 3
	case column == colClientBytes, column == colUpstreamBytes, column == colEvictedBytes, column == colUsedBytes, column == colAgainBytes:
		width = 7
	}
	return 1<<(7*width) - 1
}

// adds reports whether a column counts; others are measured, and of merged steps the latest
// counts or, of latencies, the worst.
func adds(column int) bool {
	if up := column - colsFixed; up >= 0 {
		return up%colsOfUpstream == upAsked || up%colsOfUpstream == upFailed
	}
	return column < colUsedBytes || column >= colAgain
}

func isLatency(column int) bool {
	if up := column - colsFixed; up >= 0 {
		return up%colsOfUpstream >= upMedian
	}
	return column >= colHitMedian && column <= colMissSlow
}

// valueMost bounds any number that is stored.
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
	begun   int64                     // slot whose latencies are being gathered
	from    map[string]tally.Snapshot // what they were when it began
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
	mu     sync.Mutex
	fine   tier     // guarded by mu
	coarse tier     // guarded by mu
	names  []string // guarded by mu; of the upstreams that have columns
	last   sample   // guarded by mu
}

// sample is what had been counted at a moment since the start.
type sample struct {
	all       Traffic
	gauges    Gauges
	latencies map[string]tally.Snapshot // by upstream, and by the names below
}

// What the latencies of our own answers are called among those of upstreams.
const (
	ofHits   = "/hit"
	ofMisses = "/miss"
)

func (s *series) init() {
	s.fine = tier{step: fineStep, buckets: make([]bucket, fineSlots)}
	s.coarse = tier{step: coarseStep, buckets: make([]bucket, coarseSlots)}
}

// take adds what happened since the last sample to the buckets of now.
func (s *series) take(now time.Time, n sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.last
	s.last = n
	more := map[int]int64{
		colHit: n.all.Hit - l.all.Hit, colJoined: n.all.Joined - l.all.Joined, colMiss: n.all.Miss - l.all.Miss, colStale: n.all.Stale - l.all.Stale,
		colPassed: n.all.Passed - l.all.Passed, colError: n.all.Error - l.all.Error, colPulls: n.all.Pulls - l.all.Pulls,
		colSavedPulls: n.all.SavedPulls - l.all.SavedPulls, colClientBytes: n.all.ClientBytes - l.all.ClientBytes,
		colUpstreamBytes: n.all.UpstreamBytes - l.all.UpstreamBytes,
		colEvicted:       n.gauges.Evicted - l.gauges.Evicted, colEvictedBytes: n.gauges.EvictedBytes - l.gauges.EvictedBytes,
		colAgain: n.gauges.Again - l.gauges.Again, colAgainBytes: n.gauges.AgainBytes - l.gauges.AgainBytes,
	}
	for name, u := range n.gauges.Upstreams {
		before := l.gauges.Upstreams[name]
		if i := s.upstream(name, u.Requests > before.Requests); i >= 0 {
			more[i+upAsked], more[i+upFailed] = u.Requests-before.Requests, u.Failed-before.Failed
		}
	}
	for _, t := range []*tier{&s.fine, &s.coarse} {
		b := t.at(t.slot(now))
		set := func(column int, n int64) { b.values[column] = min(max(n, 0), mostOf(column)) }
		for i, n := range more {
			set(i, b.values[i]+n)
		}
		set(colUsedBytes, n.gauges.UsedBytes)
		for name, left := range n.gauges.Budgets {
			if i := s.upstream(name, true); i >= 0 {
				set(i+upLeft, left+1)
			}
		}
		s.time(t, b.slot, l.latencies, set)
	}
}

// time writes how long answers took in the bucket that now is in. before is what they were at the
// last sample. s.mu is held.
func (s *series) time(t *tier, slot int64, before map[string]tally.Snapshot, set func(int, int64)) {
	if t.begun != slot {
		t.begun, t.from = slot, before
	}
	for name, now := range s.last.latencies {
		d := now.Minus(t.from[name])
		if d.Count == 0 {
			continue
		}
		at, unit := colHitMedian, latencyUnit
		switch name {
		case ofHits:
		case ofMisses:
			at = colMissMedian
		default:
			if at, unit = s.upstream(name, false), upstreamUnit; at < 0 {
				continue
			}
			at += upMedian
		}
		set(at, int64(max(d.Quantile(0.5)/unit, 1)))
		set(at+1, int64(max(d.Quantile(slowShare)/unit, 1)))
	}
}

// upstream returns the first column of an upstream, or -1 when it has none: one that is new gets
// its columns if there is room and it has something to tell. s.mu is held.
func (s *series) upstream(name string, tells bool) int {
	i := slices.Index(s.names, name)
	if i < 0 && tells && len(s.names) < upstreamsMost && len(name) <= upstreamLen {
		i = len(s.names)
		s.names = append(s.names, name)
	}
	if i < 0 {
		return -1
	}
	return colsFixed + i*colsOfUpstream
}

// Span is how much of the history is asked for.
type Span string

// The spans.
const (
	LastHour Span = "hour" // in steps of 10 s
	LastDay  Span = "day"  // in steps of 5 min
	LastWeek Span = "week" // eight days, in steps of 30 min
)

// Series is a part of the history. The columns are as long as Times; steps in which the
// mirror did not run are left out. Latencies are microseconds, 0 where nothing was measured: the
// median, and what 95 of 100 do not exceed; of steps that were merged, the worst.
type Series struct {
	Span        Span               `json:"span"`
	StepSeconds int64              `json:"step_seconds"`
	Times       []int64            `json:"times"` // Unix seconds at which the steps begin
	Hit         []int64            `json:"hit"`
	Joined      []int64            `json:"joined"`
	Miss        []int64            `json:"miss"`
	Stale       []int64            `json:"stale"`
	Passed      []int64            `json:"passed"`
	Error       []int64            `json:"error"`
	Pulls       []int64            `json:"pulls"`
	SavedPulls  []int64            `json:"saved_pulls"`
	ClientBytes []int64            `json:"client_bytes"`
	FromBytes   []int64            `json:"upstream_bytes"`
	Evicted     []int64            `json:"evicted"`
	EvictedSize []int64            `json:"evicted_bytes"`
	Again       []int64            `json:"again"`       // files that were fetched again after they were evicted
	AgainSize   []int64            `json:"again_bytes"` // theirs
	UsedBytes   []int64            `json:"used_bytes"`  // at the end of each step
	HitMedian   []int64            `json:"hit_p50_us"`  // to the first byte of what is served from here
	HitSlow     []int64            `json:"hit_p95_us"`
	MissMedian  []int64            `json:"miss_p50_us"` // of what is fetched for its client
	MissSlow    []int64            `json:"miss_p95_us"`
	Budgets     map[string][]int64 `json:"budgets"` // pulls left at the end of each step, by upstream; -1 when not known
	// Upstreams are how those did that were asked, by name.
	Upstreams map[string]UpstreamSeries `json:"upstreams"`
	// Sum is all of it together.
	Sum Traffic `json:"sum"`
}

// UpstreamSeries is how an upstream did. The columns are those of a [Series].
type UpstreamSeries struct {
	Asked  []int64 `json:"asked"`  // requests to it
	Failed []int64 `json:"failed"` // of these: it failed, limited us or did not answer
	Median []int64 `json:"p50_us"` // until the head of its answer
	Slow   []int64 `json:"p95_us"`
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
	out := &Series{Span: span, StepSeconds: merged * int64(t.step/time.Second), Times: []int64{}, Budgets: map[string][]int64{}, Upstreams: map[string]UpstreamSeries{}}
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
	out.Again, out.AgainSize = column(colAgain), column(colAgainBytes)
	times := func(i int, unit time.Duration) []int64 {
		values := column(i)
		for n := range values {
			values[n] *= int64(unit / time.Microsecond)
		}
		return values
	}
	out.HitMedian, out.HitSlow = times(colHitMedian, latencyUnit), times(colHitSlow, latencyUnit)
	out.MissMedian, out.MissSlow = times(colMissMedian, latencyUnit), times(colMissSlow, latencyUnit)
	for i, name := range s.names {
		at := colsFixed + i*colsOfUpstream
		values := column(at + upLeft)
		for n := range values {
			values[n]--
		}
		out.Budgets[name] = values
		out.Upstreams[name] = UpstreamSeries{column(at + upAsked), column(at + upFailed), times(at+upMedian, upstreamUnit), times(at+upSlow, upstreamUnit)}
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
			case adds(i):
				to.values[i] += v
			case isLatency(i):
				to.values[i] = max(to.values[i], v)
			case i == colUsedBytes || v != 0:
				to.values[i] = v
			}
		}
	}
	return out
}

// seriesVersion is the first byte of what is stored. What version 1 stored is still read.
const seriesVersion = 2

// encode writes a tier: the names of the upstreams, then the buckets in order, all
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
		for _, v := range one.values[:colsFixed+len(s.names)*colsOfUpstream] {
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
	fixed, each := colsFixed, colsOfUpstream
	switch {
	case len(b) > 0 && b[0] == seriesVersion:
	case len(b) > 0 && b[0] == 1:
		fixed, each = colsOfOne, 1
	default:
		return fmt.Errorf("%w: unknown version", errSeries)
	}
	d := decoder{b: b[1:]}
	names := make([]int, 0, upstreamsMost) // the first column of each
	n := d.number(upstreamsMost)
	for range n {
		names = append(names, s.upstream(d.text(upstreamLen), true))
	}
	count := d.number(int64(len(t.buckets)))
	slot := int64(0)
	for range count {
		slot += d.number(valueMost)
		one := bucket{slot: slot}
		for i := range fixed {
			one.values[i] = min(d.number(valueMost), mostOf(i))
		}
		for _, column := range names {
			for i := range each {
				if v := d.number(valueMost); column >= 0 {
					one.values[column+i] = min(v, mostOf(column+i))
				}
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
