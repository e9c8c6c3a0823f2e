package upstream

import (
	"fmt"
	"slices"
	"time"

	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/upstream/governor"
)

// candidates returns the endpoints to try for a: those that failed a short while ago last,
// those whose breaker is open not at all. skipped says why one is left out; nil: none is.
func (r *Registry) candidates(a *ask) (list []*endpoint, skipped *failure) {
	if a.from != nil {
		return []*endpoint{a.from}, nil
	}
	var later []*endpoint
	for _, e := range r.endpoints {
		if !e.serves(a) {
			continue
		}
		switch turn := e.breaker.Turn(a.start); {
		case turn == governor.Never:
			skipped = better(skipped, r.tripped(e, a))
		case turn == governor.Later || e == a.avoid:
			later = append(later, e)
		default:
			list = append(list, e)
		}
	}
	if e := a.avoid; e != nil && len(later) > 1 { // behind those that only failed
		if i := slices.Index(later, e); i >= 0 {
			later = append(slices.Delete(later, i, i+1), e)
		}
	}
	return append(list, later...), skipped
}

// tripped returns the failure of an endpoint that is not asked since its breaker is open.
func (r *Registry) tripped(e *endpoint, a *ask) *failure {
	h := e.breaker.Health()
	wait := max(h.Until.Sub(a.start), time.Second).Round(time.Second)
	f := r.fail(a, pull.Unavailable, fmt.Errorf("%s failed %d times in a row and is tried again in %s: %s", e.base.Host, h.Failures, wait, h.Last))
	f.err.RetryAfter = wait
	f.remedies, f.standIn = tryEndpoint, e.site.standIn != nil
	return f
}

// better returns which of the failures of two endpoints to tell: that of the registry rather
// than that of a stand-in, then one that may pass, then the first, since its endpoint is
// the one that the operator prefers.
func better(first, second *failure) *failure {
	switch {
	case first == nil:
		return second
	case first.standIn != second.standIn:
		if first.standIn {
			return second
		}
		return first
	case second.helps(tryAgain) && !first.helps(tryAgain):
		return second
	}
	return first
}

// noteAnswer remembers that e answered. For a blob that is decided at the end of its body.
func (r *Registry) noteAnswer(e *endpoint, a *ask) {
	if a.from == nil && e != r.preferred(a) {
		r.counts.failovers.Add(1)
	}
	if !a.forBlob() {
		r.healthy(e)
	}
}

// noteFailures remembers for each endpoint of a failed request whether it did its work.
func (r *Registry) noteFailures(a *ask, list []*endpoint, fails []*failure) {
	for i, f := range fails {
		switch {
		case f == nil:
		case f.sick():
			r.sick(list[i], a.start, pull.Words(f.err))
		case f.err.Status != 0, f.atWork:
			r.healthy(list[i])
		}
	}
}

func (r *Registry) healthy(e *endpoint) {
	if e.breaker.Health().Open {
		r.log.Info("endpoint answers again", logkey.Host(e.base.Host))
	}
	e.breaker.Good()
}

func (r *Registry) sick(e *endpoint, start time.Time, why string) {
	if e.breaker.Bad(start, r.opts.Now(), why) {
		r.log.Warn("endpoint fails", logkey.Host(e.base.Host), logkey.Count(e.breaker.Health().Failures), logkey.Op(why))
	}
}
