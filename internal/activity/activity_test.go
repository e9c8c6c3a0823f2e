package activity

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/tally"
)

// notes is a store in memory.
type notes map[string][]byte

func (n notes) Note(name string) ([]byte, bool, error) { b, ok := n[name]; return b, ok, nil }

func (n notes) PutNote(name string, b []byte) error {
	if len(b) > NoteMost {
		return fmt.Errorf("note of %d bytes", len(b))
	}
	n[name] = b
	return nil
}

func pullOf(client, repo, result string, bytes int64) *Request {
	return &Request{Client: client, UserAgent: "containerd/2.0", Upstream: "docker.io", Repository: repo, Result: result, Bytes: bytes, Pull: true}
}

func TestTotalsCountEachRequestOnce(t *testing.T) {
	received := map[string]int64{"docker.io": 700, "ghcr.io": 5}
	r := New(Options{Upstreams: []string{"docker.io", "ghcr.io"}, Received: func() map[string]int64 { return received }})
	for _, result := range []string{"hit", "hit", "joined", "miss", "stale", "passed", "error", ""} {
		r.Observe(pullOf("10.0.0.1", "library/nginx", result, 100))
	}
	blob := pullOf("10.0.0.2", "library/nginx", "hit", 1000)
	blob.Pull = false
	r.Observe(blob)
	r.Observe(&Request{Client: "10.0.0.3", Upstream: "evil.example", Result: "error"})

	all, each := r.Totals()
	want := Traffic{Hit: 3, Joined: 1, Miss: 1, Stale: 1, Passed: 1, Error: 1, Pulls: 7, SavedPulls: 4, ClientBytes: 1700, UpstreamBytes: 700}
	if diff := cmp.Diff(want, each["docker.io"]); diff != "" {
		t.Errorf("docker.io (-want +got):\n%s", diff)
	}
	want.Error, want.UpstreamBytes = 2, 705
	if diff := cmp.Diff(want, all); diff != "" {
		t.Errorf("all (-want +got):\n%s", diff)
	}
	if got := all.SavedBytes(); got != 995 {
		t.Errorf("saved %d bytes, want 995", got)
	}
	if got := (Traffic{ClientBytes: 1, UpstreamBytes: 5}).SavedBytes(); got != 0 {
		t.Errorf("a fill ahead of its client saved %d bytes, want 0", got)
	}
}

func TestClientsByWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{Upstreams: []string{"docker.io"}})
		r.Observe(pullOf("10.0.0.1", "library/old", "miss", 5000))
		time.Sleep(3 * time.Hour)
		r.Observe(pullOf("10.0.0.1", "library/new", "hit", 100))
		fails := pullOf("10.0.0.2", "library/new", "error", 0)
		fails.Fault = "docker.io: no answer"
		r.Observe(fails)
		for window, want := range map[Window][]string{
			Hour:  {"10.0.0.1 1/100: library/new", "10.0.0.2 1/0: library/new"},
			Day:   {"10.0.0.1 2/5100: library/old library/new", "10.0.0.2 1/0: library/new"},
			Start: {"10.0.0.1 2/5100: library/old library/new", "10.0.0.2 1/0: library/new"},
		} {
			var got []string
			for _, c := range r.Clients(window, 10) {
				names := ""
				for _, u := range c.Repositories {
					names += " " + u.Repository
				}
				got = append(got, fmt.Sprintf("%s %d/%d:%s", c.Address, c.Requests, c.Bytes, names))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Clients(%s) (-want +got):\n%s", window, diff)
			}
		}
		two := r.Clients(Start, 10)[1]
		if two.Errors != 1 || two.LastError != "docker.io: no answer" || !two.ErrorAt.Equal(time.Now()) {
			t.Errorf("client with an error: %+v", two)
		}
		if got := r.Repositories(Start, 1); len(got) != 1 || got[0].Repository != "library/old" {
			t.Errorf("most used repository: %+v", got)
		}
		time.Sleep(30 * time.Hour)
		if got := r.Clients(Day, 10); len(got) != 0 {
			t.Errorf("clients of the last day, a day later: %+v", got)
		}
	})
}

// A flood of names that are asked for once takes no more memory, and does not push out
// who really uses the mirror.
func TestFloodOfNamesKeepsHeavyClients(t *testing.T) {
	r := New(Options{Upstreams: []string{"docker.io"}})
	for range 50 {
		r.Observe(pullOf("10.0.0.1", "library/nginx", "hit", 1<<20))
	}
	long := strings.Repeat("x", 2000)
	for i := range 10_000 {
		q := pullOf(fmt.Sprintf("2001:db8::%x", i), fmt.Sprintf("hostile/%d%s", i, long), "error", 0)
		q.UserAgent = long
		q.Fault = long
		r.Observe(q)
	}
	if n := len(r.top.clients.entries); n != clientsMost {
		t.Errorf("%d clients are remembered, want %d", n, clientsMost)
	}
	if n := len(r.top.pairs.entries); n != pairsMost {
		t.Errorf("%d pairs are remembered, want %d", n, pairsMost)
	}
	first := r.Clients(Start, 1)[0]
	if first.Address != "10.0.0.1" || first.Requests != 50 || first.Bytes != 50<<20 {
		t.Errorf("first client: %+v, want 10.0.0.1 with all it did", first)
	}
	for _, c := range r.Clients(Start, clientsMost) {
		if len(c.UserAgent) > agentLen+3 || len(c.LastError) > faultLen+3 {
			t.Fatalf("texts of %d and %d bytes are kept", len(c.UserAgent), len(c.LastError))
		}
	}
	if n := len(r.Repositories(Start, 10)[5].Repository); n > repositoryLen+3 {
		t.Errorf("a name of %d bytes is kept", n)
	}
}

func TestHistoryKeepsCountsGaugesAndGaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := notes{}
		var gauges atomic.Pointer[Gauges]
		gauges.Store(&Gauges{UsedBytes: 10, Budgets: map[string]int64{"docker.io": 100}})
		o := Options{Upstreams: []string{"docker.io"}, Store: store, Gauges: func() Gauges { return *gauges.Load() }}
		r := New(o)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		r.Observe(pullOf("a", "x", "hit", 7))
		time.Sleep(25 * time.Second)
		gauges.Store(&Gauges{UsedBytes: 20, Evicted: 2, EvictedBytes: 9, Budgets: map[string]int64{"docker.io": 0}})
		r.Observe(pullOf("a", "x", "miss", 3))
		time.Sleep(time.Minute)
		r.Events.Add(Event{Kind: "degraded", Detail: "disk full"})
		before := r.Events.Last()
		cancel()
		if err := <-done; err != nil {
			t.Fatalf("Run = %v", err)
		}

		time.Sleep(10 * time.Minute) // nothing runs
		gauges.Store(&Gauges{UsedBytes: 30})
		r = New(o)
		r.Observe(pullOf("a", "x", "error", 0))
		s := r.Series(LastHour)
		want := Traffic{Hit: 1, Miss: 1, Error: 1, Pulls: 3, SavedPulls: 1, ClientBytes: 10}
		if diff := cmp.Diff(want, s.Sum); diff != "" {
			t.Errorf("sum (-want +got):\n%s", diff)
		}
		if n := len(s.Times); n < 8 || n > 11 {
			t.Errorf("%d steps are there, want those in which the mirror ran", n)
		}
		last := len(s.Times) - 1
		if gap := s.Times[last] - s.Times[last-1]; gap < 590 {
			t.Errorf("the gap has %d s, want 600", gap)
		}
		if s.UsedBytes[last] != 30 || s.UsedBytes[last-1] != 20 || s.Budgets["docker.io"][last-1] != 0 || s.Budgets["docker.io"][last] != -1 {
			t.Errorf("gauges: used %v, budgets %v", s.UsedBytes, s.Budgets)
		}
		if sum(s.Evicted) != 2 || sum(s.EvictedSize) != 9 {
			t.Errorf("evicted %v, %v", s.Evicted, s.EvictedSize)
		}
		for _, span := range []Span{LastDay, LastWeek} {
			if diff := cmp.Diff(want, r.Series(span).Sum); diff != "" {
				t.Errorf("sum of a %s (-want +got):\n%s", span, diff)
			}
		}
		events, more := r.Events.List(EventQuery{Limit: 10})
		if len(events) != 1 || more || events[0].Detail != "disk full" || r.Events.Last() < before {
			t.Errorf("events after a restart: %+v, more %t", events, more)
		}
	})
}

func TestHistoryNeverOutgrowsItsStore(t *testing.T) {
	store := notes{}
	r := New(Options{Store: store})
	for i := range coarseSlots {
		b := r.series.coarse.at(6_000_000 + int64(i))
		for c := range b.values {
			b.values[c] = mostOf(c)
		}
	}
	for i := range upstreamsMost + 5 {
		r.series.upstream(fmt.Sprintf("%d%s", i, strings.Repeat("x", upstreamLen-2)), true)
	}
	for i := range 2000 {
		r.Events.Add(Event{Kind: "tag_moved", Upstream: strconv.Itoa(i % 10), Repository: strings.Repeat("\x00", 400), Detail: strings.Repeat("\x01", 400)})
	}
	r.saveSeries()
	r.saveEvents()
	for _, name := range []string{coarseNote, eventsNote} {
		if n := len(store[name]); n == 0 || n > NoteMost {
			t.Errorf("%s has %d bytes, want at most %d", name, n, NoteMost)
		}
	}
	again := New(Options{Store: store})
	if n := len(again.series.coarse.ordered(1, valueMost)); n != coarseSlots {
		t.Errorf("%d steps came back, want %d", n, coarseSlots)
	}
}

func TestDamagedHistoryBeginsAnew(t *testing.T) {
	r := New(Options{Store: notes{fineNote: []byte("\x01\xff"), coarseNote: []byte("nonsense"), eventsNote: []byte(`[{"id":-4}]`)}})
	r.Observe(pullOf("a", "x", "hit", 1))
	if got := r.Series(LastDay).Sum.ClientBytes; got != 1 {
		t.Errorf("history after damage counts %d bytes, want 1", got)
	}
	r = New(Options{Store: broken{}})
	r.saveSeries() // only a warning
}

type broken struct{}

func (broken) Note(string) ([]byte, bool, error) { return nil, false, errors.New("disk on fire") }
func (broken) PutNote(string, []byte) error      { return errors.New("disk on fire") }

func TestEventsThatHappenAllTheTimePushOutNoOthers(t *testing.T) {
	l := newEvents(time.Now())
	l.Add(Event{Kind: "degraded"})
	l.Add(Event{Kind: "verification_failed", Upstream: "docker.io"})
	for range 5000 {
		l.Add(Event{Kind: "evicted"})
		l.Add(Event{Kind: "verification_failed", Upstream: "evil.example"}) // as often as it likes
	}
	if n := len(l.all()); n != 2*ringMost+2 {
		t.Errorf("%d events are remembered, want %d", n, 2*ringMost+2)
	}
	if list, _ := l.List(EventQuery{Kinds: []string{"degraded"}, Limit: 5}); len(list) != 1 {
		t.Errorf("what matters was forgotten: %v", list)
	}
	if list, _ := l.List(EventQuery{Kinds: []string{"verification_failed"}, Upstream: "docker.io", Limit: 5}); len(list) != 1 {
		t.Errorf("what matters of one upstream was forgotten for another: %v", list)
	}
}

func TestEventsAreFilteredAndPaged(t *testing.T) {
	l := newEvents(time.Now())
	for i := range 5 {
		l.Add(Event{Kind: "tag_moved", Upstream: "docker.io", Repository: "library/nginx", Tag: fmt.Sprint(i)})
	}
	l.Add(Event{Kind: "limited", Upstream: "ghcr.io", Detail: "Slow DOWN"})
	tags := func(q EventQuery) (got []string, next int64) {
		list, more := l.List(q)
		for _, e := range list {
			got = append(got, e.Kind+e.Tag)
		}
		if more {
			next = list[len(list)-1].ID
		}
		return got, next
	}
	got, next := tags(EventQuery{Upstream: "docker.io", Text: "NGINX", Limit: 3})
	if diff := cmp.Diff([]string{"tag_moved4", "tag_moved3", "tag_moved2"}, got); diff != "" || next == 0 {
		t.Errorf("first page (-want +got), next %d:\n%s", next, diff)
	}
	got, next = tags(EventQuery{Upstream: "docker.io", Before: next, Limit: 3})
	if diff := cmp.Diff([]string{"tag_moved1", "tag_moved0"}, got); diff != "" || next != 0 {
		t.Errorf("second page (-want +got), next %d:\n%s", next, diff)
	}
	if got, _ = tags(EventQuery{Text: "slow down", Limit: 3}); len(got) != 1 || got[0] != "limited" {
		t.Errorf("by detail: %v", got)
	}
}

func TestReadersFollowTheLogAtTheirOwnPace(t *testing.T) {
	l := newEvents(time.Now())
	from := l.Last()
	list, more := l.After(from)
	if len(list) != 0 {
		t.Fatalf("After the last = %v", list)
	}
	l.Add(Event{Kind: "limited"})
	<-more
	if list, _ = l.After(from); len(list) != 1 {
		t.Fatalf("After = %v, want one", list)
	}
	for range 3000 {
		l.Add(Event{Kind: "limited"})
	}
	if list, _ = l.After(from); len(list) != ringMost || list[len(list)-1].ID != l.Last() {
		t.Errorf("a reader that slept gets %d events, want the last %d", len(list), ringMost)
	}
}

func TestHistoryHasHowLongAnswersTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := tally.NewHistogram(tally.Latencies())
		asked := Asked{}
		r := New(Options{Upstreams: []string{"docker.io"}, Gauges: func() Gauges {
			asked.Took = hub.Read()
			return Gauges{Again: asked.Failed, AgainBytes: 7 * asked.Failed, Upstreams: map[string]Asked{"docker.io": asked}}
		}})
		answer := func(result string, took time.Duration) {
			q := pullOf("a", "x", result, 1)
			q.FirstByte = took
			r.Observe(q)
		}
		r.sample()
		for range 90 {
			answer("hit", time.Millisecond)
		}
		for range 10 {
			answer("hit", 200*time.Millisecond)
		}
		answer("miss", 4*time.Second)
		answer("error", time.Hour)
		hub.Add(30 * time.Millisecond)
		asked.Requests, asked.Failed = 4, 3
		r.sample()
		time.Sleep(20 * time.Second)
		answer("hit", 40*time.Millisecond) // the step before has nothing to do with this one
		s := r.Series(LastHour)
		if n := len(s.Times); n != 2 {
			t.Fatalf("%d steps, want 2: %v", n, s.Times)
		}
		within := func(what string, us int64, from, to time.Duration) {
			t.Helper()
			if got := time.Duration(us) * time.Microsecond; got < from || got > to {
				t.Errorf("%s: %s, want %s to %s", what, got, from, to)
			}
		}
		within("median of hits", s.HitMedian[0], 500*time.Microsecond, time.Millisecond)
		within("slow hits", s.HitSlow[0], 100*time.Millisecond, 250*time.Millisecond)
		within("median of misses", s.MissMedian[0], 2500*time.Millisecond, 5*time.Second)
		within("median of hits, later", s.HitMedian[1], 25*time.Millisecond, 50*time.Millisecond)
		if s.MissMedian[1] != 0 {
			t.Errorf("misses later took %d µs, and there was none", s.MissMedian[1])
		}
		u := s.Upstreams["docker.io"]
		within("median of the upstream", u.Median[0], 25*time.Millisecond, 50*time.Millisecond)
		if u.Asked[0] != 4 || u.Failed[0] != 3 || u.Asked[1] != 0 || u.Slow[1] != 0 || s.Again[0] != 3 || s.AgainSize[0] != 21 {
			t.Errorf("upstream %+v, again %v, %v", u, s.Again, s.AgainSize)
		}
		within("slow hits in a longer step", r.Series(LastWeek).HitSlow[0], 100*time.Millisecond, 250*time.Millisecond)
	})
}

// What an earlier version of the program wrote down is read.
func TestHistoryOfVersionOneIsRead(t *testing.T) {
	now := time.Now()
	slot := now.UnixNano()/int64(coarseStep) - 1
	b := []byte{1, 1, 9}
	b = append(b, "docker.io"...)
	b = binary.AppendUvarint(append(b, 1), uint64(slot))
	for i := range 13 {
		b = append(b, byte(i+1))
	}
	b = append(b, 77)
	r := New(Options{Store: notes{coarseNote: b}})
	s := r.Series(LastDay)
	if len(s.Times) != 2 || s.Hit[0] != 1 || s.EvictedSize[0] != 12 || s.UsedBytes[0] != 13 || s.Budgets["docker.io"][0] != 76 || s.HitMedian[0] != 0 {
		t.Errorf("what version 1 stored is %+v", s)
	}
}

func FuzzHistory(f *testing.F) {
	r := New(Options{})
	r.Observe(pullOf("a", "x", "hit", 1))
	r.series.take(time.Now(), sample{all: Traffic{Hit: 3}, gauges: Gauges{UsedBytes: 4, Budgets: map[string]int64{"docker.io": 5}}})
	f.Add(r.series.encode(&r.series.fine))
	f.Add([]byte{1, 0, 1, 1})
	f.Fuzz(func(_ *testing.T, b []byte) {
		r := New(Options{Store: notes{fineNote: b, coarseNote: b, eventsNote: b}})
		_ = r.Series(LastWeek)
		_ = r.Series(LastHour)
		_, _ = r.Events.encode()
		_ = r.series.encode(&r.series.coarse)
	})
}

// What every request costs.
func BenchmarkObserve(b *testing.B) {
	r := New(Options{Upstreams: []string{"docker.io"}})
	q := pullOf("10.0.0.1", "library/nginx", "hit", 1000)
	b.ReportAllocs()
	for b.Loop() {
		r.Observe(q)
	}
}
