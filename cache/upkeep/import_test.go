package upkeep

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache"
	"forebay/cache/image"
	"forebay/cache/store"
	"forebay/internal/manifest"
	"forebay/internal/pull"
	"forebay/test/cachetest"
)

// carry takes what is kept of an image from one cache into another.
func carry(t *testing.T, from, to *rig, parts []image.Part) {
	t.Helper()
	for _, p := range parts {
		f, size, err := from.Content(p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := to.TakeIn(t.Context(), p.Digest, size, f); err != nil {
			t.Errorf("TakeIn %s = %v", p.Digest, err)
		}
		f.Close()
	}
}

func rootOf(c *image.Contents) Root {
	return Root{Repo: hub, Tag: c.Tag, Desc: v1.Descriptor{MediaType: types.MediaType(c.MediaType), Digest: c.Digest, Size: c.Size}}
}

func TestImportedImageIsServedWithoutItsRegistry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		here, there := openCache(t, r, t.TempDir()), openOffline(t, r, t.TempDir())
		img := r.Multi(t, hub.Name, "1")
		read(t, here, hub, "1")
		if _, err := here.Repair(t.Context(), hub, "1", v1.Hash{}, []string{"linux/arm64"}, nil); err != nil {
			t.Fatal(err)
		}
		contents, err := here.Contents(t.Context(), hub, "1", v1.Hash{}, []string{"linux/arm64"}, false)
		if err != nil || len(contents.Parts) != 5 || !slices.Equal(contents.Omitted, []string{"linux/amd64"}) {
			t.Fatalf("Contents = %+v, %v, want index, manifest, config and two layers", contents, err)
		}
		if missing, n := contents.Missing(); len(missing) != 0 || n != 0 {
			t.Errorf("missing before the export: %v", missing)
		}
		carry(t, here, there, contents.Parts)
		if _, err := there.Manifest(t.Context(), hub, "1", false); pull.KindOf(err) != pull.NotFound {
			t.Errorf("before Admit Manifest = %v, want not found", err)
		}
		asked := r.Count("Resolve") + r.Count("Manifest") + r.Count("OpenBlob")
		got, err := there.Admit(t.Context(), rootOf(contents))
		if err != nil || got.MissingCount != 0 || !slices.Equal(got.Platforms, []string{"linux/arm64"}) || !slices.Equal(got.Omitted, []string{"linux/amd64"}) {
			t.Fatalf("Admit = %+v, %v", got, err)
		}
		read(t, there, hub, "1")
		read(t, there, hub, img.Children[1].String(), img.Blobs[3:]...)
		if n := r.Count("Resolve") + r.Count("Manifest") + r.Count("OpenBlob"); n != asked {
			t.Errorf("the offline cache asked its upstream %d times", n-asked)
		}
		if _, err := there.Manifest(t.Context(), hub, img.Children[0].String(), false); pull.KindOf(err) != pull.NotFound {
			t.Errorf("Manifest of a platform that was left = %v, want not found", err)
		}
		if _, err := there.Manifest(t.Context(), other, img.Digest.String(), false); pull.KindOf(err) != pull.NotFound {
			t.Errorf("Manifest from another repository = %v, want not found", err)
		}
		if p, err := there.Pin(t.Context(), hub, "1", v1.Hash{}, nil); err != nil || p.State != image.Complete {
			t.Errorf("Pin = %+v, %v", p, err)
		}
	})
}

func TestTakeInKeepsNothingThatIsNotWhatItIsSaidToBe(t *testing.T) {
	c := openOffline(t, cachetest.NewRegistry(), t.TempDir())
	right := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // of several pieces
	d := cachetest.DigestOf(right)
	wrong := slices.Clone(right)
	wrong[len(wrong)-1]++
	for name, try := range map[string]struct {
		d     v1.Hash
		size  int64
		bytes []byte
	}{
		"another byte":      {d, int64(len(right)), wrong},
		"too short":         {d, int64(len(right)), right[:len(right)-1]},
		"cut by its size":   {d, int64(len(right)) - 1, right},
		"empty":             {d, int64(len(right)), nil},
		"unknown size":      {d, -1, right},
		"unknown algorithm": {v1.Hash{Algorithm: "md5", Hex: "00"}, 1, right},
		"no digest":         {v1.Hash{}, 1, right},
	} {
		if err := c.TakeIn(t.Context(), try.d, try.size, bytes.NewReader(try.bytes)); !errors.Is(err, ErrContent) {
			t.Errorf("TakeIn of %s = %v, want ErrContent", name, err)
		}
		if _, ok := c.Held(d); ok {
			t.Fatalf("TakeIn of %s kept it", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cut := io.MultiReader(bytes.NewReader(right[:1<<20]), readerFunc(func([]byte) (int, error) { cancel(); return 0, errors.New("cut") }))
	if err := c.TakeIn(ctx, d, int64(len(right)), cut); err == nil || errors.Is(err, ErrContent) {
		t.Errorf("TakeIn that is cut = %v, want the error of its reader", err)
	}
	if err := c.TakeIn(t.Context(), d, int64(len(right)), bytes.NewReader(right)); err != nil {
		t.Errorf("TakeIn = %v", err)
	}
	unread := readerFunc(func([]byte) (int, error) { t.Error("content that is kept was read again"); return 0, io.EOF })
	if err := c.TakeIn(t.Context(), d, int64(len(right)), unread); err != nil {
		t.Errorf("TakeIn once more = %v", err)
	}
	if n, err := c.store.Disk.Usage(); err != nil || n.Partials != 0 {
		t.Errorf("partial files left: %+v, %v", n, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestAdmitRefusesImagesThatAreNotSound(t *testing.T) {
	c := openOffline(t, cachetest.NewRegistry(), t.TempDir())
	put := func(text string) v1.Hash {
		t.Helper()
		d := cachetest.DigestOf([]byte(text))
		if err := c.TakeIn(t.Context(), d, int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	layer := put("layer")
	deep := put(`{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	for range manifest.Depth + 2 {
		deep = put(`{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"` + deep.String() + `"}]}`)
	}
	for name, d := range map[string]v1.Hash{
		"not JSON":        put("layer of some kind"),
		"no manifest":     put(`{"architecture":"amd64"}`),
		"wrong size":      put(`{"layers":[{"digest":"` + layer.String() + `","size":7}]}`),
		"bad child":       put(`{"manifests":[{"digest":"sha256:../../x"}]}`),
		"too deep":        deep,
		"types that lie":  put(`{"layers":[{"digest":7}]}`),
		"a huge manifest": put(`{"layers":[],"x":"` + strings.Repeat("x", manifest.MaxBytes) + `"}`),
	} {
		_, err := c.Admit(t.Context(), Root{Repo: hub, Tag: "bad", Desc: v1.Descriptor{Digest: d}})
		if !errors.Is(err, ErrContent) {
			t.Errorf("Admit of %s = %v, want ErrContent", name, err)
		}
	}
	if _, err := c.Admit(t.Context(), Root{Repo: hub, Tag: "bad", Desc: v1.Descriptor{Digest: layer, Size: 3}}); !errors.Is(err, ErrContent) {
		t.Errorf("Admit with another size = %v, want ErrContent", err)
	}
	if _, err := c.Admit(t.Context(), Root{Repo: hub, Tag: "bad", Desc: v1.Descriptor{Digest: cachetest.DigestOf([]byte("nowhere"))}}); !errors.Is(err, store.ErrNotKept) {
		t.Errorf("Admit of what is not here = %v, want store.ErrNotKept", err)
	}
	if _, err := c.Admit(t.Context(), Root{Repo: Repo{Upstream: "quay.io", Name: "x"}, Tag: "bad", Desc: v1.Descriptor{Digest: layer}}); pull.KindOf(err) != pull.NotFound {
		t.Errorf("Admit for a registry that is not configured = %v", err)
	}
	if _, ok, err := c.store.Index.Tag(hub, "bad"); ok || err != nil {
		t.Errorf("a tag was bound: %v", err)
	}
	if c.store.Linked(hub, 'b', layer) {
		t.Error("a layer was linked")
	}
}

func TestAdmitTellsWhatIsMissingAndWhatATagWas(t *testing.T) {
	c := openOffline(t, cachetest.NewRegistry(), t.TempDir())
	gone := cachetest.DigestOf([]byte("gone"))
	var before v1.Hash
	for i, text := range []string{
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`,
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"digest":"` + gone.String() + `","size":4}]}`,
	} {
		d := cachetest.DigestOf([]byte(text))
		if err := c.TakeIn(t.Context(), d, int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		got, err := c.Admit(t.Context(), Root{Repo: hub, Tag: "1", Desc: v1.Descriptor{Digest: d}})
		if err != nil || got.MissingCount != int64(i) || got.MissingBytes != int64(4*i) {
			t.Errorf("Admit %d = %+v, %v", i, got, err)
		}
		if want := map[bool]string{true: before.String()}[i > 0]; got.Before != want {
			t.Errorf("Admit %d: before %q, want %q", i, got.Before, want)
		}
		before = d
	}
}

func TestArrivedContentIsNeitherGarbageNorEvicted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := openOffline(t, cachetest.NewRegistry(), dir)
		for _, text := range []string{"layer", "other"} {
			d := cachetest.DigestOf([]byte(text))
			if err := c.TakeIn(t.Context(), d, 5, strings.NewReader(text)); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "blobs", "sha256", d.Hex[:2], d.Hex)
			if err := os.Chtimes(file, time.Now(), time.Now()); err != nil { // the time of the bubble
				t.Fatal(err)
			}
		}
		if c.store.Room.Evict(1 << 30); len(onDisk(t, c)) != 2 {
			t.Error("it may be evicted")
		}
		time.Sleep(time.Hour)
		if got, err := c.Collect(t.Context(), false, nil); err != nil || got.Blobs != 0 {
			t.Errorf("Collect = %+v, %v", got, err)
		}
		time.Sleep(24 * time.Hour)
		if c.store.Room.Evict(1); len(onDisk(t, c)) != 1 {
			t.Error("it is kept for ever")
		}
		if got, err := c.Collect(t.Context(), false, nil); err != nil || got.Blobs != 1 {
			t.Errorf("Collect a day later = %+v, %v", got, err)
		}
	})
}

func TestReferrersTravelWithTheirImage(t *testing.T) {
	here, there := openOffline(t, cachetest.NewRegistry(), t.TempDir()), openOffline(t, cachetest.NewRegistry(), t.TempDir())
	put := func(text string) v1.Hash {
		t.Helper()
		d := cachetest.DigestOf([]byte(text))
		if err := here.TakeIn(t.Context(), d, int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
		return d
	}
	image := put(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`)
	bom := put(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"a/b","config":{"digest":"` + put("{}").String() +
		`","size":2},"layers":[],"subject":{"digest":"` + image.String() + `"},"annotations":{"k":"v"}}`)
	signature := put(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[],"annotations":{"cosign":"x"}}`)
	for _, root := range []Root{
		{Repo: hub, Tag: "1", Desc: v1.Descriptor{Digest: image}},
		{Repo: hub, Tag: "", Desc: v1.Descriptor{Digest: bom}},
		{Repo: hub, Tag: "sha256-" + image.Hex + ".sig", Desc: v1.Descriptor{Digest: signature}},
	} {
		if _, err := here.Admit(t.Context(), root); err != nil {
			t.Fatal(err)
		}
	}
	if plain, err := here.Contents(t.Context(), hub, "1", v1.Hash{}, nil, false); err != nil || len(plain.Parts) != 1 {
		t.Errorf("Contents without referrers = %+v, %v", plain, err)
	}
	contents, err := here.Contents(t.Context(), hub, "1", v1.Hash{}, nil, true)
	if err != nil || len(contents.Referrers) != 2 || len(contents.Parts) != 4 {
		t.Fatalf("Contents = %+v, %v, want both referrers", contents, err)
	}
	carry(t, here, there, contents.Parts)
	roots := []Root{rootOf(contents)}
	for _, ref := range contents.Referrers {
		roots = append(roots, Root{Repo: hub, Tag: ref.Tag, Desc: v1.Descriptor{Digest: ref.Digest, Size: ref.Size}})
	}
	for range 2 { // a second import adds nothing
		for _, root := range roots {
			if _, err := there.Admit(t.Context(), root); err != nil {
				t.Errorf("Admit %s = %v", root.Name(), err)
			}
		}
	}
	list, err := there.Cache.Referrers(t.Context(), hub, image)
	if err != nil || len(list.Manifests) != 1 || !strings.Contains(string(list.Manifests[0]), bom.String()) ||
		!strings.Contains(string(list.Manifests[0]), `"artifactType":"a/b"`) || !strings.Contains(string(list.Manifests[0]), `"k":"v"`) {
		t.Errorf("Referrers = %+v, %v", list, err)
	}
	if m, err := there.Manifest(t.Context(), hub, "sha256-"+image.Hex+".sig", false); err != nil || m.Desc.Digest != signature {
		t.Errorf("the signature's tag = %+v, %v", m, err)
	}
}

func TestTakeInMakesRoomOrSaysThatThereIsNone(t *testing.T) {
	upstreams := map[string]cache.UpstreamOptions{"docker.io": {Upstream: cachetest.NewRegistry(), Offline: true}}
	c := open(t, cache.Options{Store: store.Options{Dir: t.TempDir(), MaxBytes: 8 << 20}, Upstreams: upstreams}, Options{})
	<-c.store.Room.Loaded()
	big := bytes.Repeat([]byte("x"), 9<<20)
	if err := c.TakeIn(t.Context(), cachetest.DigestOf(big), int64(len(big)), bytes.NewReader(big)); !errors.Is(err, store.ErrNoRoom) {
		t.Errorf("TakeIn of more than the store = %v, want store.ErrNoRoom", err)
	}
	// What has just come is not evicted for what comes next.
	var last error
	for n := range byte(4) {
		part := bytes.Repeat([]byte{n}, 3<<20)
		if last = c.TakeIn(t.Context(), cachetest.DigestOf(part), int64(len(part)), bytes.NewReader(part)); last != nil {
			break
		}
	}
	if !errors.Is(last, store.ErrNoRoom) {
		t.Errorf("TakeIn of more and more = %v, want store.ErrNoRoom", last)
	}
	if _, ok := c.Held(cachetest.DigestOf(make([]byte, 3<<20))); !ok {
		t.Error("what came first was evicted for what came last")
	}
}
