package activity

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// drillMost bounds what of an outage that is rehearsed is told one by one.
const drillMost = 1000

// Drill is an outage that is or was rehearsed, and what came of it.
type Drill struct {
	From  time.Time `json:"from,omitzero"` // zero: there was none since the start
	Until time.Time `json:"until,omitzero"`
	Runs  bool      `json:"runs"`
	// Served and Failed are requests of clients for content.
	Served int64 `json:"served"`
	Failed int64 `json:"failed"`
	// Failures are what failed for whom, the most often first.
	Failures []DrillFailure `json:"failures"`
}

// DrillFailure is something that a client could not have.
type DrillFailure struct {
	Client     string `json:"client"`
	Name       string `json:"name,omitempty"` // of the client
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	Reference  string `json:"reference"` // tag or digest
	Times      int64  `json:"times"`
	Fault      string `json:"fault"` // the last time
}

// drill gathers what comes of one.
type drill struct {
	mu     sync.Mutex
	told   Drill                         // guarded by mu; without Failures
	failed map[DrillFailure]*failedTimes // guarded by mu; by what identifies them
}

type failedTimes struct {
	n     int64
	fault string
}

// Rehearse notes from now on until then what clients get while no registry is asked; now ends it.
// What was noted before is forgotten when another begins.
func (r *Recorder) Rehearse(until time.Time) {
	now := time.Now()
	if d := r.drill.Load(); d != nil && d.end(now, until) {
		return
	}
	if until.After(now) {
		r.drill.Store(&drill{told: Drill{From: now, Until: until}, failed: map[DrillFailure]*failedTimes{}})
	}
}

// end moves the end of one that runs.
func (d *drill) end(now, until time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	runs := now.Before(d.told.Until)
	if runs {
		d.told.Until = until
	}
	return runs
}

func (d *drill) observe(q *Request, what result, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !now.Before(d.told.Until):
	case what != failed:
		d.told.Served++
	default:
		d.told.Failed++
		key := DrillFailure{Client: clip(q.Client, addressLen), Upstream: clip(q.Upstream, upstreamLen), Repository: clip(q.Repository, repositoryLen), Reference: clip(q.Reference, 140)}
		f := d.failed[key]
		if f == nil {
			if len(d.failed) == drillMost {
				return
			}
			f = &failedTimes{}
			d.failed[key] = f
		}
		f.n, f.fault = f.n+1, clip(q.Fault, faultLen)
	}
}

// Rehearsal returns the outage that is rehearsed, or the last one that was.
func (r *Recorder) Rehearsal() Drill {
	d := r.drill.Load()
	if d == nil {
		return Drill{Failures: []DrillFailure{}}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.told
	out.Runs, out.Failures = time.Now().Before(out.Until), []DrillFailure{}
	for f, times := range d.failed {
		f.Times, f.Fault, f.Name = times.n, times.fault, r.opts.Names.Of(f.Client)
		out.Failures = append(out.Failures, f)
	}
	slices.SortFunc(out.Failures, func(a, b DrillFailure) int {
		return cmp.Or(cmp.Compare(b.Times, a.Times), cmp.Compare(a.Client, b.Client), cmp.Compare(a.Repository, b.Repository), cmp.Compare(a.Reference, b.Reference))
	})
	return out
}
