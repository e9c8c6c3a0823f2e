package cache

import (
	"bytes"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

// private is a cache with a pulled image whose access lasts an hour, of a repository that
// the registry may refuse.
type private struct {
	t        *testing.T
	r        *cachetest.Registry
	c        *Cache
	manifest v1.Hash
	blob     v1.Hash
	data     []byte
}

func newPrivate(t *testing.T) *private {
	t.Helper()
	data, blob := cachetest.BlobOf(100_000, 1)
	p := &private{t: t, r: cachetest.NewRegistry(), data: data, blob: blob}
	p.manifest = p.r.Push(hub.Name, "latest", cachetest.ManifestOf("private"))
	p.r.Put(hub.Name, &cachetest.Script{Data: data})
	p.c = openWith(t, p.r, UpstreamOptions{TagTTL: Forever, AccessTTL: time.Hour})
	p.want(true)
	return p
}

// asked returns the requests that the registry has seen.
func (p *private) asked() int {
	n := 0
	for _, method := range []string{"Resolve", "Manifest", "StatBlob", "OpenBlob", "Tags", "Referrers"} {
		n += p.r.Count(method)
	}
	return n
}

// want asks for everything and wants all of it, or none.
func (p *private) want(served bool) {
	p.t.Helper()
	ctx := p.t.Context()
	check := func(what string, err error) {
		p.t.Helper()
		switch {
		case served && err != nil:
			p.t.Errorf("%s: %v, want it served", what, err)
		case !served && pull.KindOf(err) != pull.Denied:
			p.t.Errorf("%s: %v, want it denied", what, err)
		}
	}
	_, err := p.c.Manifest(ctx, hub, "latest", false)
	check("manifest by tag", err)
	_, err = p.c.Manifest(ctx, hub, p.manifest.String(), false)
	check("manifest by digest", err)
	_, err = p.c.Manifest(ctx, hub, p.manifest.String(), true)
	check("HEAD of manifest", err)
	_, _, err = p.c.StatBlob(ctx, hub, p.blob)
	check("HEAD of blob", err)
	got, err := readBlob(ctx, p.c, hub, p.blob)
	check("blob", err)
	if served && !bytes.Equal(got, p.data) {
		p.t.Errorf("blob has %d bytes that differ", len(got))
	}
	_, err = p.c.Tags(ctx, hub)
	check("tags", err)
}

var errRevoked = &pull.Error{Kind: pull.Denied, Upstream: "docker.io", Status: 401}

func TestM54_AccessIsProvenAnewByOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrivate(t)
		defer closeCache(t, p.c)
		before := p.asked()
		time.Sleep(59 * time.Minute)
		p.want(true)
		if n := p.asked() - before; n != 0 {
			t.Errorf("%d requests within the hour, want 0", n)
		}
		time.Sleep(2 * time.Minute)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := p.c.Manifest(t.Context(), hub, p.manifest.String(), false); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		p.want(true)
		if n := p.asked() - before; n != 1 {
			t.Errorf("%d requests after it, want one HEAD", n)
		}
	})
}

func TestM54_RefusedAccessStopsServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrivate(t)
		defer closeCache(t, p.c)
		p.r.Fail(errRevoked)
		p.want(true) // it was proven a moment ago
		time.Sleep(2 * time.Hour)
		before := p.asked()
		for range 10 {
			p.want(false)
		}
		if n := p.asked() - before; n != 1 {
			t.Errorf("%d requests, want one for all within a minute", n)
		}
		p.r.Fail(nil)
		time.Sleep(2 * time.Minute)
		p.want(true)
	})
}

func TestM54_OutageIsNoRefusal(t *testing.T) {
	for name, err := range map[string]error{
		"503": &pull.Error{Kind: pull.Unavailable, Status: 503}, "429": &pull.Error{Kind: pull.Limited, Status: 429},
		"no answer": &pull.Error{Kind: pull.Timeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPrivate(t)
				defer closeCache(t, p.c)
				time.Sleep(2 * time.Hour)
				p.r.Fail(err)
				before := p.asked()
				for range 10 {
					p.want(true)
				}
				if n := p.asked() - before; n != 1 {
					t.Errorf("%d requests in an outage, want one attempt in a minute", n)
				}
			})
		})
	}
}

func TestM54_HangingProofCostsTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrivate(t)
		defer closeCache(t, p.c)
		time.Sleep(2 * time.Hour)
		p.r.Slow = time.Minute
		start := time.Now()
		for range 5 {
			if _, err := p.c.Manifest(t.Context(), hub, p.manifest.String(), false); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("five requests took %v, want two seconds for the first", took)
		}
	})
}

func TestM54_AfterARestartNothingIsProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPrivate(t)
		dir := p.c.opts.Store.Dir
		closeCache(t, p.c)
		p.r.Fail(errRevoked)
		var err error
		p.c, err = Open(Options{Store: store.Options{Dir: dir}, Upstreams: map[string]UpstreamOptions{
			"docker.io": {Upstream: p.r, TagTTL: Forever, AccessTTL: time.Hour},
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer closeCache(t, p.c)
		p.want(false)
	})
}
