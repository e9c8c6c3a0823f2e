// Package activity remembers who asked for what lately, and how it went: totals, the
// clients and repositories that ask most, a history of some days, and a log of events.
//
// It promises a fixed bound on its memory, whatever names clients send and however many.
// The figures of a client or repository are exact from its Since on, and leave out the time
// before.
//
// Lock order: none; no two locks of this package are held at once.
package activity

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"forebay/internal/logkey"
	"forebay/internal/tally"
	"forebay/internal/wire"
)

// Options configures a [Recorder]. Upstreams is required.
type Options struct {
	Upstreams []string // names of the configured registries
	// Received returns how many bytes of bodies came from each upstream since the start, Gauges
	// the figures that others count. nil means that there are none. They must be quick and must
	// not call the recorder.
	Received func() map[string]int64
	Gauges   func() Gauges
	Names    *Names      // what clients are called; nil means that nobody knows
	Store    Store       // where the history outlives a restart; nil means nowhere
	Log      *zap.Logger // nil means no logging
}

// Store keeps small pieces of bookkeeping by name, at most [NoteMost] bytes each.
type Store interface {
	Note(name string) ([]byte, bool, error)
	PutNote(name string, note []byte) error
}

// NoteMost bounds each piece that is given to a [Store].
const NoteMost = 512 << 10

// Gauges are figures that others count.
type Gauges struct {
	UsedBytes    int64            // of the store, now
	Evicted      int64            // blobs since the start
	EvictedBytes int64            // since the start
	Again        int64            // blobs that were fetched again after they were evicted, since the start
	AgainBytes   int64            // since the start
	Elsewhere    map[string]int64 // pulls that others spent in the window, by upstream
	Budgets      map[string]int64 // pulls left, by upstream; absent when it did not say
	Upstreams    map[string]Asked // by name
}

// Asked is what an upstream was asked since the start.
type Asked struct {
	Requests int64
	Failed   int64          // of these: it failed, limited us or did not answer
	Took     tally.Snapshot // until the head of its answer
}

// Request is one answered request of a client.
type Request struct {
	Client     string // address without port
	User       string // who the client has proved to be; empty for nobody
	UserAgent  string
	Upstream   string // empty when it named none that is configured
	Repository string
	Reference  string        // tag or digest
	Result     string        // hit, joined, miss, stale, passed, error; else the request was not about content
	Bytes      int64         // of the body, sent
	Blob       bool          // it was for a blob
	Pull       bool          // it was a GET of a manifest, which registries count
	Fault      string        // why Result is error
	FirstByte  time.Duration // until the header of the answer went out; 0 when none did
}

// Traffic counts requests about content, by how they were answered, and what was sent.
type Traffic struct {
	Hit           int64 `json:"hit"`    // served from what is kept
	Joined        int64 `json:"joined"` // shared what another request was waiting for
	Miss          int64 `json:"miss"`   // fetched for this request
	Stale         int64 `json:"stale"`  // served although its registry could not confirm it
	Passed        int64 `json:"passed"` // passed through and not kept
	Error         int64 `json:"error"`
	Pulls         int64 `json:"pulls"`          // GETs of manifests, as registries count them
	SavedPulls    int64 `json:"saved_pulls"`    // of these, those that cost no pull upstream
	ClientBytes   int64 `json:"client_bytes"`   // sent to clients
	UpstreamBytes int64 `json:"upstream_bytes"` // received from registries
}

// Answered is all requests about content.
func (t Traffic) Answered() int64 {
	return t.Hit + t.Joined + t.Miss + t.Stale + t.Passed + t.Error
}

// SavedBytes is what clients got and no registry sent.
func (t Traffic) SavedBytes() int64 { return max(t.ClientBytes-t.UpstreamBytes, 0) }

func (t *Traffic) add(o Traffic) {
	t.Hit += o.Hit
	t.Joined += o.Joined
	t.Miss += o.Miss
	t.Stale += o.Stale
	t.Passed += o.Passed
	t.Error += o.Error
	t.Pulls += o.Pulls
	t.SavedPulls += o.SavedPulls
	t.ClientBytes += o.ClientBytes
	t.UpstreamBytes += o.UpstreamBytes
}

// result is how a request was answered.
type result int

const (
	hit result = iota
	joined
	miss
	stale
	passed
	failed
	results
)

// parseResult returns false for a request that was not about content.
func parseResult(s string) (result, bool) {
	switch s {
	case "hit":
		return hit, true
	case "joined":
		return joined, true
	case "miss":
		return miss, true
	case "stale":
		return stale, true
	case "passed":
		return passed, true
	case "error":
		return failed, true
	}
	return 0, false
}

// saves reports whether an answer cost no pull upstream.
func (r result) saves() bool { return r == hit || r == joined || r == stale }

// counts is what happened at one upstream since the start.
type counts struct {
	results    [results]atomic.Int64
	pulls      atomic.Int64
	savedPulls atomic.Int64
	bytes      atomic.Int64
}

func (c *counts) traffic(upstreamBytes int64) Traffic {
	return Traffic{
		Hit: c.results[hit].Load(), Joined: c.results[joined].Load(), Miss: c.results[miss].Load(),
		Stale: c.results[stale].Load(), Passed: c.results[passed].Load(), Error: c.results[failed].Load(),
		Pulls: c.pulls.Load(), SavedPulls: c.savedPulls.Load(),
		ClientBytes: c.bytes.Load(), UpstreamBytes: upstreamBytes,
	}
}

// Recorder remembers. Its methods may be called concurrently.
type Recorder struct {
	opts    Options
	log     *zap.Logger
	started time.Time
	counts  map[string]*counts // by upstream, "" included; never changed
	top     top
	series  series
	took    [2]*tally.Histogram   // to the first byte: of what was served from here, and of what was fetched
	drill   atomic.Pointer[drill] // the last outage that was rehearsed; nil before the first
	around  around
	Events  *Events
}

// New returns a recorder with what the store has of the time before. Its owner starts Run once.
func New(o Options) *Recorder {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Gauges == nil {
		o.Gauges = func() Gauges { return Gauges{} }
	}
	if o.Received == nil {
		o.Received = func() map[string]int64 { return nil }
	}
	r := &Recorder{opts: o, log: o.Log, started: time.Now(), counts: map[string]*counts{"": {}}, Events: newEvents(time.Now()), around: around{seen: map[string]*regular{}}}
	for _, name := range o.Upstreams {
		r.counts[name] = &counts{}
	}
	r.top.init()
	r.series.init()
	for i := range r.took {
		r.took[i] = tally.NewHistogram(tally.Latencies())
	}
	r.load()
	return r
}

// Observe takes in one request. It is called for every request, so that it must be quick.
func (r *Recorder) Observe(q *Request) {
	what, content := parseResult(q.Result)
	if !content {
		return
	}
	c := r.counts[q.Upstream]
	if c == nil {
		c = r.counts[""]
	}
	c.results[what].Add(1)
	c.bytes.Add(q.Bytes)
	switch {
	case q.FirstByte <= 0:
	case what == hit || what == stale:
		r.took[0].Add(q.FirstByte)
	case what == miss || what == passed || what == joined:
		r.took[1].Add(q.FirstByte)
	}
	saved := q.Pull && what.saves()
	if q.Pull {
		c.pulls.Add(1)
	}
	if saved {
		c.savedPulls.Add(1)
	}
	now := time.Now()
	if d := r.drill.Load(); d != nil {
		d.observe(q, what, now)
	}
	r.top.observe(q, what, now)
}

// Started is when the recorder began to count.
func (r *Recorder) Started() time.Time { return r.started }

// Totals returns what happened since the start, at all upstreams and at each.
func (r *Recorder) Totals() (all Traffic, each map[string]Traffic) {
	received := r.opts.Received()
	each = make(map[string]Traffic, len(r.counts))
	for name, c := range r.counts {
		t := c.traffic(received[name])
		all.add(t)
		if name != "" {
			each[name] = t
		}
	}
	return all, each
}

const (
	// eventsEvery and seriesEvery are how often changes are written down: what a crash loses.
	eventsEvery = time.Minute
	seriesEvery = coarseStep
)

// Run keeps the history until ctx is done, and writes it down at the end.
func (r *Recorder) Run(ctx context.Context) error {
	tick := time.NewTicker(fineStep)
	defer tick.Stop()
	var wroteSeries, wroteEvents = time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			r.sample()
			r.saveSeries()
			r.saveEvents()
			return nil
		case <-tick.C:
		}
		r.sample()
		if time.Since(wroteSeries) >= seriesEvery {
			wroteSeries = time.Now()
			r.saveSeries()
		}
		if time.Since(wroteEvents) >= eventsEvery {
			wroteEvents = time.Now()
			r.saveEvents()
		}
	}
}

// sample adds to the history what happened since the last sample.
func (r *Recorder) sample() {
	n := sample{gauges: r.opts.Gauges(), latencies: map[string]tally.Snapshot{ofHits: r.took[0].Read(), ofMisses: r.took[1].Read()}}
	n.all, _ = r.Totals()
	for name, u := range n.gauges.Upstreams {
		n.latencies[name] = u.Took
	}
	r.around.spent(time.Now(), n.gauges.Elsewhere)
	r.series.take(time.Now(), n)
}

// The names of what is stored.
const (
	fineNote   = "activity.fine"
	coarseNote = "activity.coarse"
	eventsNote = "activity.events"
)

func (r *Recorder) load() {
	r.loadNote(fineNote, func(b []byte) error { return r.series.decode(b, &r.series.fine) })
	r.loadNote(coarseNote, func(b []byte) error { return r.series.decode(b, &r.series.coarse) })
	r.loadNote(eventsNote, r.Events.decode)
	r.loadNote(seenNote, r.around.decode)
}

func (r *Recorder) loadNote(name string, decode func([]byte) error) {
	if r.opts.Store == nil {
		return
	}
	b, ok, err := r.opts.Store.Note(name)
	if err == nil && ok {
		err = decode(b)
	}
	if err != nil {
		r.log.Warn("history lost: it begins anew", zap.String("note", name), logkey.Err(err))
	}
}

func (r *Recorder) saveSeries() {
	r.saveNote(fineNote, r.series.encode(&r.series.fine))
	r.saveNote(coarseNote, r.series.encode(&r.series.coarse))
	r.around.meet(r.clients(Start, clientsMost))
	r.saveNote(seenNote, r.around.encode())
}

func (r *Recorder) saveEvents() {
	if b, changed := r.Events.encode(); changed {
		r.saveNote(eventsNote, b)
	}
}

func (r *Recorder) saveNote(name string, b []byte) {
	if r.opts.Store == nil {
		return
	}
	if err := r.opts.Store.PutNote(name, b); err != nil {
		r.log.Warn("history not written", zap.String("note", name), logkey.Err(err))
	}
}

// clip bounds a text from outside, and lets go of the memory that it was part of.
func clip(s string, most int) string {
	return strings.Clone(wire.Clip(s, most))
}
