package cache

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/manifest"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

// An outage begins long after everything was learned.
func outage(r *cachetest.Registry) {
	time.Sleep(3 * time.Hour)
	r.Fail(&pull.Error{Kind: pull.Unavailable})
}

func TestTagKnownByHeadAnswersHeadInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ctx := cachetest.NewRegistry(), t.Context()
		d := r.Push(hub.Name, "latest", cachetest.ManifestOf("a"))
		c := openWith(t, r, UpstreamOptions{TagTTL: time.Minute})
		defer closeCache(t, c)
		for _, ref := range []string{"latest", d.String()} {
			if _, err := c.Manifest(ctx, hub, ref, true); err != nil {
				t.Fatal(err)
			}
		}
		outage(r)
		for range 2 { // the second time after a GET that failed
			for _, ref := range []string{"latest", d.String()} {
				m, err := c.Manifest(ctx, hub, ref, true)
				if err != nil || m.Desc.Digest != d || m.Desc.MediaType == "" || m.Desc.Size == 0 || m.Result != Stale {
					t.Errorf("HEAD of %s = %+v, %v; want what the last HEAD told", ref, m, err)
				}
			}
			if _, err := c.Manifest(ctx, hub, "latest", false); pull.KindOf(err) != pull.Unavailable {
				t.Errorf("GET = %v, want unavailable", err)
			}
		}
		if _, err := c.Manifest(ctx, other, d.String(), true); pull.KindOf(err) != pull.Unavailable {
			t.Errorf("HEAD of another repository = %v, want nothing of this one's", err)
		}
	})
}

func TestTagTooOldToStandInIsNotToldByHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		r.Push(hub.Name, "latest", cachetest.ManifestOf("a"))
		c := openWith(t, r, UpstreamOptions{TagTTL: time.Minute, StaleIfError: time.Hour})
		defer closeCache(t, c)
		if _, err := c.Manifest(t.Context(), hub, "latest", true); err != nil {
			t.Fatal(err)
		}
		outage(r)
		if m, err := c.Manifest(t.Context(), hub, "latest", true); err == nil {
			t.Errorf("HEAD = %+v, want none after stale_if_error", m)
		}
	})
}

// absences asks for what is not there in every way, and returns what each brought.
func absences(ctx context.Context, c *Cache) map[string]error {
	_, d := cachetest.BlobOf(10, 7)
	got := map[string]error{}
	for _, head := range []bool{true, false} {
		_, got[fmt.Sprint("tag, HEAD ", head)] = c.Manifest(ctx, hub, "none", head)
		_, got[fmt.Sprint("manifest, HEAD ", head)] = c.Manifest(ctx, hub, d.String(), head)
	}
	_, _, got["blob, HEAD"] = c.StatBlob(ctx, hub, d)
	_, got["blob, GET"] = c.Blob(ctx, hub, d)
	return got
}

func TestAbsenceStaysOneInAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ctx := cachetest.NewRegistry(), t.Context()
		c := openWith(t, r, UpstreamOptions{TagTTL: time.Minute})
		defer closeCache(t, c)
		want := func(when string, kind pull.Kind) {
			t.Helper()
			for what, err := range absences(ctx, c) {
				if pull.KindOf(err) != kind {
					t.Errorf("%s %s: %v, want %s", what, when, err, kind)
				}
			}
		}
		want("at first", pull.NotFound)
		outage(r)
		want("in an outage", pull.NotFound)
		r.Slow = time.Hour
		begun := time.Now()
		want("of a registry that hangs", pull.NotFound)
		if took := time.Since(begun); took > 6*whenFailing {
			t.Errorf("six absences took %s", took)
		}
		r.Slow = 0
		time.Sleep(2 * time.Hour) // for those that hang
		r.Fail(&pull.Error{Kind: pull.Denied})
		want("when we have no right", pull.Denied)
	})
}

func TestAbsenceThatHasEndedIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ctx := cachetest.NewRegistry(), t.Context()
		c := openWith(t, r, UpstreamOptions{TagTTL: time.Minute, StaleIfError: 4 * time.Hour})
		defer closeCache(t, c)
		absences(ctx, c)
		time.Sleep(time.Minute)
		r.Push(hub.Name, "none", cachetest.ManifestOf("a"))
		if m, err := c.Manifest(ctx, hub, "none", true); err != nil {
			t.Fatal(m, err)
		}
		outage(r)
		if _, err := c.Manifest(ctx, hub, "none", false); pull.KindOf(err) != pull.Unavailable {
			t.Errorf("GET of what was absent once: %v, want unavailable", err)
		}
		time.Sleep(2 * time.Hour) // that is more than stale_if_error after all
		if _, err := c.Blob(ctx, hub, cachetest.DigestOf(nil)); pull.KindOf(err) != pull.Unavailable {
			t.Errorf("GET of what nobody has asked for: %v, want unavailable", err)
		}
		for what, err := range absences(ctx, c) {
			if strings.HasPrefix(what, "blob") && pull.KindOf(err) != pull.Unavailable {
				t.Errorf("%s: %v, want unavailable after stale_if_error", what, err)
			}
		}
	})
}

func TestHeadOfBlobIsAnsweredFromItsManifest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ctx := cachetest.NewRegistry(), t.Context()
		data, d := cachetest.BlobOf(3000, 1)
		r.Put(hub.Name, &cachetest.Script{Data: data})
		foreign, f := cachetest.BlobOf(4000, 2)
		r.Put(hub.Name, &cachetest.Script{Data: foreign})
		r.Push(hub.Name, "latest", fmt.Appendf(nil, `{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[
			{"digest":%q,"size":3000},{"digest":%q,"size":4000,"urls":["https://example.com/x"]}]}`, d, f))
		c := openWith(t, r, UpstreamOptions{TagTTL: time.Minute})
		defer closeCache(t, c)
		stat := func(when string, d v1.Hash, size int64, res Result, heads int) {
			t.Helper()
			got, how, err := c.StatBlob(ctx, hub, d)
			if err != nil || got != size || how != res || r.Count("StatBlob") != heads {
				t.Errorf("%s: StatBlob = %d, %s, %v after %d HEADs; want %d, %s after %d", when, got, how, err, r.Count("StatBlob"), size, res, heads)
			}
		}
		if _, err := c.Manifest(ctx, hub, "latest", false); err != nil {
			t.Fatal(err)
		}
		stat("named by the manifest", d, 3000, Hit, 0)
		stat("which is perhaps elsewhere", f, 4000, Miss, 1)
		stat("which was told of", f, 4000, Hit, 1)
		if _, _, err := c.StatBlob(ctx, other, d); pull.KindOf(err) != pull.NotFound {
			t.Errorf("StatBlob of another repository = %v, want what its registry says", err)
		}
		outage(r)
		stat("named, in an outage", d, 3000, Hit, 2)
		stat("told of, in an outage", f, 4000, Stale, 3)
	})
}

// refusing is a registry whose manifest is refused by whoever asks it by GET.
type refusing struct{ *cachetest.Registry }

func (r refusing) Manifest(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error) {
	_, _, _ = r.Registry.Manifest(ctx, repo, ref)
	return v1.Descriptor{}, nil, &pull.Error{Kind: pull.Invalid, Detail: pull.Refused, Message: "it is no manifest"}
}

func TestRefusedManifestIsAskedForOnce(t *testing.T) {
	for _, row := range []struct {
		what   string
		size   int
		noHead bool
		gets   int // in ten minutes, and in the ten minutes after them
	}{
		{"too large by its HEAD", manifest.MaxBytes + 1, false, 0},
		{"no manifest", 1000, false, 1},
		{"no manifest, without HEAD", 1000, true, 2}, // by the tag, and by the digest
	} {
		synctest.Test(t, func(t *testing.T) {
			r, ctx := cachetest.NewRegistry(), t.Context()
			r.NoHead = row.noHead
			d := r.Push(hub.Name, "latest", cachetest.ManifestOf(strings.Repeat("x", row.size)))
			c := openWith(t, refusing{r}, UpstreamOptions{TagTTL: time.Minute})
			defer closeCache(t, c)
			for round := 1; round <= 2; round++ {
				for range 9 {
					for _, ref := range []string{"latest", d.String()} {
						for _, head := range []bool{false, true, false} {
							if m, err := c.Manifest(ctx, hub, ref, head); pull.DetailOf(err) != pull.Refused {
								t.Errorf("%s: %s, HEAD %t: %+v, %v; want it refused", row.what, ref, head, m, err)
							}
						}
					}
					time.Sleep(time.Minute)
				}
				if n := r.Count("Manifest"); n != round*row.gets {
					t.Errorf("%s: %d GETs, want %d", row.what, n, round*row.gets)
				}
				time.Sleep(refusedFor)
			}
			c.ForgetFailures(hub)
			if _, err := c.Manifest(ctx, hub, "latest", false); pull.DetailOf(err) != pull.Refused || row.gets > 0 && r.Count("Manifest") != 2*row.gets+1 {
				t.Errorf("%s: %v after %d GETs, want it looked at again", row.what, err, r.Count("Manifest"))
			}
		})
	}
}

// A tag that moves to what is refused is served as it was, and costs no pull at each check.
func TestTagThatMovesToWhatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, ctx := cachetest.NewRegistry(), t.Context()
		d := r.Push(hub.Name, "latest", cachetest.ManifestOf("good"))
		c := openWith(t, r, UpstreamOptions{TagTTL: time.Minute})
		defer closeCache(t, c)
		if _, err := c.Manifest(ctx, hub, "latest", false); err != nil {
			t.Fatal(err)
		}
		r.Push(hub.Name, "latest", cachetest.ManifestOf(strings.Repeat("x", manifest.MaxBytes)))
		for range 20 {
			time.Sleep(2 * time.Minute)
			for _, head := range []bool{false, true} {
				if m, err := c.Manifest(ctx, hub, "latest", head); err != nil || m.Desc.Digest != d || m.Result != Stale {
					t.Errorf("Manifest = %+v, %v; want the former one, stale", m, err)
				}
			}
		}
		if n := r.Count("Manifest"); n != 1 {
			t.Errorf("%d GETs, want that of the good one", n)
		}
	})
}

// hidden is a registry that has a manifest for those who take its type.
type hidden struct{ *cachetest.Registry }

func (r hidden) Resolve(ctx context.Context, repo, ref string) (v1.Descriptor, error) {
	if pull.Accept(ctx) == "" {
		return v1.Descriptor{}, &pull.Error{Kind: pull.NotFound}
	}
	return r.Registry.Resolve(ctx, repo, ref)
}

func (r hidden) Manifest(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error) {
	if pull.Accept(ctx) == "" {
		return v1.Descriptor{}, nil, &pull.Error{Kind: pull.NotFound}
	}
	return r.Registry.Manifest(ctx, repo, ref)
}

func TestAbsenceIsOfThoseWhoTakeTheSameTypes(t *testing.T) {
	r := cachetest.NewRegistry()
	r.Push(hub.Name, "latest", cachetest.ManifestOf("a"))
	c := openWith(t, hidden{r}, UpstreamOptions{TagTTL: time.Minute})
	defer closeCache(t, c)
	if _, err := c.Manifest(t.Context(), hub, "latest", true); pull.KindOf(err) != pull.NotFound {
		t.Errorf("Manifest = %v for one who takes the usual, want none", err)
	}
	if _, err := c.Manifest(pull.WithAccept(t.Context(), "application/vnd.example.manifest+json"), hub, "latest", true); err != nil {
		t.Errorf("Manifest = %v for one who takes more", err)
	}
}
