package fleet

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/redis/rueidis"

	"forebay/cache"
	"forebay/internal/pull"
	"forebay/test/hubtest"
	"forebay/upstream"
)

// spender is a mirror that asks the hub.
func (s *server) spender(h *hubtest.Hub, others ...*replica) (*replica, *upstream.Registry) {
	s.t.Helper()
	r, err := upstream.New(upstream.Options{Name: hub, Endpoints: []upstream.Endpoint{{URL: h.RegistryURL()}}, Reserve: 0.2, AllowPrivate: true})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(r.Close)
	m := s.join(r, Options{}, others...)
	m.Adopt(r)
	m.ShareLimits(func() []*upstream.Registry { return []*upstream.Registry{r} })
	return m, r
}

// Three mirrors fetch ahead of need from one address with a limit: together they stop at the reserve.
func TestReserveOfAllMirrors(t *testing.T) {
	s := newServer(t)
	h := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 50, Window: 6 * time.Hour}})
	a, _ := s.spender(h)
	b, _ := s.spender(h, a)
	c, _ := s.spender(h, a, b)
	enough := fmt.Errorf("enough")
	var work sync.WaitGroup
	var got atomic.Int64
	for i, m := range []*replica{a, b, c} {
		work.Go(func() {
			for n := range 30 {
				img := h.PushImage("library/app", fmt.Sprint("v", i, "-", n), hubtest.ImageSpec{Layers: 1})
				d, err := v1.NewHash(img.Digest)
				if err != nil {
					t.Error(err)
				}
				if _, err := m.cache.ManifestAboveReserve(t.Context(), app, d, func(context.Context, error) error { return enough }); err == nil {
					got.Add(1)
				}
			}
		})
	}
	work.Wait()
	if n := h.ChargedTotal(); n != 40 || got.Load() != 40 {
		t.Errorf("%d pulls were charged and %d manifests fetched, want 40 of 50, of which 10 are the reserve", n, got.Load())
	}
	// Without the engine nobody knows what the others spend.
	s.kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := a.Spend(ctx, hub); err == nil {
		t.Error("alone a mirror spends what nobody asked for")
	}
}

// A registry that refuses one mirror is not asked by another, and one probe tells both that it answers again.
func TestOneMirrorIsRefusedForAll(t *testing.T) {
	s := newServer(t)
	h := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 3, Window: 6 * time.Hour}})
	a, ra := s.spender(h)
	b, rb := s.spender(h, a)
	image := func(m *replica, tag string) error {
		img := h.PushImage("library/app", tag, hubtest.ImageSpec{Layers: 1})
		_, err := m.cache.Manifest(pull.WithClient(t.Context(), "192.0.2.1"), cache.Repo{Upstream: hub, Name: "library/app"}, img.Digest, false)
		return err
	}
	for i := range 4 {
		if err := image(a, fmt.Sprint("v", i)); (err != nil) != (i == 3) {
			t.Fatalf("pull %d: %v", i, err)
		}
	}
	closed := func(r *upstream.Registry) bool { l := r.Budget(); return len(l) > 0 && !l[0].PausedUntil.IsZero() }
	if !closed(ra) {
		t.Fatal("the mirror that was refused has not understood")
	}
	a.exchangeAll(t.Context(), hub)
	b.exchangeAll(t.Context(), hub)
	if !closed(rb) || rb.Budget()[0].Remaining != 0 {
		t.Errorf("the other mirror thinks %+v, want that nothing remains", rb.Budget())
	}
	before := h.Requests()
	if err := image(b, "other"); pull.KindOf(err) != pull.Limited || h.Requests() != before {
		t.Errorf("the other mirror: %v, with %d requests more", err, h.Requests()-before)
	}
	// One probe an interval.
	if !a.mayProbe(hub, "x") || b.mayProbe(hub, "x") || !b.mayProbe(hub, "y") {
		t.Error("two mirrors send a probe, or none does")
	}
	// What nobody with the secret wrote changes nothing.
	key := b.limitsKey(hub)
	err := b.engine.call(t.Context(), func(ctx context.Context, c rueidis.Client) error {
		return c.Do(ctx, c.B().Hset().Key(key).FieldValue().FieldValue(ra.Limits()[1].Name+"\x00evil", `{"At":"2030-01-01T00:00:00Z"} 00`).Build()).Error()
	})
	if err != nil {
		t.Fatal(err)
	}
	forged := b.Figures().Forged
	b.exchangeAll(t.Context(), hub)
	if b.Figures().Forged != forged+1 || !closed(rb) {
		t.Error("a forged word counts")
	}
}
