package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/test/cachetest"
	"forebay/test/storetest"
)

// openWith opens a cache whose docker.io has the given options beside its registry.
func openWith(t *testing.T, r Upstream, u UpstreamOptions) *Cache {
	t.Helper()
	u.Upstream = r
	c, err := Open(Options{Store: store.Options{Dir: t.TempDir()}, Upstreams: map[string]UpstreamOptions{"docker.io": u}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func FuzzCompileMatch(f *testing.F) {
	f.Add("library/*:v[0-9]?")
	f.Add("[")
	f.Fuzz(func(t *testing.T, pattern string) {
		match, err := wire.CompilePattern(pattern)
		if err == nil {
			match.MatchString("library/nginx:latest")
		}
	})
}

func TestFirstMatchingRuleDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		for _, tag := range []string{"latest", "v1.2.3", "edge", "other"} {
			r.Push(hub.Name, tag, cachetest.ManifestOf(tag))
		}
		c := openWith(t, r, UpstreamOptions{TagTTL: time.Minute, TagRules: []TagRule{
			{Match: "library/*:latest", TTL: 30 * time.Second}, {Match: "*:v[0-9]*", TTL: Forever}, {Match: "*:edge"}, {Match: "*:latest", TTL: time.Hour},
		}})
		defer closeCache(t, c)
		for _, tc := range []struct {
			tag   string
			asked int // HEADs after pulls at 0 s, 40 s and 70 s
		}{{"latest", 3}, {"v1.2.3", 1}, {"edge", 3}, {"other", 2}} {
			before := r.Count("Resolve")
			for _, pause := range []time.Duration{0, 40 * time.Second, 30 * time.Second} {
				time.Sleep(pause)
				if _, err := c.Manifest(t.Context(), hub, tc.tag, false); err != nil {
					t.Fatal(err)
				}
			}
			if got := r.Count("Resolve") - before; got != tc.asked {
				t.Errorf("tag %s was asked for %d times, want %d", tc.tag, got, tc.asked)
			}
		}
	})
}

func TestMovedTagThatCannotBeFetchedIsServedAsItWas(t *testing.T) {
	for _, head := range []bool{false, true} {
		t.Run(fmt.Sprintf("head %t", head), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := cachetest.NewRegistry()
				old := r.Push(hub.Name, "latest", cachetest.ManifestOf("old"))
				limited := &limitedGets{Registry: r}
				c := openWith(t, limited, UpstreamOptions{TagTTL: ttl})
				defer closeCache(t, c)
				if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
					t.Fatal(err)
				}
				moved := r.Push(hub.Name, "latest", cachetest.ManifestOf("new"))
				limited.on = true
				time.Sleep(ttl + time.Second)
				if head {
					// containerd's way: the HEAD names the new digest, the GET of it fails.
					if m, err := c.Manifest(t.Context(), hub, "latest", true); err != nil || m.Desc.Digest != moved {
						t.Fatalf("HEAD latest = %+v, %v", m, err)
					}
					if _, err := c.Manifest(t.Context(), hub, moved.String(), false); pull.KindOf(err) != pull.Limited {
						t.Fatalf("GET %s = %v, want limited", moved, err)
					}
				}
				for range 3 {
					m, err := c.Manifest(t.Context(), hub, "latest", head)
					if err != nil || m.Desc.Digest != old || m.Result != Stale {
						t.Fatalf("Manifest(latest, head %t) = %+v, %v, want %s stale", head, m, err, old)
					}
				}
				limited.on = false
				time.Sleep(ttl + time.Second)
				m, err := c.Manifest(t.Context(), hub, "latest", false)
				if err != nil || m.Desc.Digest != moved || !bytes.Equal(m.Bytes, cachetest.ManifestOf("new")) {
					t.Errorf("Manifest(latest) = %+v, %v, want %s", m, err, moved)
				}
			})
		})
	}
}

// limitedGets is a registry that answers HEAD and, when on, refuses GET with 429: what
// Docker Hub does beyond the pull limit.
type limitedGets struct {
	*cachetest.Registry
	on bool
}

func (l *limitedGets) Manifest(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error) {
	if l.on {
		return v1.Descriptor{}, nil, &pull.Error{Kind: pull.Limited, RetryAfter: time.Minute}
	}
	return l.Registry.Manifest(ctx, repo, ref)
}

// spared is a registry whose budget runs low, when low.
type spared struct {
	*cachetest.Registry
	low atomic.Bool
}

func (s *spared) Low() bool { return s.low.Load() }

func TestPopularTagIsRefreshedAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &spared{Registry: cachetest.NewRegistry()}
		r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
		c := openWith(t, r, UpstreamOptions{TagTTL: ttl, RefreshAhead: 3})
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Errorf("Run = %v", err)
			}
			closeCache(t, c)
		}()
		pull := func(want Result) {
			t.Helper()
			m, err := c.Manifest(t.Context(), hub, "latest", false)
			if err != nil || m.Result != want {
				t.Fatalf("Manifest = %+v, %v, want %s", m, err, want)
			}
		}
		pull(Miss)
		for range 10 { // every 10 s, for longer than its time to live
			time.Sleep(10 * time.Second)
			pull(Hit)
		}
		if n := r.Count("Resolve"); n != 2 && n != 3 {
			t.Errorf("tag was asked for %d times in 100 s, want 2 or 3", n)
		}
		// Nobody pulls it: two more windows at most, then never.
		time.Sleep(3 * ttl)
		before := r.Count("Resolve")
		time.Sleep(10 * ttl)
		if n := r.Count("Resolve"); n != before {
			t.Errorf("idle tag was asked for %d times more, want none", n-before)
		}
		// A moved tag is fetched before anybody asks.
		for range 5 {
			pull2, err := c.Manifest(t.Context(), hub, "latest", false)
			if err != nil {
				t.Fatal(pull2, err)
			}
		}
		d := r.Push(hub.Name, "latest", cachetest.ManifestOf("two"))
		time.Sleep(ttl - 2*time.Second)
		m, err := c.Manifest(t.Context(), hub, "latest", false)
		if err != nil || m.Desc.Digest != d || m.Result != Hit {
			t.Errorf("Manifest = %+v, %v, want %s from the cache", m, err, d)
		}
		// With a low budget nothing is refreshed in the background.
		r.low.Store(true)
		before = r.Count("Resolve")
		time.Sleep(10 * ttl)
		if n := r.Count("Resolve"); n != before {
			t.Errorf("tag was asked for %d times in the background with a low budget, want none", n-before)
		}
	})
}

// What is left of a budget is not spent on tags that are known: the free HEAD confirms
// those that did not move, and those that did are served as they were.
func TestLowBudgetIsNotSpentOnKnownTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &spared{Registry: cachetest.NewRegistry()}
		one := r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
		c := openWith(t, r, UpstreamOptions{TagTTL: ttl})
		defer closeCache(t, c)
		gets, heads := 0, 0
		pull := func(what string, want Result, digest v1.Hash, wantHeads, wantGets int) {
			t.Helper()
			m, err := c.Manifest(t.Context(), hub, "latest", false)
			if err != nil || m.Result != want || m.Desc.Digest != digest {
				t.Fatalf("%s: Manifest = %+v, %v, want %s, %s", what, m, err, want, digest)
			}
			if h, g := r.Count("Resolve")-heads, r.Count("Manifest")-gets; h != wantHeads || g != wantGets {
				t.Errorf("%s: %d HEADs and %d GETs, want %d and %d", what, h, g, wantHeads, wantGets)
			}
			heads, gets = r.Count("Resolve"), r.Count("Manifest")
		}
		pull("new", Miss, one, 1, 1)
		r.low.Store(true)
		time.Sleep(2 * ttl)
		pull("unmoved", Hit, one, 1, 0)
		pull("confirmed", Hit, one, 0, 0)
		two := r.Push(hub.Name, "latest", cachetest.ManifestOf("two"))
		time.Sleep(2 * ttl)
		pull("moved", Stale, one, 1, 0)
		pull("moved, asked again at once", Stale, one, 0, 0)
		time.Sleep(2 * movedFor)
		pull("moved, asked again later", Stale, one, 1, 0)
		r.low.Store(false)
		pull("budget is back", Miss, two, 1, 1)
		// Moved back to what is kept: that costs nothing.
		r.low.Store(true)
		r.Bind(hub.Name, "latest", one)
		time.Sleep(2 * max(ttl, movedFor))
		pull("moved to what is kept", Hit, one, 1, 0)
	})
}

func TestGoneTagIsKeptOrDropped(t *testing.T) {
	for _, policy := range []OnGone{Keep, Drop} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := cachetest.NewRegistry()
				r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
				c := openWith(t, r, UpstreamOptions{TagTTL: ttl, OnGone: policy})
				defer closeCache(t, c)
				if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
					t.Fatal(err)
				}
				r.Unbind(hub.Name, "latest")
				time.Sleep(2 * ttl)
				for range 2 {
					m, err := c.Manifest(t.Context(), hub, "latest", false)
					if policy == Keep && (err != nil || m.Result != Stale) {
						t.Errorf("Manifest = %+v, %v, want stale", m, err)
					}
					if policy == Drop && (pull.KindOf(err) != pull.NotFound || err == nil) {
						t.Errorf("Manifest = %+v, %v, want not found", m, err)
					}
				}
				if _, ok, err := c.store.Index.Tag(hub, "latest"); err != nil || ok != (policy == Keep) {
					t.Errorf("TagHistory = %t, %v", ok, err)
				}
			})
		})
	}
}

func TestTagHistoryTellsOfMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openWith(t, r, UpstreamOptions{TagTTL: ttl})
		defer closeCache(t, c)
		var digests []v1.Hash
		for i := range 3 {
			digests = append(digests, r.Push(hub.Name, "1.2.3", cachetest.ManifestOf(fmt.Sprint(i))))
			if _, err := c.Manifest(t.Context(), hub, "1.2.3", false); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * ttl)
		}
		h, ok, err := c.store.Index.Tag(hub, "1.2.3")
		if err != nil || !ok || h.Desc.Digest != digests[2] || len(h.History) != 2 {
			t.Fatalf("TagHistory = %+v, %t, %v", h, ok, err)
		}
		if h.History[0].Digest != digests[1] || h.History[1].Digest != digests[0] {
			t.Errorf("history = %v, want %s before %s", h.History, digests[1], digests[0])
		}
		if n := c.counts.releasesMoved.Load(); n != 2 {
			t.Errorf("%d release tags moved, want 2", n)
		}
	})
}

func TestOfflineNeverAsks(t *testing.T) {
	r := cachetest.NewRegistry()
	r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
	c := openWith(t, r, UpstreamOptions{TagTTL: ttl, Offline: true})
	defer closeCache(t, c)
	s := &cachetest.Script{Data: []byte("x")}
	d := r.Put(hub.Name, s)
	for _, try := range []func() error{
		func() error { _, err := c.Manifest(t.Context(), hub, "latest", false); return err },
		func() error {
			_, err := c.Manifest(t.Context(), hub, cachetest.DigestOf(cachetest.ManifestOf("one")).String(), true)
			return err
		},
		func() error { _, err := c.Blob(t.Context(), hub, d); return err },
		func() error { _, _, err := c.StatBlob(t.Context(), hub, d); return err },
		func() error { _, err := c.Tags(t.Context(), hub); return err },
		func() error { _, err := c.Referrers(t.Context(), hub, d); return err },
	} {
		if err := try(); pull.KindOf(err) != pull.NotFound || err == nil {
			t.Errorf("offline answer = %v, want not found", err)
		}
	}
	if n := len(r.Calls()); n != 0 {
		t.Errorf("upstream was asked: %v", r.Calls())
	}
}

// While an outage is rehearsed an upstream is as good as offline, and answers again when that ends,
// whether or not somebody ends it. Nothing of it is noted as wanted.
func TestRehearsedOutageEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
		r.Push(hub.Name, "new", cachetest.ManifestOf("two"))
		c := openWith(t, r, UpstreamOptions{TagTTL: ttl})
		defer closeCache(t, c)
		ask := func(tag string) error {
			_, err := c.Manifest(pull.WithClient(t.Context(), "10.0.0.1"), hub, tag, false)
			return err
		}
		if err := ask("latest"); err != nil {
			t.Fatal(err)
		}
		before := len(r.Calls())
		c.Rehearse(time.Now().Add(10 * time.Minute))
		time.Sleep(2 * ttl)
		if err := ask("latest"); err != nil {
			t.Errorf("what is kept: %v", err)
		}
		if err := ask("new"); !errors.Is(err, pull.ErrOffline) {
			t.Errorf("what is not kept: %v, want that it is offline", err)
		}
		if n := len(r.Calls()); n != before || !c.Upstreams()[0].Offline {
			t.Errorf("asked %d times, offline %t", n-before, c.Upstreams()[0].Offline)
		}
		if list := c.Wanted().All(); len(list) != 0 {
			t.Errorf("noted as wanted: %v", list)
		}
		time.Sleep(10 * time.Minute)
		if err := ask("new"); err != nil || c.Upstreams()[0].Offline {
			t.Errorf("after its end: %v", err)
		}
	})
}

// Who purges a tag as it is pulled must not leave it known to clients and to nobody else.
func TestTagForgottenAsItIsBound(t *testing.T) {
	c := openWith(t, cachetest.NewRegistry(), UpstreamOptions{TagTTL: time.Hour})
	defer closeCache(t, c)
	m := cachetest.ManifestOf("x")
	desc := v1.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: storetest.SHA256(m), Size: int64(len(m))}
	for range 600 { // the moment is short
		var busy sync.WaitGroup
		for i := range 32 {
			name := fmt.Sprint("t", i)
			busy.Go(func() {
				if err := c.BindAt(hub, name, desc, time.Now(), time.Time{}); err != nil {
					t.Error(err)
				}
			})
			busy.Go(func() {
				if err := c.ForgetTag(hub, name); err != nil {
					t.Error(err)
				}
			})
		}
		busy.Wait()
		for _, known := range c.known.tags.Values() {
			if _, recorded, err := c.store.Index.Tag(hub, known.name); err != nil || known.recorded && !recorded {
				t.Fatalf("%s is known in memory, and recorded nowhere: %v", known.name, err)
			}
		}
	}
}

// containerd asks for a tag by HEAD and then for the digest; several do so at once after a release.
func TestTagsOfOneDigestAreAllRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		m := cachetest.ManifestOf("x")
		names := []string{"1", "1.2", "latest"}
		for _, tag := range names {
			r.Push(hub.Name, tag, m)
		}
		c := openWith(t, r, UpstreamOptions{TagTTL: time.Hour})
		defer closeCache(t, c)
		for _, tag := range names {
			if _, err := c.Manifest(pull.WithClient(t.Context(), "10.0.0.7"), hub, tag, true); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := c.Manifest(t.Context(), hub, storetest.SHA256(m).String(), false); err != nil {
			t.Fatal(err)
		}
		for _, tag := range names {
			if _, recorded, err := c.store.Index.Tag(hub, tag); !recorded || err != nil {
				t.Errorf("tag %s is not recorded: %v", tag, err)
			}
		}
	})
}
