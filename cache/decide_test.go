package cache

import (
	"testing"

	"forebay/internal/pull"
)

// TestNextStepForATag goes through what may be known of a tag, and how the steps before
// went. The name of a row is the situation in words.
func TestNextStepForATag(t *testing.T) {
	kind := func(k pull.Kind) error { return &pull.Error{Kind: k} }
	down, limited, gone, denied := kind(pull.Unavailable), kind(pull.Limited), kind(pull.NotFound), kind(pull.Denied)
	after := func(s situation, last step, err error) situation {
		s.last, s.err = last, err
		s.taken |= 1 << last
		return s
	}
	known := situation{known: true}
	fresh := situation{known: true, fresh: true}
	low := situation{known: true, kept: true, low: true}
	unfetched := situation{known: true, fresh: true, unfetched: true}
	drops := situation{known: true, dropsGone: true}
	old := situation{known: true, tooOld: true}
	offline := situation{known: true, offline: true}
	left := func(s situation) situation { s.clientLeft = true; return s }
	for name, row := range map[string]struct {
		s    situation
		want step
	}{
		"nothing is known":                                   {situation{}, ask},
		"nothing is known, offline":                          {situation{offline: true}, miss},
		"it was missed":                                      {after(situation{offline: true}, miss, gone), fail},
		"fresh":                                              {fresh, serve},
		"known, offline":                                     {offline, serve},
		"known, past its time":                               {known, ask},
		"past its time, budget low, kept":                    {low, confirm},
		"past its time, budget low, not kept":                {situation{known: true, low: true}, ask},
		"fresh, and a HEAD would name what no GET gets":      {unfetched, serveStale},
		"then nothing older is kept":                         {after(unfetched, serveStale, down), serve},
		"then that fails too":                                {after(after(unfetched, serveStale, down), serve, down), fail},
		"fresh, its digest is gone":                          {after(fresh, serve, gone), ask},
		"fresh, its digest is gone, and the upstream down":   {after(after(fresh, serve, gone), ask, down), serveStale},
		"fresh, its digest cannot be fetched":                {after(fresh, serve, limited), serveStale},
		"fresh, its digest is denied":                        {after(fresh, serve, denied), fail},
		"offline, its digest is not here":                    {after(offline, serve, gone), fail},
		"nothing is known, upstream down":                    {after(situation{}, ask, down), fail},
		"nothing is known, not there":                        {after(situation{}, ask, gone), fail},
		"known, upstream down":                               {after(known, ask, down), serveStale},
		"known, upstream limits":                             {after(known, ask, limited), serveStale},
		"known, upstream knows no such request":              {after(known, ask, kind(pull.Unsupported)), serveStale},
		"known, access refused":                              {after(known, ask, denied), fail},
		"known, gone upstream, kept":                         {after(known, ask, gone), serveStale},
		"known, gone upstream, dropped":                      {after(drops, ask, gone), forget},
		"it was dropped":                                     {after(after(drops, ask, gone), forget, gone), fail},
		"confirmed too long ago, upstream down":              {after(old, ask, down), fail},
		"confirmed too long ago, gone upstream":              {after(old, ask, gone), serveStale},
		"nothing is kept to stand in":                        {after(after(known, ask, down), serveStale, down), fail},
		"budget low, still there":                            {after(low, confirm, nil), serve},
		"budget low, moved":                                  {after(low, confirm, errLow), serveStale},
		"budget low, moved, what is kept is damaged":         {after(after(low, confirm, errLow), serveStale, down), serve},
		"budget low, upstream down":                          {after(low, confirm, down), serveStale},
		"budget low, access refused":                         {after(low, confirm, denied), fail},
		"budget low, still there, its digest gone since":     {after(after(low, confirm, nil), serve, gone), ask},
		"the client left before anything was done":           {left(fresh), serve},
		"the client left while the upstream was asked":       {left(after(known, ask, down)), fail},
		"the client left while what it points to was served": {left(after(fresh, serve, down)), fail},
	} {
		if got := row.s.next(); got != row.want {
			t.Errorf("%s: next step = %d, want %d (%+v)", name, got, row.want, row.s)
		}
	}
}

// TestThereIsAlwaysAnEnd walks all situations with every outcome of each step.
func TestThereIsAlwaysAnEnd(t *testing.T) {
	errs := []error{nil, errLow}
	for k := pull.Unavailable; k <= pull.Timeout; k++ {
		errs = append(errs, &pull.Error{Kind: k})
	}
	var walk func(s situation, depth int)
	walk = func(s situation, depth int) {
		next := s.next()
		if next == fail {
			return
		}
		if depth > 6 {
			t.Fatalf("more than six steps: %+v", s)
		}
		if !s.known && next != ask && next != miss {
			t.Fatalf("step %d for a tag of which nothing is known: %+v", next, s)
		}
		if s.offline && (next == ask || next == confirm) {
			t.Fatalf("step %d asks an upstream that must not be asked: %+v", next, s)
		}
		for _, err := range errs {
			if err == nil && next != confirm {
				continue // there is an answer
			}
			after := s
			after.last, after.err, after.taken = next, err, s.taken|1<<next
			walk(after, depth+1)
		}
	}
	for bits := range 1 << 7 {
		is := func(n int) bool { return bits>>n&1 == 1 }
		s := situation{known: is(0), fresh: is(1), kept: is(2), unfetched: is(3), tooOld: is(4), low: is(5), offline: is(6)}
		if !s.known && (s.fresh || s.kept || s.unfetched || s.tooOld || s.low) {
			continue
		}
		for _, drops := range []bool{false, true} {
			s.dropsGone = drops
			walk(s, 0)
		}
	}
}
