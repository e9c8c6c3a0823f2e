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
	"sync"
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

// begin begins an import, which ends with the test.
func begin(t *testing.T, c *rig, vouched ...v1.Hash) *Import {
	t.Helper()
	o := ImportOptions{}
	if len(vouched) > 0 {
		o.Signed = &Signed{Vouched: vouched}
	}
	in, err := c.Begin(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.End)
	return in
}

// put brings a text by an import.
func put(t *testing.T, in *Import, text string) v1.Hash {
	t.Helper()
	d := cachetest.DigestOf([]byte(text))
	if _, err := in.TakeIn(t.Context(), d, int64(len(text)), strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	return d
}

// admit admits a manifest under a tag.
func admit(t *testing.T, in *Import, repo Repo, tag string, d v1.Hash) *Admitted {
	t.Helper()
	got, err := in.Admit(t.Context(), Root{Repo: repo, Tag: tag, Desc: v1.Descriptor{Digest: d}})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// manifestOf is a manifest with layers, which does not say how large they are.
func manifestOf(layers ...v1.Hash) string {
	var all []string
	for _, d := range layers {
		all = append(all, `{"digest":"`+d.String()+`","size":-1}`)
	}
	return `{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[` + strings.Join(all, ",") + `]}`
}

// carry takes what is kept of an image from one cache into another.
func carry(t *testing.T, from *rig, to *Import, parts []image.Part) {
	t.Helper()
	for _, p := range parts {
		f, size, err := from.Content(p.Digest.Hash)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := to.TakeIn(t.Context(), p.Digest.Hash, size, f); err != nil {
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
		in := begin(t, there)
		carry(t, here, in, contents.Parts)
		if _, err := there.Manifest(t.Context(), hub, "1", false); pull.KindOf(err) != pull.NotFound {
			t.Errorf("before Admit Manifest = %v, want not found", err)
		}
		asked := r.Count("Resolve") + r.Count("Manifest") + r.Count("OpenBlob")
		got, err := in.Admit(t.Context(), rootOf(contents))
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
	in := begin(t, c)
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
		if _, err := in.TakeIn(t.Context(), try.d, try.size, bytes.NewReader(try.bytes)); !errors.Is(err, ErrContent) {
			t.Errorf("TakeIn of %s = %v, want ErrContent", name, err)
		}
		if _, ok := c.Held(d); ok {
			t.Fatalf("TakeIn of %s kept it", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cut := io.MultiReader(bytes.NewReader(right[:1<<20]), readerFunc(func([]byte) (int, error) { cancel(); return 0, errors.New("cut") }))
	if _, err := in.TakeIn(ctx, d, int64(len(right)), cut); err == nil || errors.Is(err, ErrContent) {
		t.Errorf("TakeIn that is cut = %v, want the error of its reader", err)
	}
	if had, err := in.TakeIn(t.Context(), d, int64(len(right)), bytes.NewReader(right)); err != nil || had {
		t.Errorf("TakeIn = %t, %v", had, err)
	}
	// What is kept is no reason to believe who says that he has it.
	for name, b := range map[string][]byte{"other bytes": wrong, "fewer bytes": right[1:], "nothing": nil} {
		if _, err := begin(t, c).TakeIn(t.Context(), d, int64(len(right)), bytes.NewReader(b)); !errors.Is(err, ErrContent) {
			t.Errorf("TakeIn of what is kept with %s = %v, want ErrContent", name, err)
		}
	}
	if had, err := in.TakeIn(t.Context(), d, int64(len(right)), bytes.NewReader(right)); err != nil || !had {
		t.Errorf("TakeIn once more = %t, %v", had, err)
	}
	if got, had, err := in.TakeUnnamed(t.Context(), int64(len(right)), bytes.NewReader(right)); err != nil || !had || got != d {
		t.Errorf("TakeUnnamed of what is kept = %s, %t, %v", got, had, err)
	}
	if got, had, err := in.TakeUnnamed(t.Context(), int64(len(wrong)), bytes.NewReader(wrong)); err != nil || had || got != cachetest.DigestOf(wrong) {
		t.Errorf("TakeUnnamed = %s, %t, %v", got, had, err)
	}
	if _, _, err := in.TakeUnnamed(t.Context(), int64(len(wrong))+1, bytes.NewReader(wrong)); !errors.Is(err, ErrContent) {
		t.Errorf("TakeUnnamed of what is too short = %v, want ErrContent", err)
	}
	if n, err := c.store.Disk.Usage(); err != nil || n.Partials != 0 {
		t.Errorf("partial files left: %+v, %v", n, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestAdmitRefusesImagesThatAreNotSound(t *testing.T) {
	c := openOffline(t, cachetest.NewRegistry(), t.TempDir())
	in := begin(t, c)
	put := func(text string) v1.Hash { return put(t, in, text) }
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
		_, err := in.Admit(t.Context(), Root{Repo: hub, Tag: "bad", Desc: v1.Descriptor{Digest: d}})
		if !errors.Is(err, ErrContent) {
			t.Errorf("Admit of %s = %v, want ErrContent", name, err)
		}
	}
	if _, err := in.Admit(t.Context(), Root{Repo: hub, Tag: "bad", Desc: v1.Descriptor{Digest: layer, Size: 3}}); !errors.Is(err, ErrContent) {
		t.Errorf("Admit with another size = %v, want ErrContent", err)
	}
	if _, err := in.Admit(t.Context(), Root{Repo: hub, Tag: "bad", Desc: v1.Descriptor{Digest: cachetest.DigestOf([]byte("nowhere"))}}); !errors.Is(err, store.ErrNotKept) {
		t.Errorf("Admit of what is not here = %v, want store.ErrNotKept", err)
	}
	if _, err := in.Admit(t.Context(), Root{Repo: Repo{Upstream: "quay.io", Name: "x"}, Tag: "bad", Desc: v1.Descriptor{Digest: layer}}); pull.KindOf(err) != pull.NotFound {
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
	in := begin(t, c)
	var before v1.Hash
	for i, text := range []string{
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`,
		`{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"digest":"` + gone.String() + `","size":4}]}`,
	} {
		d := put(t, in, text)
		got, err := in.Admit(t.Context(), Root{Repo: hub, Tag: "1", Desc: v1.Descriptor{Digest: d}})
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
		in := begin(t, c)
		for _, text := range []string{"layer", "other"} {
			d := put(t, in, text)
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

// Without bounds of the folder the file system's are the bound.
func TestNothingIsWrittenThatTheDiskCannotHold(t *testing.T) {
	c := openOffline(t, cachetest.NewRegistry(), t.TempDir())
	in := begin(t, c)
	unread := readerFunc(func([]byte) (int, error) { t.Error("it was read"); return 0, io.EOF })
	_, _, err := in.TakeUnnamed(t.Context(), 1<<60, unread)
	if !errors.Is(err, store.ErrNoRoom) || !strings.Contains(err.Error(), "are free on its file system: it has 1.0 EiB") {
		t.Errorf("TakeUnnamed = %v, want store.ErrNoRoom with what is free", err)
	}
	if _, err := in.TakeIn(t.Context(), cachetest.DigestOf(nil), 1<<60, unread); !errors.Is(err, store.ErrNoRoom) {
		t.Errorf("TakeIn = %v, want store.ErrNoRoom", err)
	}
}

func TestEndOfAnImportGivesItsRoomBack(t *testing.T) {
	c := openOffline(t, cachetest.NewRegistry(), t.TempDir())
	<-c.store.Room.Loaded()
	one, two := begin(t, c), begin(t, c)
	put(t, one, "of both")
	put(t, two, "of both")
	put(t, one, "of one")
	one.End()
	if c.store.Room.Evict(1 << 30); len(onDisk(t, c)) != 1 || !onDisk(t, c)[cachetest.DigestOf([]byte("of both"))] {
		t.Errorf("after the end of one import %d things stay, want what the other brought", len(onDisk(t, c)))
	}
	two.End()
	if c.store.Room.Evict(1 << 30); len(onDisk(t, c)) != 0 {
		t.Errorf("after the end of both %d things stay", len(onDisk(t, c)))
	}
}

func TestReferrersTravelWithTheirImage(t *testing.T) {
	here, there := openOffline(t, cachetest.NewRegistry(), t.TempDir()), openOffline(t, cachetest.NewRegistry(), t.TempDir())
	from, to := begin(t, here), begin(t, there)
	put := func(text string) v1.Hash { return put(t, from, text) }
	image := put(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`)
	bom := put(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"a/b","config":{"digest":"` + put("{}").String() +
		`","size":2},"layers":[],"subject":{"digest":"` + image.String() + `"},"annotations":{"k":"v"}}`)
	signature := put(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[],"annotations":{"cosign":"x"}}`)
	for _, root := range []Root{
		{Repo: hub, Tag: "1", Desc: v1.Descriptor{Digest: image}},
		{Repo: hub, Tag: "", Desc: v1.Descriptor{Digest: bom}},
		{Repo: hub, Tag: "sha256-" + image.Hex + ".sig", Desc: v1.Descriptor{Digest: signature}},
	} {
		if _, err := from.Admit(t.Context(), root); err != nil {
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
	carry(t, here, to, contents.Parts)
	roots := []Root{rootOf(contents)}
	for _, ref := range contents.Referrers {
		roots = append(roots, Root{Repo: hub, Tag: ref.Tag, Desc: v1.Descriptor{Digest: ref.Digest.Hash, Size: ref.Size}})
	}
	for range 2 { // a second import adds nothing
		for _, root := range roots {
			if _, err := to.Admit(t.Context(), root); err != nil {
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
	in := begin(t, c)
	big := bytes.Repeat([]byte("x"), 9<<20)
	if _, err := in.TakeIn(t.Context(), cachetest.DigestOf(big), int64(len(big)), bytes.NewReader(big)); !errors.Is(err, store.ErrNoRoom) {
		t.Errorf("TakeIn of more than the store = %v, want store.ErrNoRoom", err)
	}
	// What has just come is not evicted for what comes next.
	var last error
	for n := range byte(4) {
		part := bytes.Repeat([]byte{n}, 3<<20)
		if _, last = in.TakeIn(t.Context(), cachetest.DigestOf(part), int64(len(part)), bytes.NewReader(part)); last != nil {
			break
		}
	}
	if !errors.Is(last, store.ErrNoRoom) {
		t.Errorf("TakeIn of more and more = %v, want store.ErrNoRoom", last)
	}
	if _, _, err := in.TakeUnnamed(t.Context(), 400<<30, strings.NewReader("x")); !errors.Is(err, store.ErrNoRoom) || !strings.Contains(err.Error(), "400 GiB") {
		t.Errorf("TakeUnnamed of what never fits = %v, want store.ErrNoRoom with the size", err)
	}
	if _, ok := c.Held(cachetest.DigestOf(make([]byte, 3<<20))); !ok {
		t.Error("what came first was evicted for what came last")
	}
}

// What a file names and does not bring is not had by naming it, however it is kept.
func TestImportLinksOnlyWhatItBrought(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := cachetest.NewRegistry()
		c := openCache(t, r, t.TempDir())
		private := r.Multi(t, other.Name, "1")
		read(t, c, other, "1")
		read(t, c, other, private.Children[0].String(), private.Blobs[:3]...)
		secret := private.Blobs[0]
		linked := func(d v1.Hash) bool { return c.store.Linked(hub, 'b', d) || c.store.Linked(hub, 'm', d) }

		in := begin(t, c)
		for name, d := range map[string]v1.Hash{"an index": private.Digest, "a manifest": private.Children[0]} {
			if _, err := in.Admit(t.Context(), Root{Repo: hub, Tag: "x", Desc: v1.Descriptor{Digest: d}}); !errors.Is(err, store.ErrNotKept) || linked(d) {
				t.Errorf("Admit of %s of another repository = %v, want store.ErrNotKept and no link", name, err)
			}
		}
		gone := cachetest.DigestOf([]byte("gone"))
		got := admit(t, in, hub, "own", put(t, in, manifestOf(secret, gone)))
		if got.MissingCount != 2 || got.Missing[0].State != got.Missing[1].State || linked(secret) {
			t.Errorf("a manifest of one's own that names a layer of another repository: %+v, want it missing as what is not here is", got)
		}
		index := put(t, in, `{"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"`+private.Children[0].String()+`","platform":{"os":"linux","architecture":"amd64"}}]}`)
		if got := admit(t, in, hub, "index", index); len(got.Platforms) != 0 || len(got.Omitted) != 1 || linked(private.Children[0]) {
			t.Errorf("an index of one's own that names a manifest of another repository: %+v, want that left", got)
		}
		if lacking := in.Lacking([]Repo{hub, other}, []v1.Hash{secret}); len(lacking) != 1 {
			t.Error("an import for two repositories need not bring what one of them holds")
		}
		if lacking := in.Lacking(nil, []v1.Hash{secret}); len(lacking) != 1 {
			t.Error("an import for nobody in particular need not bring what somebody holds")
		}
		if lacking := in.Lacking([]Repo{other}, []v1.Hash{secret}); len(lacking) != 0 {
			t.Error("an import has to bring what its repository holds")
		}
		// Another import that brings it gives this one nothing.
		b, err := c.store.Read(secret, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		brings := begin(t, c)
		put(t, brings, string(b))
		if got := admit(t, in, hub, "again", put(t, in, manifestOf(secret))); got.MissingCount != 1 || linked(secret) {
			t.Errorf("after another import has brought the layer: %+v, want it missing", got)
		}
		// Nor does a signature that vouches for something else.
		if got := admit(t, begin(t, c, gone), hub, "own", cachetest.DigestOf([]byte(manifestOf(secret, gone)))); got.MissingCount != 2 || linked(secret) {
			t.Errorf("with a signature for something else: %+v, want it missing", got)
		}
		for name, tt := range map[string]struct {
			in   *Import
			repo Repo
		}{
			"who brings it":     {brings, Repo{Upstream: "docker.io", Name: "library/brought"}},
			"who has a proof":   {begin(t, c, secret), Repo{Upstream: "docker.io", Name: "library/vouched"}},
			"who holds it":      {begin(t, c), other},
			"who holds it, too": {begin(t, c, gone), other},
		} {
			got := admit(t, tt.in, tt.repo, "2", put(t, tt.in, manifestOf(secret)))
			if got.MissingCount != 0 || !c.store.Linked(tt.repo, 'b', secret) {
				t.Errorf("%s: %+v, want the layer linked", name, got)
			}
		}
	})
}

func TestImportsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := openOffline(t, cachetest.NewRegistry(), t.TempDir())
		first := begin(t, c)
		if got, err := c.FindImport(first.ID); got != first || err != nil {
			t.Errorf("FindImport = %v, %v", got, err)
		}
		first.End()
		if _, err := c.FindImport(first.ID); !errors.Is(err, ErrNoImport) {
			t.Errorf("FindImport of one that has ended = %v", err)
		}
		idle := begin(t, c)
		time.Sleep(importIdle + time.Second)
		begin(t, c)
		if _, err := c.FindImport(idle.ID); !errors.Is(err, ErrNoImport) {
			t.Errorf("FindImport of one that did nothing for long = %v", err)
		}
		// Those in use are not forgotten, the others are when there are too many.
		blocked, release := make(chan struct{}), make(chan struct{})
		busy := begin(t, c)
		var done sync.WaitGroup
		done.Go(func() {
			_, _, _ = busy.TakeUnnamed(t.Context(), 1, readerFunc(func([]byte) (int, error) { close(blocked); <-release; return 0, io.EOF }))
		})
		<-blocked
		time.Sleep(time.Minute)
		second := begin(t, c)
		for range importsMost {
			time.Sleep(time.Second)
			begin(t, c)
		}
		if _, err := c.FindImport(busy.ID); err != nil {
			t.Errorf("FindImport of one in use = %v", err)
		}
		if _, err := c.FindImport(second.ID); !errors.Is(err, ErrNoImport) {
			t.Errorf("FindImport of the one that did nothing for the longest = %v", err)
		}
		close(release)
		done.Wait()
	})
}

// Who carries signed bundles cannot bring an old one back.
func TestOlderBundlesAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		c := openOffline(t, cachetest.NewRegistry(), dir)
		old, middle, newest := manifestOf(), manifestOf(cachetest.DigestOf([]byte("middle"))), manifestOf(cachetest.DigestOf([]byte("newest")))
		start := time.Now()
		time.Sleep(10 * time.Hour)
		at := func(hours int) time.Time { return start.Add(time.Duration(hours) * time.Hour) }
		// take takes in a bundle of a key with one tag.
		take := func(key, text string, made, confirmed time.Time, mayBeOlder bool) (*Admitted, error) {
			t.Helper()
			in, err := c.Begin(ImportOptions{Signed: &Signed{Key: key, Made: made}, MayBeOlder: mayBeOlder})
			if err != nil {
				return nil, err
			}
			defer in.End()
			return in.Admit(t.Context(), Root{Repo: hub, Tag: "prod", Confirmed: confirmed, Desc: v1.Descriptor{Digest: put(t, in, text)}})
		}
		points := func(want string) {
			t.Helper()
			if tag, ok, err := c.Cache.Tag(hub, "prod"); err != nil || !ok || tag.Desc.Digest != cachetest.DigestOf([]byte(want)) {
				t.Errorf("prod = %+v, %v, want %s", tag, err, cachetest.DigestOf([]byte(want)))
			}
		}
		must := func(a *Admitted, err error) *Admitted {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		must(take("us", old, time.Time{}, at(1), false)) // of an earlier version
		must(take("us", old, at(2), at(1), false))
		must(take("us", middle, at(3), at(3), false))
		must(take("us", newest, at(5), at(4), false))
		points(newest)
		for name, made := range map[string]time.Time{"an older one": at(2), "the one before": at(3), "one that does not say": {}} {
			if _, err := take("us", old, made, at(1), false); !errors.Is(err, ErrOlder) {
				t.Errorf("%s = %v, want ErrOlder", name, err)
			}
		}
		must(take("us", newest, at(5), at(4), false))
		if got := must(take("them", old, at(2), at(1), false)); got.Stays == "" || got.Before != "" {
			t.Errorf("a tag of another key, confirmed before: %+v, want it told that it stays", got)
		}
		points(newest)
		// The memory is in the folder.
		closeCache(t, c)
		c = openOffline(t, cachetest.NewRegistry(), dir)
		if _, err := take("us", old, at(4), at(1), false); !errors.Is(err, ErrOlder) {
			t.Errorf("after a restart = %v, want ErrOlder", err)
		}
		points(newest)
		// One that had begun before a newer one came is refused, too.
		late, err := c.Begin(ImportOptions{Signed: &Signed{Key: "us", Made: at(6)}})
		if err != nil {
			t.Fatal(err)
		}
		must(take("us", newest, at(7), at(7), false))
		if _, err := late.Admit(t.Context(), Root{Repo: hub, Tag: "prod", Confirmed: at(6), Desc: v1.Descriptor{Digest: put(t, late, middle)}}); !errors.Is(err, ErrOlder) {
			t.Errorf("one that was overtaken = %v, want ErrOlder", err)
		}
		points(newest)
		// By the operator's word the tag moves back, and what was newest stays known.
		if got := must(take("us", middle, at(3), at(3), true)); got.Before == "" || got.Stays != "" {
			t.Errorf("an older one that may be: %+v, want the tag moved", got)
		}
		points(middle)
		if _, err := take("us", old, at(6), at(5), false); !errors.Is(err, ErrOlder) {
			t.Errorf("after the operator went back = %v, want ErrOlder", err)
		}
		if err := os.WriteFile(filepath.Join(dir, signedName), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := take("us", newest, at(9), at(9), false); err == nil || !strings.Contains(err.Error(), signedName) {
			t.Errorf("with a damaged memory = %v, want its name", err)
		}
	})
}
