package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/store"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

var (
	hub = Repo{Upstream: "docker.io", Name: "library/app"}
	// other is a second repository of the same upstream.
	other = Repo{Upstream: "docker.io", Name: "library/other"}
)

const ttl = time.Minute

// openCache opens a cache over r in dir; it is closed at the end of the test unless the
// test has closed it.
func openCache(t *testing.T, r *cachetest.Registry, dir string) *Cache {
	t.Helper()
	return openOptions(t, Options{Store: store.Options{Dir: dir}, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}})
}

// openOptions opens a cache, which is closed with the test unless it was before.
func openOptions(t *testing.T, o Options) *Cache {
	t.Helper()
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if c.ctx.Err() == nil {
			closeCache(t, c)
		}
	})
	return c
}

func closeCache(t *testing.T, c *Cache) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
}

func TestTagIsAskedOncePerTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		d := r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
		c := openCache(t, r, t.TempDir())
		defer closeCache(t, c)
		get := func(want v1.Hash, result Result) {
			t.Helper()
			m, err := c.Manifest(t.Context(), hub, "latest", false)
			if err != nil || m.Desc.Digest != want || m.Result != result {
				t.Fatalf("Manifest(latest) = %+v, %v, want %s, %s", m, err, want, result)
			}
		}
		asked := func(heads, gets int) {
			t.Helper()
			if h, g := r.Count("Resolve"), r.Count("Manifest"); h != heads || g != gets {
				t.Errorf("upstream saw %d HEADs and %d GETs, want %d and %d", h, g, heads, gets)
			}
		}
		get(d, Miss)
		asked(1, 1)
		get(d, Hit)
		asked(1, 1)
		time.Sleep(ttl + time.Second)
		get(d, Hit)
		asked(2, 1) // unmoved: one HEAD, no GET
		moved := r.Push(hub.Name, "latest", cachetest.ManifestOf("two"))
		get(d, Hit)
		time.Sleep(ttl + time.Second)
		get(moved, Miss)
		asked(3, 2)
		r.Push(hub.Name, "also", cachetest.ManifestOf("one"))
		if m, err := c.Manifest(t.Context(), hub, "also", false); err != nil || m.Desc.Digest != d {
			t.Errorf("Manifest(also) = %v, %v", m, err)
		}
		asked(4, 2) // the digest is kept: a HEAD is enough
	})
}

func TestHeadBindsTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		d := r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
		c := openCache(t, r, t.TempDir())
		defer closeCache(t, c)
		for range 3 {
			m, err := c.Manifest(t.Context(), hub, "latest", true)
			if err != nil || m.Desc.Digest != d || m.Desc.Size != int64(len(cachetest.ManifestOf("one"))) {
				t.Fatalf("Manifest(latest, head) = %+v, %v", m, err)
			}
		}
		r.Push(hub.Name, "latest", cachetest.ManifestOf("two")) // moved between HEAD and GET
		if m, err := c.Manifest(t.Context(), hub, d.String(), false); err != nil || !bytes.Equal(m.Bytes, cachetest.ManifestOf("one")) {
			t.Errorf("Manifest(%s) = %v, %v", d, m, err)
		}
		if m, err := c.Manifest(t.Context(), hub, "latest", false); err != nil || m.Desc.Digest != d {
			t.Errorf("Manifest(latest) = %v, %v, want what HEAD bound", m, err)
		}
		if h, g := r.Count("Resolve"), r.Count("Manifest"); h != 1 || g != 1 {
			t.Errorf("upstream saw %d HEADs and %d GETs, want 1 and 1", h, g)
		}
	})
}

func TestStaleTagIsServedWhenUpstreamFails(t *testing.T) {
	for _, kind := range []pull.Kind{pull.Unavailable, pull.Timeout, pull.Limited, pull.Invalid, pull.NotFound} {
		t.Run(kind.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := cachetest.NewRegistry()
				d := r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
				c := openCache(t, r, t.TempDir())
				defer closeCache(t, c)
				if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3 * ttl)
				r.Fail(&pull.Error{Kind: kind})
				m, err := c.Manifest(t.Context(), hub, "latest", false)
				if err != nil || m.Desc.Digest != d || m.Result != Stale || m.StaleFor < ttl {
					t.Errorf("Manifest = %+v, %v, want %s stale", m, err, d)
				}
				if _, err := c.Manifest(t.Context(), hub, "unknown", false); pull.KindOf(err) != kind {
					t.Errorf("Manifest(unknown) = %v, want %s", err, kind)
				}
			})
		})
	}
}

func TestRefusedTagIsNotServedStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
		c := openCache(t, r, t.TempDir())
		defer closeCache(t, c)
		if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * ttl)
		r.Fail(&pull.Error{Kind: pull.Denied})
		if m, err := c.Manifest(t.Context(), hub, "latest", false); pull.KindOf(err) != pull.Denied || err == nil {
			t.Errorf("Manifest = %v, %v, want denied", m, err)
		}
	})
}

func TestHangingUpstreamCostsTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		d := r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
		c := openCache(t, r, t.TempDir())
		defer closeCache(t, c)
		if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * ttl)
		r.Lock()
		r.Slow = time.Hour
		r.Unlock()
		start := time.Now()
		m, err := c.Manifest(t.Context(), hub, "latest", false)
		if took := time.Since(start); err != nil || m.Desc.Digest != d || m.Result != Stale || took != 2*time.Second {
			t.Errorf("Manifest = %+v, %v after %v, want stale after 2 s", m, err, took)
		}
	})
}

func TestConcurrentCallersAskOnce(t *testing.T) {
	r := cachetest.NewRegistry()
	m := cachetest.ManifestOf("one")
	r.Push(hub.Name, "latest", m)
	r.Slow = 20 * time.Millisecond
	s := &cachetest.Script{Pace: time.Millisecond}
	s.Data, _ = cachetest.BlobOf(4<<20, 1)
	d := r.Put(hub.Name, s)
	c := openCache(t, r, t.TempDir())
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if got, err := c.Manifest(t.Context(), hub, "latest", false); err != nil || !bytes.Equal(got.Bytes, m) {
				t.Errorf("Manifest = %v, %v", got, err)
			}
			if got, err := readBlob(t.Context(), c, hub, d); err != nil || !bytes.Equal(got, s.Data) {
				t.Errorf("Blob = %d bytes, %v", len(got), err)
			}
		})
	}
	all.Wait()
	want := map[string]int{"Resolve": 1, "Manifest": 1, "OpenBlob": 1, "StatBlob": 1} // a blob that no manifest named
	for method, n := range want {
		if got := r.Count(method); got != n {
			t.Errorf("upstream saw %d %s, want %d", got, method, n)
		}
	}
}

func readBlob(ctx context.Context, c *Cache, repo Repo, d v1.Hash) ([]byte, error) {
	b, err := c.Blob(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if f := b.File(); f != nil {
		return io.ReadAll(f)
	}
	var out bytes.Buffer
	_, err = b.Send(ctx, &out, 0, -1)
	return out.Bytes(), err
}

func TestBlobOfAnotherRepositoryNeedsProof(t *testing.T) {
	r := cachetest.NewRegistry()
	s := &cachetest.Script{}
	s.Data, _ = cachetest.BlobOf(2<<20, 2)
	d := r.Put(hub.Name, s)
	c := openCache(t, r, t.TempDir())
	if _, err := readBlob(t.Context(), c, hub, d); err != nil {
		t.Fatal(err)
	}
	// A repository that does not hold it gets what it would get for an unknown digest.
	if _, err := readBlob(t.Context(), c, other, d); pull.KindOf(err) != pull.NotFound {
		t.Errorf("Blob(other) = %v, want not found", err)
	}
	third := Repo{Upstream: "docker.io", Name: "library/third"}
	r.Put(third.Name, s)
	for range 2 {
		if got, err := readBlob(t.Context(), c, third, d); err != nil || !bytes.Equal(got, s.Data) {
			t.Errorf("Blob(third) = %d bytes, %v", len(got), err)
		}
	}
	if stats, opens := r.Count("StatBlob"), r.Count("OpenBlob"); stats != 3 || opens != 1 {
		t.Errorf("upstream saw %d HEADs and %d GETs, want 3 and 1", stats, opens)
	}
	// A manifest is no blob, and the other way round.
	m := r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
	if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
		t.Fatal(err)
	}
	if _, err := readBlob(t.Context(), c, hub, m); pull.KindOf(err) != pull.NotFound {
		t.Errorf("Blob(manifest) = %v, want not found", err)
	}
}

func TestKeptContentIsServedWithoutUpstreamAfterRestart(t *testing.T) {
	for _, lose := range []string{"nothing", "index", "index and journal"} {
		t.Run("lost "+lose, func(t *testing.T) {
			r := cachetest.NewRegistry()
			r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
			s := &cachetest.Script{}
			s.Data, _ = cachetest.BlobOf(2<<20, 3)
			d := r.Put(hub.Name, s)
			dir := t.TempDir()
			c := openCache(t, r, dir)
			if _, err := c.Manifest(t.Context(), hub, "latest", false); err != nil {
				t.Fatal(err)
			}
			if _, err := readBlob(t.Context(), c, hub, d); err != nil {
				t.Fatal(err)
			}
			closeCache(t, c)
			if lose != "nothing" {
				if err := os.RemoveAll(filepath.Join(dir, "index")); err != nil {
					t.Fatal(err)
				}
			}
			if lose == "index and journal" {
				if err := os.Remove(filepath.Join(dir, "refs.journal")); err != nil {
					t.Fatal(err)
				}
			}
			c = openCache(t, r, dir)
			if lose != "index and journal" {
				r.Fail(&pull.Error{Kind: pull.Unavailable})
			}
			if m, err := c.Manifest(t.Context(), hub, "latest", false); err != nil || !bytes.Equal(m.Bytes, cachetest.ManifestOf("one")) {
				t.Errorf("Manifest = %v, %v", m, err)
			}
			if got, err := readBlob(t.Context(), c, hub, d); err != nil || !bytes.Equal(got, s.Data) {
				t.Errorf("Blob = %d bytes, %v", len(got), err)
			}
			// The bytes are never fetched again, only the right to them is asked for.
			if gets, opens := r.Count("Manifest"), r.Count("OpenBlob"); gets != 1 || opens != 1 {
				t.Errorf("upstream saw %d manifest GETs and %d blob GETs, want 1 and 1", gets, opens)
			}
		})
	}
}

func TestRottenBlobIsNeverServedWhole(t *testing.T) {
	for _, size := range []int{1000, 3 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := cachetest.NewRegistry()
			s := &cachetest.Script{}
			s.Data, _ = cachetest.BlobOf(size, 4)
			d := r.Put(hub.Name, s)
			dir := t.TempDir()
			c := openCache(t, r, dir)
			if _, err := readBlob(t.Context(), c, hub, d); err != nil {
				t.Fatal(err)
			}
			closeCache(t, c)
			path := filepath.Join(dir, "blobs", "sha256", d.Hex[:2], d.Hex)
			rotten := bytes.Clone(s.Data)
			rotten[size-1] ^= 4
			if err := errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, rotten, 0o600)); err != nil {
				t.Fatal(err)
			}
			c = openCache(t, r, dir)
			got, err := readBlob(t.Context(), c, hub, d)
			if err == nil && !bytes.Equal(got, s.Data) {
				t.Fatalf("first reader got %d wrong bytes and no error", len(got))
			}
			if size <= smallBlob && err != nil {
				t.Errorf("small blob = %v, want it fetched again at once", err)
			}
			got, err = readBlob(t.Context(), c, hub, d)
			if err != nil || !bytes.Equal(got, s.Data) {
				t.Errorf("second reader got %d bytes, %v", len(got), err)
			}
			if n := r.Count("OpenBlob"); n != 2 {
				t.Errorf("upstream saw %d blob GETs, want 2", n)
			}
		})
	}
}

func TestWrongContentTwiceIsRefusedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		s := &cachetest.Script{}
		s.Data, _ = cachetest.BlobOf(3<<20, 5)
		d := r.Put(hub.Name, s)
		s.Faults = []cachetest.Fault{{Flip: true}, {Flip: true}, {Flip: true}, {Flip: true}}
		c := openCache(t, r, t.TempDir())
		defer closeCache(t, c)
		for range 3 {
			if _, err := readBlob(t.Context(), c, hub, d); pull.KindOf(err) != pull.Invalid {
				t.Errorf("Blob = %v, want invalid", err)
			}
		}
		if n := r.Count("OpenBlob"); n != 2 {
			t.Errorf("upstream saw %d blob GETs, want 2", n)
		}
		s.Faults = nil
		time.Sleep(wrongFor + time.Second)
		if got, err := readBlob(t.Context(), c, hub, d); err != nil || !bytes.Equal(got, s.Data) {
			t.Errorf("Blob = %d bytes, %v", len(got), err)
		}
	})
}

func TestAbsenceIsRememberedShortly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		defer closeCache(t, c)
		absent := func(asked int) {
			t.Helper()
			if _, err := c.Manifest(t.Context(), hub, "new", false); pull.KindOf(err) != pull.NotFound {
				t.Errorf("Manifest = %v, want not found", err)
			}
			if n := r.Count("Resolve"); n != asked {
				t.Errorf("upstream saw %d HEADs, want %d", n, asked)
			}
		}
		absent(1)
		absent(1)
		d := r.Push(hub.Name, "new", cachetest.ManifestOf("new"))
		time.Sleep(11 * time.Second)
		if m, err := c.Manifest(t.Context(), hub, "new", false); err != nil || m.Desc.Digest != d {
			t.Errorf("Manifest = %v, %v", m, err)
		}
	})
}

func TestUpstreamWithoutHeadIsAskedByGet(t *testing.T) {
	r := cachetest.NewRegistry()
	r.NoHead = true
	d := r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
	c := openCache(t, r, t.TempDir())
	for range 3 {
		if m, err := c.Manifest(t.Context(), hub, "latest", false); err != nil || m.Desc.Digest != d || m.Bytes == nil {
			t.Errorf("Manifest = %v, %v", m, err)
		}
	}
	if n := r.Count("Manifest"); n != 1 {
		t.Errorf("upstream saw %d GETs, want 1", n)
	}
}

func TestListsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		d := r.Push(hub.Name, "latest", cachetest.ManifestOf("one"))
		c := openCache(t, r, t.TempDir())
		defer closeCache(t, c)
		check := func(want Result) {
			t.Helper()
			l, err := c.Tags(t.Context(), hub)
			if err != nil || !slices.Equal(l.Tags, []string{"a", "b"}) || l.Result != want {
				t.Errorf("Tags = %+v, %v, want %s", l, err, want)
			}
			refs, err := c.Referrers(t.Context(), hub, d)
			if err != nil || len(refs.Manifests) != 1 || refs.Result != want {
				t.Errorf("Referrers = %+v, %v, want %s", refs, err, want)
			}
		}
		check(Miss)
		check(Hit)
		time.Sleep(ttl)
		check(Miss)
		time.Sleep(ttl)
		r.Fail(&pull.Error{Kind: pull.Unavailable})
		check(Stale)
		if _, err := c.Tags(t.Context(), other); err == nil {
			t.Error("Tags of an unknown repository while the upstream fails = nil error")
		}
		names, more, err := c.Catalog(t.Context(), "", 10)
		if err != nil || more || len(names) != 0 {
			t.Errorf("Catalog = %v, %t, %v, want nothing kept", names, more, err)
		}
	})
}

func TestCatalogLeavesOutWhatIsNobodysToKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		upstreams := map[string]UpstreamOptions{}
		for name, unlisted := range map[string]bool{"a.example": false, "b.example": true, "b.example:5000": false, "c.example": false} {
			upstreams[name] = UpstreamOptions{Upstream: r, TagTTL: ttl, AccessTTL: time.Hour, Credentialed: true, Unlisted: unlisted}
		}
		c, err := Open(Options{Store: store.Options{Dir: t.TempDir(), MaxBytes: 64 << 20}, Upstreams: upstreams})
		if err != nil {
			t.Fatal(err)
		}
		defer closeCache(t, c)
		for _, upstream := range []string{"a.example", "b.example", "b.example:5000", "c.example"} {
			for i := range 5 {
				name := fmt.Sprintf("team/app-%d", i)
				r.Push(name, "latest", fmt.Appendf(nil, `{"schemaVersion":2,"layers":[],"x":%d}`, i))
				if _, err := c.Manifest(t.Context(), Repo{Upstream: upstream, Name: name}, "latest", false); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.origins()["a.example"].access.observe("team/app-1", &pull.Error{Kind: pull.Denied})
		var want []string
		for _, upstream := range []string{"a.example", "b.example:5000", "c.example"} {
			for i := range 5 {
				if upstream != "a.example" || i != 1 {
					want = append(want, fmt.Sprintf("%s/team/app-%d", upstream, i))
				}
			}
		}
		for _, size := range []int{1, 2, 3, 7, 14, 15, 100} {
			var got []string
			after, more := "", true
			for more {
				var page []string
				if page, more, err = c.Catalog(t.Context(), after, size); err != nil || len(page) > size || more && len(page) < size {
					t.Fatalf("Catalog after %q = %v, %t, %v", after, page, more, err)
				}
				if got = append(got, page...); len(page) > 0 {
					after = page[len(page)-1]
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("in pages of %d: %v, want %v", size, got, want)
			}
		}
		for upstream, want := range map[string]bool{"a.example": true, "b.example": false, "none.example": false} {
			if got := c.Lists(upstream); got != want {
				t.Errorf("Lists(%s) = %t, want %t", upstream, got, want)
			}
		}
	})
}

func TestServable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		s := &cachetest.Script{}
		s.Data, _ = cachetest.BlobOf(1000, 6)
		d := r.Put(hub.Name, s)
		r.Push(hub.Name, "latest", fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"digest":%q,"size":1000}]}`, d))
		c := openCache(t, r, t.TempDir())
		defer closeCache(t, c)
		m, err := c.Manifest(t.Context(), hub, "latest", false)
		if err != nil {
			t.Fatal(err)
		}
		if !c.Servable(t.Context(), hub, m) {
			t.Error("Servable = false while the upstream works")
		}
		r.Fail(&pull.Error{Kind: pull.Unavailable})
		if _, err := readBlob(t.Context(), c, hub, d); err == nil {
			t.Fatal("Blob = nil error while the upstream fails")
		}
		if c.Servable(t.Context(), hub, m) || !c.Troubled(hub) {
			t.Error("Servable = true, or not Troubled, with a blob missing and the upstream failing")
		}
		r.Fail(nil)
		if _, err := readBlob(t.Context(), c, hub, d); err != nil {
			t.Fatal(err)
		}
		r.Fail(&pull.Error{Kind: pull.Unavailable})
		if !c.Servable(t.Context(), hub, m) {
			t.Error("Servable = false with all blobs kept")
		}
		time.Sleep(troubleFor + time.Second)
		if c.Troubled(hub) {
			t.Error("Troubled for longer than a minute")
		}
	})
}
