package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/index"
	"forebay/internal/pull"
)

// built is an image in the registry of a test.
type built struct {
	digest   v1.Hash   // of manifest or index
	children []v1.Hash // manifests by platform; of an index only
	blobs    []v1.Hash // config and layers, of each child in turn
}

func jsonOf(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func descOf(mediaType types.MediaType, b []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": digestOf(b).String(), "size": len(b)}
}

// one pushes an image of one platform with the given layers and returns its manifest.
func (r *registry) one(t *testing.T, repo, architecture string, layers ...string) (manifest []byte, b built) {
	t.Helper()
	config := jsonOf(t, map[string]string{"os": "linux", "architecture": architecture, "made": digestOf([]byte(strings.Join(layers, "+"))).Hex})
	b.blobs = append(b.blobs, r.put(repo, &script{data: config}))
	doc := map[string]any{"mediaType": types.OCIManifestSchema1, "config": descOf(types.OCIConfigJSON, config)}
	var all []any
	for _, text := range layers {
		b.blobs = append(b.blobs, r.put(repo, &script{data: []byte(text)}))
		all = append(all, descOf(types.OCILayer, []byte(text)))
	}
	doc["layers"] = all
	manifest = jsonOf(t, doc)
	b.digest = digestOf(manifest)
	return manifest, b
}

// image pushes a one-platform image under a tag.
func (r *registry) image(t *testing.T, repo, tag string, layers ...string) built {
	t.Helper()
	manifest, b := r.one(t, repo, "amd64", layers...)
	r.push(repo, tag, manifest)
	return b
}

// multi pushes an index of amd64 and arm64 images, which share the layer "base".
func (r *registry) multi(t *testing.T, repo, tag string) built {
	t.Helper()
	var b built
	var list []any
	for _, architecture := range []string{"amd64", "arm64"} {
		manifest, child := r.one(t, repo, architecture, "base", "for "+architecture+" of "+tag)
		r.push(repo, "child-"+architecture+"-"+tag, manifest)
		b.children = append(b.children, child.digest)
		b.blobs = append(b.blobs, child.blobs...)
		desc := descOf(types.OCIManifestSchema1, manifest)
		desc["platform"] = map[string]string{"os": "linux", "architecture": architecture}
		list = append(list, desc)
	}
	raw := jsonOf(t, map[string]any{"mediaType": types.OCIImageIndex, "manifests": list})
	b.digest = r.push(repo, tag, raw)
	return b
}

// read pulls what ref names, and with it the given blobs.
func read(t *testing.T, c *Cache, repo Repo, ref string, blobs ...v1.Hash) {
	t.Helper()
	if _, err := c.Manifest(t.Context(), repo, ref, false); err != nil {
		t.Fatalf("manifest %s of %s: %v", ref, repo, err)
	}
	for _, d := range blobs {
		b, err := c.Blob(t.Context(), repo, d)
		if err != nil {
			t.Fatalf("blob %s of %s: %v", d, repo, err)
		}
		if _, err := b.Send(t.Context(), io.Discard, 0, -1); err != nil {
			t.Errorf("send %s: %v", d, err)
		}
		b.Close()
	}
	synctest.Wait()
}

func states(i *Image) (all []string) {
	for _, p := range i.Platforms {
		all = append(all, p.Platform+" "+string(p.State))
	}
	return all
}

func inspect(t *testing.T, c *Cache, repo Repo, tag string) *Image {
	t.Helper()
	i, err := c.Inspect(repo, tag, v1.Hash{})
	if err != nil {
		t.Fatalf("Inspect %s:%s = %v", repo, tag, err)
	}
	return i
}

func TestCompletenessIsThatOfWhatWasPulled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		img := r.multi(t, hub.Name, "1")
		if _, err := c.Inspect(hub, "1", v1.Hash{}); !errors.Is(err, ErrNotKept) {
			t.Errorf("Inspect of nothing = %v, want ErrNotKept", err)
		}
		read(t, c, hub, "1")
		if got := states(inspect(t, c, hub, "1")); !slices.Equal(got, []string{"linux/amd64 absent", "linux/arm64 absent"}) {
			t.Errorf("after the index alone: %v", got)
		}
		read(t, c, hub, img.children[0].String(), img.blobs[:2]...)
		got := inspect(t, c, hub, "1")
		layer := int64(len("for amd64 of 1"))
		if s := states(got); !slices.Equal(s, []string{"linux/amd64 incomplete", "linux/arm64 absent"}) || got.MissingBytes != layer || got.State != Incomplete {
			t.Errorf("with a layer missing: %v, %d bytes missing, %s, want %d bytes", s, got.MissingBytes, got.State, layer)
		}
		if p := got.Platforms[0]; len(p.Parts) != 4 || p.Parts[3].State != Missing || p.MissingBytes != layer {
			t.Errorf("parts of the platform: %+v", p)
		}
		read(t, c, hub, "1", img.blobs[2])
		got = inspect(t, c, hub, "1")
		if got.State != Complete || got.MissingBytes != 0 || got.UsedAt.IsZero() || got.Platforms[1].Size != -1 {
			t.Errorf("after all of amd64: %+v", got)
		}
		// Another repository has proved nothing yet, though the bytes are here.
		r.multi(t, other.Name, "1")
		read(t, c, other, "1")
		read(t, c, other, img.children[0].String())
		if p := inspect(t, c, other, "1").Platforms[0]; p.State != Incomplete || p.Parts[1].State != Unlinked {
			t.Errorf("in a repository without links: %+v", p)
		}
	})
}

func names(p *ImagePage) (all []string) {
	for _, i := range p.Images {
		name := i.Name()
		if i.Tag == "" {
			name = i.Repository + "@"
		}
		all = append(all, strings.TrimPrefix(name, "docker.io/library/"))
	}
	return all
}

func TestImagesAreListedPageByPage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		for _, tag := range []string{"1", "2", "3"} {
			r.image(t, hub.Name, tag, "layer "+tag)
			read(t, c, hub, tag)
		}
		lone := r.image(t, other.Name, "unseen", "x")
		read(t, c, other, lone.digest.String())
		whole := r.image(t, other.Name, "whole", "y")
		read(t, c, other, "whole", whole.blobs...)
		for query, want := range map[ImageQuery]string{
			{}:                                 "app:1 app:2 app:3 other:whole library/other@",
			{Match: "app"}:                     "app:1 app:2 app:3",
			{Match: "*:2"}:                     "app:2",
			{Match: "docker.io/*/app:[23]"}:    "app:2 app:3",
			{Match: "library/o*"}:              "other:whole library/other@",
			{Match: "none*"}:                   "",
			{Repo: other}:                      "other:whole library/other@",
			{Missing: true}:                    "app:1 app:2 app:3 library/other@",
			{After: "docker.io/library/app:2"}: "app:3 other:whole library/other@",
		} {
			for limit := range 4 {
				var got []string
				q := query
				q.Limit = limit
				for {
					page, err := c.Images(t.Context(), q)
					if err != nil {
						t.Fatalf("Images(%+v) = %v", q, err)
					}
					if limit > 0 && len(page.Images) > limit {
						t.Errorf("Images(%+v) has %d images", q, len(page.Images))
					}
					got = append(got, names(page)...)
					if page.Next == "" {
						break
					}
					q.After = page.Next
				}
				if strings.Join(got, " ") != want {
					t.Errorf("Images(%+v) = %v, want %s", q, got, want)
				}
			}
		}
		for _, q := range []ImageQuery{{Limit: -1}, {Limit: 1001}, {After: "x"}, {After: "a/b"}, {After: "docker.io/x@sha256:1"}, {Match: "["}} {
			if _, err := c.Images(t.Context(), q); !errors.Is(err, ErrQuery) {
				t.Errorf("Images(%+v) = %v, want ErrQuery", q, err)
			}
		}
	})
}

// onDisk returns what the store holds.
func onDisk(t *testing.T, c *Cache) map[v1.Hash]bool {
	t.Helper()
	all := map[v1.Hash]bool{}
	err := c.disk.Walk(func(d v1.Hash, _ int64, _ time.Time) error {
		all[d] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// agrees checks that index, evictor and disk count the same.
func agrees(t *testing.T, c *Cache) {
	t.Helper()
	usage, err := c.disk.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if n := c.index.Totals(); n.Blobs != usage.Blobs || n.Bytes != usage.BlobBytes {
		t.Errorf("index counts %d blobs of %d bytes, the disk has %d of %d", n.Blobs, n.Bytes, usage.Blobs, usage.BlobBytes)
	}
	var want int64
	err = c.disk.Walk(func(_ v1.Hash, size int64, _ time.Time) error {
		want += rounded(size)
		return nil
	})
	if got := c.space.policy.Bytes(); err != nil || got != want {
		t.Errorf("the evictor counts %d bytes, want %d (%v)", got, want, err)
	}
}

func TestPurgeOfATagLeavesWhatOthersName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		a := r.image(t, hub.Name, "a", "shared", "only a")
		b := r.image(t, hub.Name, "b", "shared", "only b")
		o := r.image(t, other.Name, "o", "only a")
		read(t, c, hub, "a", a.blobs...)
		read(t, c, hub, "b", b.blobs...)
		read(t, c, other, "o", o.blobs...)
		done, err := c.PurgeImage(t.Context(), hub, "a", v1.Hash{}, false)
		// Gone: manifest, config, and the link to "only a", whose bytes other holds.
		want := Purged{Tags: 1, Links: 3, Blobs: 2, Shared: 1, Bytes: done.Bytes}
		if diff := cmp.Diff(want, done); err != nil || diff != "" {
			t.Errorf("PurgeImage = %v (-want +got):\n%s", err, diff)
		}
		left := onDisk(t, c)
		if left[a.digest] || left[a.blobs[0]] || !left[a.blobs[1]] || !left[a.blobs[2]] || !left[b.digest] {
			t.Errorf("left on the disk: %v", left)
		}
		if c.linked(hub, index.Blob, a.blobs[2]) || !c.linked(hub, index.Blob, a.blobs[1]) {
			t.Error("links are not what they should be")
		}
		agrees(t, c)
		gets := r.count("Manifest")
		read(t, c, hub, "a", a.blobs...)
		if n := r.count("Manifest") - gets; n != 1 {
			t.Errorf("a pull after the purge asked for %d manifests, want 1", n)
		}
		if _, err := c.PurgeImage(t.Context(), hub, "none", v1.Hash{}, false); !errors.Is(err, ErrNotKept) {
			t.Errorf("PurgeImage of nothing = %v, want ErrNotKept", err)
		}
	})
}

func TestPurgeOfADigestRepositoryAndEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		img := r.multi(t, hub.Name, "1")
		again := r.multi(t, other.Name, "1")
		for _, repo := range []Repo{hub, other} {
			read(t, c, repo, "1")
			read(t, c, repo, img.children[0].String(), img.blobs[:3]...)
			read(t, c, repo, img.children[1].String(), img.blobs[3:]...)
		}
		if again.digest != img.digest {
			t.Fatal("the two images are not the same")
		}
		// A child of an index, by digest: with what only it names.
		if _, err := c.PurgeImage(t.Context(), hub, "", img.children[0], false); err != nil {
			t.Errorf("PurgeImage by digest = %v", err)
		}
		if got := states(inspect(t, c, hub, "1")); got[1] != "linux/arm64 complete" || got[0] != "linux/amd64 absent" {
			t.Errorf("after the purge of amd64: %v", got)
		}
		if got := states(inspect(t, c, other, "1")); got[0] != "linux/amd64 complete" {
			t.Errorf("of the other repository after that: %v", got)
		}
		agrees(t, c)
		done, err := c.PurgeDigest(t.Context(), img.blobs[1], false)
		if err != nil || done.Blobs != 1 || done.Links != 2 || done.Shared != 0 || onDisk(t, c)[img.blobs[1]] {
			t.Errorf("PurgeDigest of the base = %+v, %v, want it gone with 2 links", done, err)
		}
		if _, err := c.PurgeDigest(t.Context(), img.blobs[1], false); !errors.Is(err, ErrNotKept) {
			t.Errorf("PurgeDigest once more = %v, want ErrNotKept", err)
		}
		for _, repo := range []Repo{hub, other} {
			if _, err := c.PurgeRepository(t.Context(), repo, false); err != nil {
				t.Errorf("PurgeRepository(%s) = %v", repo, err)
			}
			if _, err := c.PurgeRepository(t.Context(), repo, false); !errors.Is(err, ErrNotKept) {
				t.Errorf("PurgeRepository(%s) once more = %v, want ErrNotKept", repo, err)
			}
		}
		if left := onDisk(t, c); len(left) > 0 || c.index.Totals() != (index.Totals{}) {
			t.Errorf("after everything was purged: %v, %+v", left, c.index.Totals())
		}
		agrees(t, c)
	})
}

func TestPurgeClearsNegativeAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		r.image(t, hub.Name, "1", "x")
		read(t, c, hub, "1")
		if _, err := c.Manifest(t.Context(), hub, "2", false); pull.KindOf(err) != pull.NotFound {
			t.Fatalf("Manifest of nothing = %v", err)
		}
		r.image(t, hub.Name, "2", "y")
		if _, err := c.Manifest(t.Context(), hub, "2", false); pull.KindOf(err) != pull.NotFound {
			t.Fatalf("Manifest = %v, want the absence remembered", err)
		}
		if _, err := c.PurgeRepository(t.Context(), hub, false); err != nil {
			t.Fatal(err)
		}
		read(t, c, hub, "2")
	})
}

func TestPurgeBreaksNoReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		img := r.image(t, hub.Name, "1", "a layer that is kept")
		slow := &script{data: []byte(strings.Repeat("slow", 1<<20)), pace: time.Second}
		small := r.put(hub.Name, &script{data: []byte("small")})
		filling := r.put(hub.Name, slow)
		read(t, c, hub, "1", img.blobs...)
		kept, err := c.Blob(t.Context(), hub, img.blobs[1])
		if err != nil {
			t.Fatal(err)
		}
		defer kept.Close()
		arriving, err := c.Blob(t.Context(), hub, filling)
		if err != nil {
			t.Fatal(err)
		}
		defer arriving.Close()
		if _, err := c.PurgeRepository(t.Context(), hub, false); err != nil {
			t.Fatal(err)
		}
		if _, err := c.PurgeDigest(t.Context(), filling, false); err != nil {
			t.Errorf("PurgeDigest of a fill = %v", err)
		}
		// One that was kept when it was opened, and is not any more when it is sent.
		late, err := c.Blob(t.Context(), hub, small)
		if err != nil {
			t.Fatal(err)
		}
		defer late.Close()
		synctest.Wait()
		if _, err := c.PurgeDigest(t.Context(), small, false); err != nil {
			t.Errorf("PurgeDigest of what was just fetched = %v", err)
		}
		for _, b := range []*Blob{kept, arriving, late} {
			var got strings.Builder
			if _, err := b.Send(t.Context(), &got, 0, -1); err != nil || digestOf([]byte(got.String())) != b.Digest {
				t.Errorf("reading %s over a purge = %v and %d bytes", b.Digest, err, got.Len())
			}
		}
		synctest.Wait()
		agrees(t, c)
	})
}

func TestRefreshAsksNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		a := r.image(t, hub.Name, "1", "a")
		read(t, c, hub, "1")
		got, err := c.Refresh(t.Context(), hub, "1")
		if err != nil || got.Moved || got.Digest != a.digest || !got.Kept {
			t.Errorf("Refresh of what did not move = %+v, %v", got, err)
		}
		b := r.image(t, hub.Name, "1", "b")
		got, err = c.Refresh(t.Context(), hub, "1")
		if err != nil || !got.Moved || got.Digest != b.digest || got.Before != a.digest.String() || !got.Kept {
			t.Errorf("Refresh of what moved = %+v, %v", got, err)
		}
		history, err := c.History(hub, "1")
		if err != nil || len(history) != 2 || history[0].Digest != b.digest || history[1].Digest != a.digest || !history[1].Kept {
			t.Errorf("History = %+v, %v", history, err)
		}
		if _, err := c.Refresh(t.Context(), hub, "none"); pull.KindOf(err) != pull.NotFound {
			t.Errorf("Refresh of nothing = %v, want not found", err)
		}
		r.fail(&pull.Error{Kind: pull.Unavailable})
		if _, err := c.Refresh(t.Context(), hub, "1"); pull.KindOf(err) != pull.Unavailable {
			t.Errorf("Refresh while the upstream is down = %v", err)
		}
		read(t, c, hub, "1", b.blobs[:0]...)
	})
}

func TestRepairFetchesWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegistry()
		c := openCache(t, r, t.TempDir())
		img := r.multi(t, hub.Name, "1")
		read(t, c, hub, "1")
		read(t, c, hub, img.children[0].String(), img.blobs[0])
		var told []Progress
		got, err := c.Repair(t.Context(), hub, "1", v1.Hash{}, nil, func(p Progress) { told = append(told, p) })
		if err != nil || got.Fetched != 2 || len(got.Failed) != 0 || got.State != Complete {
			t.Errorf("Repair = %+v, %v, want the two layers of amd64", got, err)
		}
		if last := told[len(told)-1]; last.Items != 2 || last.Bytes != last.BytesTotal || last.ItemsTotal != 2 {
			t.Errorf("last progress = %+v", last)
		}
		if s := states(inspect(t, c, hub, "1")); s[1] != "linux/arm64 absent" {
			t.Errorf("after Repair: %v", s)
		}
		got, err = c.Repair(t.Context(), hub, "1", v1.Hash{}, []string{"linux/arm64"}, nil)
		if err != nil || got.Fetched != 3 || got.State != Complete {
			t.Errorf("Repair of arm64 = %+v, %v, want manifest, config and layer", got, err)
		}
		if _, err := c.Repair(t.Context(), hub, "1", v1.Hash{}, []string{"linux/s390x"}, nil); !errors.Is(err, ErrQuery) {
			t.Errorf("Repair of a platform that is not there = %v, want ErrQuery", err)
		}
		if _, err := c.PurgeDigest(t.Context(), img.blobs[1], false); err != nil {
			t.Fatal(err)
		}
		r.fail(&pull.Error{Kind: pull.Unavailable, Message: "down"})
		got, err = c.Repair(t.Context(), hub, "1", v1.Hash{}, nil, nil)
		if err != nil || got.Fetched != 0 || len(got.Failed) != 1 || got.State != Incomplete {
			t.Errorf("Repair while the upstream is down = %+v, %v, want one failure", got, err)
		}
		if _, err := c.Repair(t.Context(), hub, "1", v1.Hash{}, []string{"x"}, nil); !errors.Is(err, ErrQuery) {
			t.Errorf("Repair of no platform = %v, want ErrQuery", err)
		}
	})
}

// spoil overwrites a byte of a kept blob.
func spoil(t *testing.T, dir string, d v1.Hash) {
	t.Helper()
	name := filepath.Join(dir, "blobs", d.Algorithm, d.Hex[:2], d.Hex)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := errors.Join(os.Chmod(name, 0o644), os.WriteFile(name, b, 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyTakesOutWhatRotted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := newRegistry(), t.TempDir()
		c := openCache(t, r, dir)
		img := r.image(t, hub.Name, "1", "one", "two", "three")
		read(t, c, hub, "1", img.blobs...)
		got, err := c.Verify(t.Context(), false, nil)
		if err != nil || got.Blobs != 5 || got.Faults != 0 {
			t.Errorf("Verify of what is well = %+v, %v", got, err)
		}
		spoil(t, dir, img.blobs[1])
		spoil(t, dir, img.digest)
		got, err = c.Verify(t.Context(), false, nil)
		if err != nil || got.Faults != 2 || len(got.Damaged) != 2 || got.Fetched != 0 || got.Damaged[0].Quarantine == "" {
			t.Errorf("Verify of what rotted = %+v, %v", got, err)
		}
		for _, bad := range got.Damaged {
			if _, err := os.Stat(filepath.Join(dir, bad.Quarantine)); err != nil {
				t.Errorf("quarantine: %v", err)
			}
		}
		agrees(t, c)
		if n := c.Scrub().Damaged; n != 2 {
			t.Errorf("%d damaged blobs counted, want 2", n)
		}
		read(t, c, hub, "1", img.blobs...)
		spoil(t, dir, img.blobs[2])
		spoil(t, dir, img.digest)
		got, err = c.Verify(t.Context(), true, nil)
		if err != nil || got.Faults != 2 || got.Fetched != 2 {
			t.Errorf("Verify with repair = %+v, %v, want 2 fetched again", got, err)
		}
		if i := inspect(t, c, hub, "1"); i.State != Complete {
			t.Errorf("after the repair: %+v", i)
		}
		agrees(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := c.Verify(ctx, false, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("Verify that is cancelled = %v", err)
		}
	})
}

func TestQuarantineIsBoundedAndSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := newRegistry(), t.TempDir()
		c, err := Open(Options{Dir: dir, MaxBytes: 20 << 20, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: ttl}}})
		if err != nil {
			t.Fatal(err)
		}
		defer closeCache(t, c)
		img := r.image(t, hub.Name, "1", strings.Repeat("a", 700<<10), strings.Repeat("b", 700<<10))
		read(t, c, hub, "1", img.blobs...)
		spoil(t, dir, img.blobs[1])
		spoil(t, dir, img.blobs[2])
		if got, err := c.Verify(t.Context(), false, nil); err != nil || got.Faults != 2 {
			t.Fatalf("Verify = %+v, %v", got, err)
		}
		if held, err := c.disk.Quarantined(); err != nil || held.Files != 1 {
			t.Errorf("Quarantined = %+v, %v, want only one of the two, which take more than a twentieth", held, err)
		}
		if n, err := c.disk.SweepQuarantine(time.Now().Add(-time.Hour)); n != 0 || err != nil {
			t.Errorf("SweepQuarantine of what is new = %d, %v", n, err)
		}
		if n, err := c.disk.SweepQuarantine(time.Now().Add(100 * 365 * 24 * time.Hour)); n != 1 || err != nil {
			t.Errorf("SweepQuarantine = %d, %v, want 1", n, err)
		}
	})
}

func TestScrubReadsEverythingWithinItsInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := newRegistry(), t.TempDir()
		const interval = 20 * time.Minute // Badger looks at itself every 50 ms, in virtual time too
		open := func() *Cache {
			c, err := Open(Options{Dir: dir, ScrubInterval: interval, Upstreams: map[string]UpstreamOptions{"docker.io": {Upstream: r, TagTTL: Forever}}})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		c := open()
		var layers []string
		for i := range 40 {
			layers = append(layers, fmt.Sprintf("layer %d", i))
		}
		img := r.image(t, hub.Name, "1", layers...)
		read(t, c, hub, "1", img.blobs...)
		run := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			done := make(chan struct{})
			go func() { defer close(done); c.scrub(ctx) }()
			<-done
		}
		run(interval * 4 / 10)
		if got := c.Scrub(); got.Done < 0.35 || got.Done > 0.65 || got.Ended.After(got.Began) {
			t.Errorf("after 4/10 of the interval, of which a round takes 8: %+v", got)
		}
		for _, d := range img.blobs {
			spoil(t, dir, d)
		}
		closeCache(t, c)
		c = open()
		run(interval / 2)
		got := c.Scrub()
		if !got.Ended.After(got.Began) || got.Done != 1 || got.Damaged < 10 || got.Damaged > 31 {
			t.Errorf("after a restart and the rest of the round: %+v, want the damage in the second half found", got)
		}
		run(interval)
		if got := c.Scrub(); got.Damaged != int64(len(img.blobs)) {
			t.Errorf("after another interval %d damaged blobs were found, want %d", got.Damaged, len(img.blobs))
		}
		if i := inspect(t, c, hub, "1"); i.State != Complete {
			t.Errorf("what was damaged was not fetched again: %s", i.State)
		}
		closeCache(t, c)
	})
}

func TestCollectRemovesOnlyWhatNobodyHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, dir := newRegistry(), t.TempDir()
		c := openCache(t, r, dir)
		img := r.image(t, hub.Name, "1", "one")
		read(t, c, hub, "1", img.blobs...)
		loose := []byte("nobody holds this")
		if err := c.disk.Put(digestOf(loose), loose); err != nil {
			t.Fatal(err)
		}
		// A file without its record, and a record without its file.
		unknown, gone := img.blobs[0], digestOf([]byte("gone"))
		err := c.index.Update(func(b *index.Batch) error {
			return errors.Join(b.DeleteBlob(unknown), b.PutBlob(gone, index.BlobInfo{Size: 7}))
		})
		if err != nil {
			t.Fatal(err)
		}
		c.space.policy.Remove(unknown)
		if got, err := c.Collect(t.Context(), false, nil); err != nil || got.Blobs != 0 {
			t.Errorf("Collect right after a file came = %+v, %v, want it left alone", got, err)
		}
		past := time.Now().Add(-time.Hour)
		if err := os.Chtimes(filepath.Join(dir, "blobs", "sha256", digestOf(loose).Hex[:2], digestOf(loose).Hex), past, past); err != nil {
			t.Fatal(err)
		}
		for _, dryRun := range []bool{true, false} {
			got, err := c.Collect(t.Context(), dryRun, nil)
			want := &Collected{DryRun: dryRun, Blobs: 1, BlobBytes: int64(len(loose))}
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("Collect = %v (-want +got):\n%s", err, diff)
			}
		}
		if left := onDisk(t, c); len(left) != 3 || left[digestOf(loose)] {
			t.Errorf("left after Collect: %v", left)
		}
		agrees(t, c)
	})
}
