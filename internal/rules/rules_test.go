package rules

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"go.uber.org/goleak"

	"forebay/cache"
	"forebay/cache/index"
	"forebay/cache/policy"
	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var nginx = Repo{Upstream: "docker.io", Name: "library/nginx"}

// day is an hour: a virtual day takes seconds, in which the database ticks.
const day = time.Hour

// site is a mirror with its policy, in a folder.
type site struct {
	t     *testing.T
	dir   string
	r     *cachetest.Registry
	c     *cache.Cache
	rules *Rules
	o     Options
	up    cache.UpstreamOptions
}

func newSite(t *testing.T, configured ...Configured) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), r: cachetest.NewRegistry(), up: cache.UpstreamOptions{TagTTL: time.Minute}}
	s.start(configured...)
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *site) start(configured ...Configured) {
	s.t.Helper()
	var err error
	s.up.Upstream = s.r
	s.c, err = cache.Open(cache.Options{Store: store.Options{Dir: s.dir}, Upstreams: map[string]cache.UpstreamOptions{"docker.io": s.up}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.o.Cache = s.c
	if s.rules, err = New(s.o, configured); err != nil {
		s.t.Fatal(err)
	}
	s.rules.openFor, s.rules.confirmAfter = 36*day/24, 20*day/24
}

func (s *site) stop() {
	if s.c == nil {
		return
	}
	if err := s.c.Close(); err != nil {
		s.t.Errorf("Close: %v", err)
	}
	s.c = nil
}

// client is the context of a request of a client.
func client(t *testing.T) context.Context { return pull.WithClient(t.Context(), "10.0.0.1") }

// pull asks for a tag by HEAD and by GET as a client does, and returns the digest that both say.
func (s *site) pull(tag string) (v1.Hash, error) {
	s.t.Helper()
	head, headErr := s.c.Manifest(client(s.t), nginx, tag, true)
	get, err := s.c.Manifest(client(s.t), nginx, tag, false)
	switch {
	case (err == nil) != (headErr == nil):
		s.t.Fatalf("HEAD of %s: %v, GET: %v", tag, headErr, err)
	case err != nil:
		return v1.Hash{}, err
	case head.Desc.Digest != get.Desc.Digest:
		s.t.Fatalf("HEAD of %s: %s, GET: %s", tag, head.Desc.Digest, get.Desc.Digest)
	}
	return get.Desc.Digest, nil
}

func (s *site) want(what, tag string, want v1.Hash) {
	s.t.Helper()
	if got, err := s.pull(tag); err != nil || got != want {
		s.t.Errorf("%s: %s answers with %s, %v; want %s", what, tag, got, err, want)
	}
}

func aged(change func(*Configured)) Configured {
	c := Configured{Rule: policy.Rule{Name: "aged", Age: 7 * day, FirstSight: policy.Serve}}
	if change != nil {
		change(&c)
	}
	return c
}

func TestMovedTagReachesNobodyBeforeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, aged(nil))
		good := s.r.Image(t, nginx.Name, "1", "good").Digest
		s.want("first sight", "1", good)
		time.Sleep(8 * day)
		s.want("later", "1", good)
		time.Sleep(2 * time.Minute)
		bad := s.r.Image(t, nginx.Name, "1", "bad").Digest
		gets := s.r.Count("Manifest")
		for at := time.Duration(0); at < 7*day; at += day / 8 {
			s.want("moved "+at.String()+" ago", "1", good)
			time.Sleep(day / 8)
		}
		if n := s.r.Count("Manifest") - gets; n != 0 {
			t.Errorf("what waits was fetched %d times, want not at all", n)
		}
		s.want("old enough", "1", bad)
	})
}

func TestWithdrawnDigestReachesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, aged(nil))
		good := s.r.Image(t, nginx.Name, "1", "good")
		s.want("first sight", "1", good.Digest)
		time.Sleep(10 * day)
		s.want("later", "1", good.Digest)
		time.Sleep(2 * time.Minute)
		s.r.Image(t, nginx.Name, "1", "bad")
		s.want("moved", "1", good.Digest)
		time.Sleep(2 * day)
		s.want("later", "1", good.Digest)
		time.Sleep(2 * time.Minute)
		fixed := s.r.Image(t, nginx.Name, "1", "fixed").Digest
		for range 6 {
			s.want("withdrawn", "1", good.Digest)
			time.Sleep(day)
		}
		time.Sleep(2 * day)
		s.want("the fix is old enough", "1", fixed)
	})
}

// While the registry fails, what answers is the same, and what answers is not what it last said.
func TestOutageChangesNoRuling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, aged(nil))
		good := s.r.Image(t, nginx.Name, "1", "good").Digest
		s.want("first sight", "1", good)
		time.Sleep(10 * day)
		s.want("later", "1", good)
		time.Sleep(2 * time.Minute)
		bad := s.r.Image(t, nginx.Name, "1", "bad").Digest
		s.want("moved", "1", good)
		s.r.Fail(&pull.Error{Kind: pull.Unavailable})
		for range 10 {
			time.Sleep(day)
			s.want("the registry is down", "1", good)
		}
		s.r.Fail(nil)
		time.Sleep(2 * time.Minute)
		s.want("it is so still", "1", bad)
	})
}

func TestRefusalNamesRuleAndWayOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, aged(func(c *Configured) { c.FirstSight = policy.Hold }))
		d := s.r.Image(t, nginx.Name, "1", "new").Digest
		_, err := s.pull("1")
		if pull.KindOf(err) != pull.Denied || pull.DetailOf(err) != pull.ByPolicy || !strings.Contains(err.Error(), "policy aged") || !strings.Contains(err.Error(), "forebay tag promote docker.io/library/nginx:1") {
			t.Fatalf("at first sight: %v", err)
		}
		s.stop()
		time.Sleep(7 * day)
		s.start(aged(func(c *Configured) { c.FirstSight = policy.Hold }))
		s.want("after a restart and its time", "1", d)
	})
}

func TestPromotion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, aged(nil))
		good := s.r.Image(t, nginx.Name, "1", "good").Digest
		s.want("first sight", "1", good)
		time.Sleep(time.Hour)
		next := s.r.Image(t, nginx.Name, "1", "next").Digest
		s.want("moved", "1", good)
		if _, err := s.rules.Promote(t.Context(), nginx, "1", v1.Hash{}, " ", "admin"); !errors.Is(err, store.ErrQuery) {
			t.Errorf("Promote without a reason: %v, want %v", err, store.ErrQuery)
		}
		p, err := s.rules.Promote(t.Context(), nginx, "1", v1.Hash{}, "CVE-2026-1", "admin")
		if err != nil || p.Digest != next || p.Was != good {
			t.Fatalf("Promote = %+v, %v", p, err)
		}
		s.want("promoted", "1", next)
		s.stop()
		s.start(aged(nil))
		s.want("after a restart", "1", next)
		list, err := s.rules.Promotions()
		if err != nil || len(list) != 1 || list[0].Why != "CVE-2026-1" || list[0].Who != "admin" {
			t.Errorf("Promotions = %+v, %v", list, err)
		}
		if err := s.rules.Withdraw(nginx, "1", "no", "admin"); err != nil {
			t.Fatal(err)
		}
		s.want("withdrawn", "1", good)
	})
}

func TestFreezeAndThaw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		first := s.r.Image(t, nginx.Name, "1", "first").Digest
		s.want("first sight", "1", first)
		time.Sleep(time.Hour)
		if err := s.rules.Freeze(Freeze{Pattern: "nginx", Until: time.Now().Add(48 * time.Hour), Why: "release"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		second := s.r.Image(t, nginx.Name, "1", "second").Digest
		s.want("frozen", "1", first)
		s.stop()
		s.start()
		s.want("frozen, after a restart", "1", first)
		time.Sleep(47 * time.Hour)
		s.want("the freeze is over", "1", second)
		if err := s.rules.Freeze(Freeze{Pattern: "*", At: time.Now().Add(-48 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
		s.want("frozen as it was", "1", first)
		if err := s.rules.Thaw("*", "admin"); err != nil {
			t.Fatal(err)
		}
		s.want("thawed", "1", second)
		if err := s.rules.Thaw("*", "admin"); !errors.Is(err, store.ErrNotKept) {
			t.Errorf("Thaw again: %v, want %v", err, store.ErrNotKept)
		}
	})
}

func TestSnapshotsAndAsOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		first := s.r.Image(t, nginx.Name, "1", "shared", "first").Digest
		s.want("first sight", "1", first)
		for _, one := range []string{"shared", "first"} { // its layers
			b, err := s.c.Blob(client(t), nginx, cachetest.DigestOf([]byte(one)))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Send(client(t), io.Discard, 0, int64(len(one))); err != nil {
				t.Fatal(err)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
		}
		then := time.Now()
		time.Sleep(time.Hour)
		made, err := s.rules.Create(t.Context(), Snapshot{Name: "prod", Patterns: []string{"nginx"}, Why: "release 7"})
		if err != nil || made.Images != 1 {
			t.Fatalf("Create = %+v, %v", made, err)
		}
		time.Sleep(time.Hour)
		second := s.r.Image(t, nginx.Name, "1", "shared", "second").Digest
		s.want("moved", "1", second)
		if _, err := s.rules.Create(t.Context(), Snapshot{Name: "next"}); err != nil {
			t.Fatal(err)
		}
		calls := s.r.Count("Resolve") + s.r.Count("Manifest")
		for _, at := range []string{"prod", then.UTC().Format(time.RFC3339)} {
			e, err := s.rules.AsOf(t.Context(), nginx, "1", at)
			if err != nil || e.Digest != first || !e.Since.Equal(then.Truncate(time.Millisecond)) && e.Since.After(then) {
				t.Errorf("AsOf %s = %+v, %v; want %s", at, e, err, first)
			}
			if tags, err := s.rules.TagsAsOf(t.Context(), nginx, at); err != nil || len(tags) != 1 {
				t.Errorf("TagsAsOf %s = %v, %v", at, tags, err)
			}
		}
		for _, at := range []string{"1999-01-01", "nothing"} {
			if e, err := s.rules.AsOf(t.Context(), nginx, "1", at); !errors.Is(err, ErrNotThen) {
				t.Errorf("AsOf %s = %+v, %v; want %v", at, e, err, ErrNotThen)
			}
		}
		if n := s.r.Count("Resolve") + s.r.Count("Manifest") - calls; n != 0 {
			t.Errorf("the registry was asked %d times for what was, want never", n)
		}
		diff, err := s.rules.Diff("prod", "next")
		if err != nil || len(diff) != 1 || diff[0].From.Digest != first || diff[0].To.Digest != second || len(diff[0].Removed) == 0 {
			t.Errorf("Diff = %+v, %v", diff, err)
		}
		if !s.c.Images().Pins.Pinned(first) || !s.c.Images().Pins.Pinned(cachetest.DigestOf([]byte("first"))) {
			t.Error("what the snapshot names may be evicted")
		}
		if len(s.c.Images().Pins.List()) != 0 {
			t.Error("what the snapshot holds is listed as pins of the operator")
		}
		s.stop()
		// The index is lost.
		if err := os.RemoveAll(filepath.Join(s.dir, "index")); err != nil {
			t.Fatal(err)
		}
		s.start()
		if e, err := s.rules.AsOf(t.Context(), nginx, "1", "prod"); err != nil || e.Digest != first {
			t.Errorf("after a rebuild AsOf prod = %+v, %v; want %s", e, err, first)
		}
		if e, err := s.rules.AsOf(t.Context(), nginx, "1", then.UTC().Format(time.RFC3339)); err != nil || e.Digest != first {
			t.Errorf("after a rebuild AsOf %s = %+v, %v; want %s", then, e, err, first)
		}
		if !s.c.Images().Pins.Pinned(first) {
			t.Error("after a rebuild what the snapshot names may be evicted")
		}
		if n, err := s.rules.PromoteSnapshot(t.Context(), "prod", "roll back", "admin"); n != 1 || err != nil {
			t.Fatalf("PromoteSnapshot = %d, %v", n, err)
		}
		s.want("promoted", "1", first)
		if err := s.rules.Drop("prod", "admin"); err != nil {
			t.Fatal(err)
		}
		if all, err := s.rules.Snapshots(); err != nil || len(all) != 1 || all[0].Name != "next" {
			t.Errorf("Snapshots = %+v, %v", all, err)
		}
	})
}

func TestHistoryLivesThroughRebuild(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, aged(nil))
		good := s.r.Image(t, nginx.Name, "1", "good").Digest
		s.want("first sight", "1", good)
		time.Sleep(10 * day)
		s.want("later", "1", good)
		time.Sleep(2 * time.Minute)
		bad := s.r.Image(t, nginx.Name, "1", "bad").Digest
		s.want("moved", "1", good)
		before, err := s.rules.History(nginx, "1")
		if err != nil {
			t.Fatal(err)
		}
		s.stop()
		if err := os.RemoveAll(filepath.Join(s.dir, "index")); err != nil {
			t.Fatal(err)
		}
		s.start(aged(nil))
		after, err := s.rules.History(nginx, "1")
		if err != nil || len(before) != 2 || len(after) != 2 || after[0].Digest != bad || after[1] != before[1] {
			t.Errorf("History = %+v, %v; want %+v", after, err, before)
		}
		s.want("after a rebuild", "1", good)
	})
}

func TestDigestsThatNoTagHad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, aged(func(c *Configured) { c.Digests = policy.AgedDigest }))
		index := s.r.Multi(t, nginx.Name, "1")
		s.want("first sight", "1", index.Digest)
		other := s.r.Image(t, nginx.Name, "2", "other").Digest
		_ = other
		stray := s.r.Push(nginx.Name, "gone", cachetest.ManifestOf("stray"))
		s.r.Unbind(nginx.Name, "gone")
		if _, err := s.c.Manifest(client(t), nginx, index.Digest.String(), false); err != nil {
			t.Errorf("what the tag answers with, by digest: %v", err)
		}
		if _, err := s.c.Manifest(client(t), nginx, stray.String(), false); pull.DetailOf(err) != pull.ByPolicy {
			t.Errorf("what no tag had, by digest: %v; want a refusal", err)
		}
		if _, err := s.c.Manifest(t.Context(), nginx, stray.String(), false); err != nil {
			t.Errorf("what the mirror does for itself: %v", err)
		}
	})
}

// Who asks by digest gets what is signed, the images of an index that is, their blobs, and what is about it;
// an image that only says that it is about something signed is none of that.
func TestDigestsThatNobodySigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		signed, asked := map[v1.Hash]bool{}, map[v1.Hash]int{}
		rule := func(which policy.Digests) Configured {
			return Configured{Rule: policy.Rule{Name: "signed", Signed: true, Digests: which}}
		}
		s := newSite(t)
		s.stop()
		s.o.Signed = func(_ context.Context, _ Repo, d v1.Hash, _ string) policy.Answer {
			asked[d]++
			return policy.Answer{Yes: signed[d], Why: "no signature was found"}
		}
		s.start(rule(policy.CheckedDigest))
		whole := s.r.Multi(t, nginx.Name, "1")
		signed[whole.Digest] = true
		stray := s.r.Image(t, nginx.Name, "stray", "stray").Digest
		about := func(configType, layerType types.MediaType, tag string, of v1.Hash) v1.Hash {
			config, layer := []byte("{}"), []byte("layer "+tag)
			s.r.Put(nginx.Name, &cachetest.Script{Data: config})
			s.r.Put(nginx.Name, &cachetest.Script{Data: layer})
			doc := map[string]any{"mediaType": types.OCIManifestSchema1, "config": cachetest.DescOf(configType, config), "layers": []any{cachetest.DescOf(layerType, layer)}}
			if of != (v1.Hash{}) {
				doc["subject"] = map[string]any{"mediaType": types.OCIImageIndex, "digest": of.String(), "size": 1}
			}
			return s.r.Push(nginx.Name, tag, cachetest.JSONOf(t, doc))
		}
		sbom := about("application/vnd.oci.empty.v1+json", types.OCILayer, "sbom", whole.Digest)
		ofChild := about("application/vnd.oci.empty.v1+json", types.OCILayer, "provenance", whole.Children[0])
		evil := about(types.OCIConfigJSON, types.OCILayer, "evil", whole.Digest)
		ofStray := about("application/vnd.oci.empty.v1+json", types.OCILayer, "of-stray", stray)
		cosign := about(types.OCIConfigJSON, "application/vnd.dev.cosign.simplesigning.v1+json", "sha256-"+whole.Digest.Hex+".sig", v1.Hash{})
		evilTag := about(types.OCIConfigJSON, types.OCILayer, "sha256-"+whole.Digest.Hex+".sbom", v1.Hash{})
		for _, tag := range []string{"sha256-" + whole.Digest.Hex + ".sig", "sha256-" + whole.Digest.Hex + ".sbom"} {
			if _, err := s.pull(tag); err != nil {
				t.Errorf("%s: %v", tag, err)
			}
		}
		s.want("by tag", "1", whole.Digest)
		look := func(when string) {
			t.Helper()
			for name, d := range map[string]v1.Hash{"index": whole.Digest, "image of it": whole.Children[0], "another": whole.Children[1], "what is about it": sbom, "what is about its image": ofChild, "signature": cosign} {
				for _, head := range []bool{true, false} {
					if _, err := s.c.Manifest(client(t), nginx, d.String(), head); err != nil {
						t.Errorf("%s: %s by digest, head %t: %v", when, name, head, err)
					}
				}
			}
			for name, d := range map[string]v1.Hash{"image that nobody signed": stray, "image about what is signed": evil, "image by a tag of cosign": evilTag, "what is about what nobody signed": ofStray} {
				for _, head := range []bool{true, false} {
					if _, err := s.c.Manifest(client(t), nginx, d.String(), head); pull.DetailOf(err) != pull.ByPolicy || !strings.Contains(err.Error(), "no signature was found") {
						t.Errorf("%s: %s by digest, head %t: %v; want a refusal", when, name, head, err)
					}
				}
			}
			for _, d := range whole.Blobs {
				b, err := s.c.Blob(client(t), nginx, d)
				if err != nil {
					t.Fatalf("%s: blob of a signed index: %v", when, err)
				}
				_ = b.Close()
			}
		}
		look("at first")
		if asked[whole.Children[0]] != 0 {
			t.Error("signatures of an image of a signed index were looked for")
		}
		s.stop()
		s.start(rule(""))
		look("after a restart")
		signed[stray] = true
		time.Sleep(time.Minute)
		if _, err := s.c.Manifest(client(t), nginx, stray.String(), false); err != nil {
			t.Errorf("what was signed meanwhile, by digest: %v", err)
		}
		delete(signed, stray)
		if err := s.rules.Configure([]Configured{rule(policy.AnyDigest)}); err != nil {
			t.Fatal(err)
		}
		if _, err := s.c.Manifest(client(t), nginx, stray.String(), false); err != nil {
			t.Errorf("digests: any, what nobody signed: %v", err)
		}
		if _, err := s.pull("stray"); pull.DetailOf(err) != pull.ByPolicy {
			t.Errorf("digests: any, by tag: %v; want a refusal", err)
		}
	})
}

// A tag that nobody pulls is looked at all the same, so that what it had is known.
func TestTagsThatAgeAreLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, aged(nil))
		first := s.r.Image(t, nginx.Name, "1", "first").Digest
		s.want("first sight", "1", first)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { s.rules.Run(ctx); close(done) }()
		time.Sleep(3 * day)
		s.r.Image(t, nginx.Name, "1", "bad")
		time.Sleep(2 * day)
		s.r.Image(t, nginx.Name, "1", "fixed")
		time.Sleep(5 * day)
		stop()
		<-done
		all, err := s.rules.History(nginx, "1")
		if err != nil || len(all) != 3 {
			t.Errorf("History = %+v, %v; want three digests", all, err)
		}
		s.want("withdrawn, and the fix is young", "1", first)
	})
}

func TestDecisionsAreBounded(t *testing.T) {
	s := newSite(t)
	for name, err := range map[string]error{
		"freeze of the future": s.rules.Freeze(Freeze{Pattern: "*", At: time.Now().Add(time.Hour)}),
		"freeze that is over":  s.rules.Freeze(Freeze{Pattern: "*", Until: time.Now().Add(-time.Hour)}),
		"freeze of nothing":    s.rules.Freeze(Freeze{}),
		"long reason":          s.rules.Freeze(Freeze{Pattern: "*", Why: strings.Repeat("x", 2000)}),
	} {
		if !errors.Is(err, store.ErrQuery) {
			t.Errorf("%s: %v, want %v", name, err, store.ErrQuery)
		}
	}
	for _, name := range []string{"", "2026-11-01", "UPPER", "a/b", "-a"} {
		if _, err := s.rules.Create(t.Context(), Snapshot{Name: name}); !errors.Is(err, store.ErrQuery) {
			t.Errorf("snapshot %q: %v, want %v", name, err, store.ErrQuery)
		}
	}
	if _, err := s.rules.Create(t.Context(), Snapshot{Name: "empty"}); !errors.Is(err, store.ErrQuery) {
		t.Errorf("snapshot of nothing: %v, want %v", err, store.ErrQuery)
	}
	err := s.c.Store().Update(func(b *index.Batch) error {
		return b.Decide(index.Decision{Name: "freeze/*", Text: "not JSON"})
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.rules.Configure(nil); err != nil {
		t.Errorf("a decision that cannot be read: %v", err)
	}
}
