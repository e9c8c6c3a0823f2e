package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"

	"forebay/internal/wire"
)

// memory is a side in memory.
type memory map[v1.Hash][]byte

func (m memory) put(b []byte) Blob {
	one := blobOf(b)
	m[one.Digest.Hash] = b
	return one
}

func (m memory) Open(_ context.Context, d v1.Hash) (io.ReadCloser, error) {
	b, ok := m[d]
	if !ok {
		return nil, fmt.Errorf("%s is not there", d)
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (m memory) Lacks(_ context.Context, blobs []Blob) (lacking []Blob, err error) {
	for _, b := range blobs {
		if _, ok := m[b.Digest.Hash]; !ok {
			lacking = append(lacking, b)
		}
	}
	return lacking, nil
}

var errContent = errors.New("content is wrong")

func (m memory) Begin(context.Context, []Image, *Proof) error { return nil }

func (m memory) TakeIn(ctx context.Context, b Blob, r io.Reader) (bool, error) {
	there := memory{}
	got, _, err := there.TakeUnnamed(ctx, b.Size, r)
	if err != nil {
		return false, err
	}
	if (Blob{wire.Digest{Hash: got}, int64(len(there[got]))}) != b {
		return false, errContent
	}
	_, had := m[got]
	m[got] = there[got]
	return had, nil
}

func (m memory) TakeUnnamed(_ context.Context, size int64, r io.Reader) (d v1.Hash, had bool, err error) {
	got, err := io.ReadAll(io.LimitReader(r, size))
	if err != nil {
		return d, false, err
	}
	d = blobOf(got).Digest.Hash
	_, had = m[d]
	m[d] = got
	return d, had, nil
}

// folder is a source of files, which the kernel copies.
type folder string

func (f folder) Open(_ context.Context, d v1.Hash) (io.ReadCloser, error) {
	return os.Open(filepath.Join(string(f), d.Hex))
}

// image puts an image of some layers into a side, and returns how to pack it.
func image(m memory, name string, layers ...string) Packing {
	config := m.put([]byte(`{"architecture":"amd64","os":"linux"}`))
	p := Packing{Blobs: []Blob{config}}
	manifest := v1.Manifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.manifest.v1+json", Config: descriptorOf("application/vnd.oci.image.config.v1+json", config)}
	for _, l := range layers {
		b := m.put([]byte(l))
		p.Blobs = append(p.Blobs, b)
		manifest.Layers = append(manifest.Layers, descriptorOf("application/vnd.oci.image.layer.v1.tar", b))
	}
	text, _ := json.Marshal(manifest)
	b := m.put(text)
	p.Manifests = []Blob{b}
	p.Images = []Image{{Name: name, Digest: b.Digest, MediaType: string(manifest.MediaType), Size: b.Size}}
	return p
}

func archiveOf(t *testing.T, p Packing, src Source) []byte {
	t.Helper()
	a, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	var told int64
	if err := a.WriteTo(t.Context(), &b, src, 0, func(n int64) { told += n }); err != nil {
		t.Fatal(err)
	}
	if int64(b.Len()) != a.Size {
		t.Errorf("the archive has %d bytes, and said %d", b.Len(), a.Size)
	}
	if told != a.Size-endSize && told != a.Size {
		t.Errorf("progress told of %d bytes of %d", told, a.Size)
	}
	return b.Bytes()
}

const appName = "docker.io/library/app:1"

func TestArchiveGoesThereAndBack(t *testing.T) {
	here := memory{}
	p := image(here, appName, "one", strings.Repeat("two", 1<<20), "")
	text := archiveOf(t, p, here)
	slices.Reverse(p.Blobs)
	if again := archiveOf(t, p, here); !bytes.Equal(text, again) {
		t.Error("the same content in another order makes other bytes")
	}
	var packed bytes.Buffer
	z, err := Packed(&packed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	g := gzip.NewWriter(&zipped)
	_, _ = g.Write(text)
	_ = g.Close()
	for name, r := range map[string]io.Reader{
		"a file": bytes.NewReader(text), "a stream": struct{ io.Reader }{bytes.NewReader(text)},
		"zstd": &packed, "gzip": bytes.NewReader(zipped.Bytes()),
	} {
		there := memory{}
		got, err := Unpack(t.Context(), r, Unpacking{Target: there})
		if err != nil {
			t.Errorf("Unpack of %s = %v", name, err)
			continue
		}
		if diff := cmp.Diff(got.Images, p.Images); diff != "" || got.Taken != 5 || got.Had != 0 || got.Kind != "forebay bundle" {
			t.Errorf("Unpack of %s: %+v\n%s", name, got, diff)
		}
		if !maps.EqualFunc(there, here, bytes.Equal) {
			t.Errorf("Unpack of %s brought other content", name)
		}
	}
	got, err := Unpack(t.Context(), bytes.NewReader(text), Unpacking{Target: here})
	if err != nil || got.Taken != 0 || got.Had != 5 {
		t.Errorf("Unpack of what is there = %+v, %v", got, err)
	}
}

func TestArchiveIsReadByTar(t *testing.T) {
	here := memory{}
	text := archiveOf(t, image(here, appName, "one"), here)
	r := tar.NewReader(bytes.NewReader(text))
	var names []string
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.ModTime.Unix() != 0 || h.Mode != 0o644 || h.Uname != "" {
			t.Errorf("%s has an owner or a time: %+v", h.Name, h)
		}
		names = append(names, strings.SplitN(h.Name, "/", 2)[0])
	}
	if got := strings.Join(names, " "); got != "oci-layout forebay index.json blobs blobs blobs" {
		t.Errorf("files: %s", got)
	}
}

func TestDamagedSourceIsTold(t *testing.T) {
	here := memory{}
	p := image(here, appName, "one", strings.Repeat("two", 1<<19))
	layer := p.Blobs[2]
	for name, bad := range map[string]string{
		"another byte": strings.Repeat("two", 1<<19-1) + "twO", "shorter": strings.Repeat("two", 1<<18),
	} {
		here[layer.Digest.Hash] = []byte(bad)
		dir := t.TempDir()
		for d, b := range here {
			if err := os.WriteFile(filepath.Join(dir, d.Hex), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		a, err := New(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.WriteTo(t.Context(), io.Discard, here, 0, nil); err == nil || !strings.Contains(err.Error(), layer.Digest.Hex) {
			t.Errorf("%s from memory: %v", name, err)
		}
		f, err := os.Create(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.WriteTo(t.Context(), f, folder(dir), 0, nil); err == nil || !strings.Contains(err.Error(), layer.Digest.Hex) {
			t.Errorf("%s from a file: %v", name, err)
		}
		f.Close()
	}
}

func TestVolumesGoOnWhereTheyWereCut(t *testing.T) {
	here := memory{}
	p := image(here, appName, strings.Repeat("0123456789abcdef", 200_000), strings.Repeat("x", 3<<20), "small")
	dir := t.TempDir()
	for d, b := range here {
		if err := os.WriteFile(filepath.Join(dir, d.Hex), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := archiveOf(t, p, here)
	a, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	for _, src := range []Source{here, folder(dir)} {
		for cut := int64(0); cut < a.Size; cut += 2_900_001 {
			base := filepath.Join(t.TempDir(), "site.tar")
			write := func(ctx context.Context, most int64) (int, error) {
				v, from, err := NewVolumes(ctx, base, a.Digest, 1<<20, false)
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				done := int64(0)
				err = a.WriteTo(ctx, v, src, from, func(n int64) {
					if done += n; done > most {
						cancel()
					}
				})
				if err != nil {
					return v.Kept(), errors.Join(err, v.Abort())
				}
				return v.Kept(), v.Finish()
			}
			if _, err := write(t.Context(), cut); err == nil {
				continue // too late to cut
			}
			if _, _, err := Find([]string{base}); err == nil || !strings.Contains(err.Error(), "not written to its end") {
				t.Errorf("Find of half a bundle = %v", err)
			}
			if _, err := write(t.Context(), 1<<40); err != nil {
				t.Fatalf("the second run = %v", err)
			}
			files, record, err := Find([]string{base})
			if err != nil || record == nil || len(files) != int(a.Size>>20)+1 {
				t.Fatalf("Find = %v, %v, %v", files, record, err)
			}
			f, err := OpenFiles(files)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(f)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("cut at %d: the volumes have %d bytes that are not the archive's: %v", cut, len(got), err)
			}
			there := memory{}
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if _, err := Unpack(t.Context(), f, Unpacking{Target: there}); err != nil || !maps.EqualFunc(here, there, bytes.Equal) {
				t.Errorf("Unpack of the volumes = %v", err)
			}
			f.Close()
		}
	}
}

func TestFindOfVolumes(t *testing.T) {
	dir := t.TempDir()
	base := filepath.Join(dir, "site.tar")
	v, _, err := NewVolumes(t.Context(), base, blobOf(nil).Digest.Hash, 1<<20, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Write(make([]byte, 5<<19)); err != nil {
		t.Fatal(err)
	}
	if err := v.Finish(); err != nil {
		t.Fatal(err)
	}
	for _, names := range [][]string{
		{base}, {base + ".volumes"}, {base + ".002"}, {base + ".003", base + ".001", base + ".002"}, {base + ".001", base + ".002", base + ".003", base + ".volumes"},
	} {
		if files, _, err := Find(names); err != nil || len(files) != 3 || files[0] != base+".001" {
			t.Errorf("Find(%v) = %v, %v", names, files, err)
		}
	}
	for want, names := range map[string][]string{
		"volume 2 of site.tar is missing":      {base + ".001", base + ".003"},
		"volume 3 of 3 of site.tar is missing": {base + ".001", base + ".002"},
		"is no volume of a bundle":             {base + ".001", dir + "/other.tar"},
		"of different bundles":                 {base + ".001", dir + "/other.tar.002"},
	} {
		if _, _, err := Find(names); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Find(%v) = %v, want %q", names, err, want)
		}
	}
	if err := os.Truncate(base+".002", 5); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Find([]string{base}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "has 5 bytes") {
		t.Errorf("Find with a short volume = %v", err)
	}
}

// entryOf is a file of a hostile archive.
type entryOf struct {
	tar.Header
	body string
}

func tarOf(t *testing.T, entries ...entryOf) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.Typeflag == 0 {
			e.Typeflag = tar.TypeReg
		}
		if e.Size == 0 {
			e.Size = int64(len(e.body))
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close() // an entry may be cut on purpose
	return b.Bytes()
}

func plain(name, body string) entryOf { return entryOf{tar.Header{Name: name}, body} }

func TestHostileArchivesAreRefused(t *testing.T) {
	here := memory{}
	p := image(here, appName, "one", "two")
	a, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	manifest := plain(ownName, string(a.Manifest))
	index, _ := indexOf(p.Images)
	layout, indexEntry := plain(layoutName, layoutText), plain(indexName, string(index))
	one, two := plain(blobName(blobOf([]byte("one")).Digest.Hash), "one"), plain(blobName(blobOf([]byte("two")).Digest.Hash), "two")
	config, doc := plain(blobName(p.Blobs[0].Digest.Hash), string(here[p.Blobs[0].Digest.Hash])), plain(blobName(p.Manifests[0].Digest.Hash), string(here[p.Manifests[0].Digest.Hash]))
	whole := []entryOf{layout, manifest, indexEntry, doc, config, one, two}
	if _, err := Unpack(t.Context(), bytes.NewReader(tarOf(t, whole...)), Unpacking{Target: memory{}}); err != nil {
		t.Fatalf("the archive without a fault = %v", err)
	}
	with := func(e ...entryOf) []entryOf { return append(slices.Clone(whole), e...) }
	wrong := one
	wrong.body = "eno"
	short := one
	short.body, short.Size = "on", 0
	evil := func(name string) entryOf { return plain(name, "x") }
	link := func(kind byte, name, to string) entryOf {
		return entryOf{tar.Header{Typeflag: kind, Name: name, Linkname: to}, ""}
	}
	for name, entries := range map[string][]entryOf{
		"climbs":                   with(evil("../x")),
		"climbs within":            with(evil("blobs/../../x")),
		"absolute":                 with(evil("/etc/passwd")),
		"backslash":                with(evil(`blobs\x`)),
		"dot":                      with(evil("./../x")),
		"empty part":               with(evil("blobs//x")),
		"control":                  with(evil("blobs/\x01")),
		"very long":                with(evil("blobs/" + strings.Repeat("x", 600))),
		"symlink":                  with(link(tar.TypeSymlink, "blobs/x", "/etc/passwd")),
		"symlink out":              with(link(tar.TypeSymlink, "a/layer.tar", "../../etc/layer.tar")),
		"symlink absolute":         with(link(tar.TypeSymlink, "a/layer.tar", "/b/layer.tar")),
		"hard link":                with(link(tar.TypeLink, "blobs/x", "oci-layout")),
		"device":                   with(entryOf{tar.Header{Typeflag: tar.TypeChar, Name: "x", Devmajor: 1, Devminor: 3}, ""}),
		"pipe":                     with(entryOf{tar.Header{Typeflag: tar.TypeFifo, Name: "x"}, ""}),
		"twice, and not the same":  with(wrong),
		"hard link to a blob":      with(link(tar.TypeLink, "x", one.Name)),
		"not in the manifest":      with(plain(blobName(blobOf([]byte("x")).Digest.Hash), "x")),
		"strange file":             with(evil("extra")),
		"wrong bytes":              {layout, manifest, indexEntry, doc, config, wrong, two},
		"wrong size":               {layout, manifest, indexEntry, doc, config, short, two},
		"upper case":               with(plain(strings.ToUpper(one.Name), "one")),
		"lacks a blob":             {layout, manifest, indexEntry, doc, config, one},
		"lacks the index":          {layout, manifest, doc, config, one, two},
		"another index":            {layout, manifest, plain(indexName, "{}"), doc, config, one, two},
		"manifest after content":   {layout, indexEntry, doc, manifest, config, one, two},
		"another manifest":         {layout, manifest, plain(ownName, string(a.Manifest)+"\n"), indexEntry, doc, config, one, two},
		"another signature":        {layout, manifest, plain(signatureName, "a"), plain(signatureName, "b"), indexEntry, doc, config, one, two},
		"two indexes":              with(plain(indexName, string(index)+"\n")),
		"another layout version":   {plain(layoutName, `{"imageLayoutVersion":"2.0.0"}`), manifest, indexEntry, doc, config, one, two},
		"newer format":             {layout, plain(ownName, strings.Replace(string(a.Manifest), "bundle/1", "bundle/2", 1))},
		"manifest that is no JSON": {layout, plain(ownName, "{")},
		"nothing":                  {},
		"only a layout":            {layout},
		"huge manifest":            {layout, entryOf{tar.Header{Name: ownName, Size: ManifestMost + 1}, "x"}},
	} {
		there := memory{}
		got, err := Unpack(t.Context(), bytes.NewReader(tarOf(t, entries...)), Unpacking{Target: there})
		if !errors.Is(err, ErrFormat) && !errors.Is(err, errContent) {
			t.Errorf("%s: Unpack = %+v, %v, want ErrFormat", name, got, err)
		}
	}
	text := tarOf(t, whole...)
	for _, n := range []int{1, 100, 512, 700, 2000, len(text) / 2, len(text) - 2600} {
		for name, r := range map[string]io.Reader{"file": bytes.NewReader(text[:n]), "stream": struct{ io.Reader }{bytes.NewReader(text[:n])}} {
			if _, err := Unpack(t.Context(), r, Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
				t.Errorf("%s cut after %d bytes: %v, want ErrFormat", name, n, err)
			}
		}
	}
}

// What tools add to archives, and what tar itself makes of files, is no fault of an image.
func TestExtrasOfToolsArePassedOver(t *testing.T) {
	here := memory{}
	layer, large := "layer", strings.Repeat("large layer ", 1<<19)
	p := image(here, appName, layer, large)
	index, _ := indexOf(p.Images)
	whole := []entryOf{plain(layoutName, layoutText), plain(indexName, string(index))}
	blobs := map[string]entryOf{}
	for d, b := range here {
		blobs[blobName(d)] = plain(blobName(d), string(b))
		whole = append(slices.Clip(whole), blobs[blobName(d)])
	}
	a, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	bundle := slices.Insert(slices.Clone(whole), 1, plain(ownName, string(a.Manifest)))
	global := entryOf{tar.Header{Typeflag: tar.TypeXGlobalHeader, Name: "pax_global_header", PAXRecords: map[string]string{"comment": "x"}}, ""}
	link := func(name, to string) entryOf {
		return entryOf{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to}, ""}
	}
	without := func(name string, instead ...entryOf) []entryOf {
		var all []entryOf
		for _, e := range whole {
			if e.Name != name {
				all = append(all, e)
			}
		}
		return append(all, instead...)
	}
	small, big := blobName(blobOf([]byte(layer)).Digest.Hash), blobName(blobOf([]byte(large)).Digest.Hash)
	for name, tt := range map[string]struct {
		entries []entryOf
		notes   string
	}{
		"AppleDouble":            {append([]entryOf{plain("._index.json", "x"), plain("blobs/sha256/._"+small[13:], "x")}, whole...), "passed over: 2 of its files that some tool has left"},
		"a bundle, too":          {append([]entryOf{plain("._index.json", "x")}, bundle...), "passed over: 1 of its files that some tool has left"},
		".DS_Store":              {append(slices.Clip(whole), plain("blobs/sha256/.DS_Store", "x"), plain(".DS_Store", "x")), "passed over: 2 of its files that some tool has left"},
		"no digest":              {append(slices.Clip(bundle), plain("blobs/sha256/xyz", "x"), plain("blobs/md5/d41d8cd98f00b204e9800998ecf8427e", "x")), "passed over: 2 of its files below blobs/ that no digest names"},
		"pax global header":      {append([]entryOf{global}, whole...), ""},
		"hard link":              {without(small, plain("a/x", layer), link(small, "a/x")), ""},
		"hard link to much":      {without(big, plain("a/x", large), link("b", "./a/x"), link("./"+big, "b")), ""},
		"hard link to the index": {without(indexName, plain("a/x", string(index)), link(indexName, "a/x")), ""},
		"symlinks and devices": {append(slices.Clip(whole), entryOf{tar.Header{Typeflag: tar.TypeSymlink, Name: "latest", Linkname: "."}, ""},
			entryOf{tar.Header{Typeflag: tar.TypeFifo, Name: "x"}, ""}), "passed over: 2 of its files that are links or devices"},
		"hard link to nobody's":   {append(slices.Clip(whole), link("x", "y")), ""},
		"twice":                   {append(slices.Clip(whole), blobs[small], blobs[big], whole[0], whole[1]), ""},
		"twice by another name":   {append(slices.Clip(whole), plain("./"+small, layer)), ""},
		"a bundle with all twice": {append(slices.Clip(bundle), bundle...), ""},
	} {
		there := memory{}
		got, err := Unpack(t.Context(), bytes.NewReader(tarOf(t, tt.entries...)), Unpacking{Target: there})
		if err != nil || len(got.Images) != 1 || strings.Join(got.Notes, "\n") != tt.notes {
			t.Errorf("%s: Unpack = %+v, %v, want the notes %q", name, got, err, tt.notes)
		}
		for d := range here {
			if !bytes.Equal(there[d], here[d]) {
				t.Errorf("%s: %s did not come", name, d)
			}
		}
	}
	for name, entries := range map[string][]entryOf{
		"a link to something else":        without(small, plain("a/x", large), link(small, "a/x")),
		"a link to what is not there":     without(small, link(small, "a/x")),
		"a link to what comes later":      without(small, link(small, "a/x"), plain("a/x", layer)),
		"a link out":                      without(small, link(small, "../x")),
		"one name for two things":         append(slices.Clip(whole), plain("a/x", "one"), plain("a/x", "two")),
		"one name for two things, larger": append(slices.Clip(whole), plain("a/x", large), plain("a/x", large+"x")),
	} {
		if got, err := Unpack(t.Context(), bytes.NewReader(tarOf(t, entries...)), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: Unpack = %+v, %v, want ErrFormat", name, got, err)
		}
	}
}

// Made by bzip2 and by xz (of three blocks), since their modules do not write.
func TestBzip2AndXzAreRead(t *testing.T) {
	for _, kind := range []string{"bz2", "xz"} {
		text, err := os.ReadFile("testdata/layout.tar." + kind)
		if err != nil {
			t.Fatal(err)
		}
		for name, r := range map[string]io.Reader{"file": bytes.NewReader(text), "stream": struct{ io.Reader }{bytes.NewReader(text)}} {
			got, err := Unpack(t.Context(), r, Unpacking{Target: memory{}})
			if err != nil || len(got.Images) != 1 || got.Images[0].Name != "docker.io/library/bz:1" {
				t.Errorf("Unpack of a %s of %s = %+v, %v", name, kind, got, err)
			}
		}
		if got, err := Unpack(t.Context(), bytes.NewReader(text[:len(text)/2]), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
			t.Errorf("Unpack of a part of %s = %+v, %v, want ErrFormat", kind, got, err)
		}
	}
}

// The header of each block of an xz file says how much memory it wants.
func TestXzGetsNoMoreMemoryThanIsBounded(t *testing.T) {
	text, err := os.ReadFile("testdata/layout.tar.xz")
	if err != nil {
		t.Fatal(err)
	}
	const block = 12 // behind the header of the stream
	if text[block+2] != 0x21 || text[block+3] != 1 {
		t.Fatalf("its first block is % x, want LZMA2 without sizes", text[block:block+12])
	}
	demanding := func(dictionary byte) []byte {
		text := bytes.Clone(text)
		text[block+4] = dictionary
		end := block + (int(text[block])+1)*4 - 4
		binary.LittleEndian.PutUint32(text[end:], crc32.ChecksumIEEE(text[block:end]))
		return text
	}
	for dictionary, right := range map[byte]bool{30: true, 31: false, 40: false} { // 128 MiB, 192 MiB, 4 GiB
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Unpack(t.Context(), bytes.NewReader(demanding(dictionary)), Unpacking{Target: memory{}})
		runtime.ReadMemStats(&after)
		if right != (err == nil) || err != nil && !errors.Is(err, ErrFormat) {
			t.Errorf("Unpack with the dictionary %d = %v", dictionary, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > windowMost+16<<20 {
			t.Errorf("Unpack with the dictionary %d took %d bytes of memory", dictionary, got)
		}
	}
}

func TestOtherFormatsAreNamed(t *testing.T) {
	for begin, want := range map[string]string{
		"\x04\x22\x4d\x18": "compressed by lz4",
		"PK\x03\x04":       "a zip archive", "7z\xbc\xaf\x27\x1c": "a 7z archive", "\n<!DOCTYPE html>": "a web page", "<html>": "a web page",
		"\x5d\x00\x00\x80\x00": "compressed by lzma", "LZIP\x01": "compressed by lzip", "\x1f\x9d\x90": "compressed by compress",
		"version https://git-lfs.github.com/spec/v1\n": "a pointer of Git LFS", `{"errors": []}`: "JSON",
	} {
		text := []byte(begin + strings.Repeat("x", 600))
		for name, r := range map[string]io.Reader{"file": bytes.NewReader(text), "stream": struct{ io.Reader }{bytes.NewReader(text)}} {
			if _, err := Unpack(t.Context(), r, Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
				t.Errorf("Unpack of a %s that is %s = %v", name, want, err)
			}
		}
	}
}

func TestSparseFilesAreRefused(t *testing.T) {
	// A GNU sparse file of 1 TiB in one block, in PAX form 1.0, as tar --sparse writes it.
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Name: layoutName, Typeflag: tar.TypeReg, Size: int64(len(layoutText))})
	_, _ = io.WriteString(w, layoutText)
	_ = w.Flush()
	record := func(k, v string) string {
		s := " " + k + "=" + v + "\n"
		n := len(s) + 2
		return fmt.Sprintf("%d%s", n, s)
	}
	pax := record("GNU.sparse.major", "1") + record("GNU.sparse.minor", "0") + record("GNU.sparse.name", "index.json") + record("GNU.sparse.realsize", "1099511627776")
	raw := tar.NewWriter(&b)
	_ = raw.WriteHeader(&tar.Header{Name: "PaxHeaders/x", Typeflag: tar.TypeReg, Size: int64(len(pax))})
	head := b.Bytes()[b.Len()-512:]
	head[156] = 'x'
	sum := 0
	copy(head[148:156], "        ")
	for _, c := range head {
		sum += int(c)
	}
	copy(head[148:156], fmt.Sprintf("%06o\x00 ", sum))
	_, _ = io.WriteString(raw, pax)
	_ = raw.Flush()
	body := "1\n0\n1\n" + strings.Repeat("\x00", 506) + "x"
	_ = raw.WriteHeader(&tar.Header{Name: "GNUSparseFile.0/index.json", Typeflag: tar.TypeReg, Size: int64(len(body))})
	_, _ = io.WriteString(raw, body)
	_ = raw.Close()
	if _, err := Unpack(t.Context(), bytes.NewReader(b.Bytes()), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
		t.Errorf("Unpack of a sparse file = %v, want ErrFormat", err)
	}
}

// zeros is a reader of zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBombsEnd(t *testing.T) {
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Name: "x.tar", Size: 8 << 30}); err != nil {
		t.Fatal(err)
	}
	var bomb bytes.Buffer
	z, err := Packed(&bomb)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(z, io.MultiReader(&head, io.LimitReader(zeros{}, ratioFree*2))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Unpack(t.Context(), &bomb, Unpacking{Target: memory{}})
	if !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "became more than") {
		t.Errorf("Unpack of a bomb = %v", err)
	}
}

func TestSignatureComesBeforeContent(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, _, _ := ed25519.GenerateKey(nil)
	here := memory{}
	p := image(here, appName, "one")
	bare := archiveOf(t, p, here)
	p.Sign = func(text []byte) ([]byte, error) { return Sign(private, text) }
	signed := archiveOf(t, p, here)
	a, _ := New(p)
	for name, try := range map[string]struct {
		archive   []byte
		keys      []ed25519.PublicKey
		signature []byte
		right     bool
	}{
		"signed":                  {signed, []ed25519.PublicKey{other, public}, nil, true},
		"signature beside it":     {bare, []ed25519.PublicKey{public}, a.Signature, true},
		"not signed":              {bare, []ed25519.PublicKey{public}, nil, false},
		"another key":             {signed, []ed25519.PublicKey{other}, nil, false},
		"signature of another":    {bare, []ed25519.PublicKey{public}, bytes.Replace(a.Signature, []byte("A"), []byte("B"), 1), false},
		"no signature at all":     {bare, []ed25519.PublicKey{public}, []byte("x"), false},
		"changed manifest":        {bytes.Replace(signed, []byte("library/app:1"), []byte("library/app:2"), 1), []ed25519.PublicKey{public}, nil, false},
		"archive of another tool": {tarOf(t, plain(layoutName, layoutText), plain(indexName, "{}")), []ed25519.PublicKey{public}, a.Signature, false},
		"nobody asks for a key":   {signed, nil, nil, true},
	} {
		there := memory{}
		got, err := Unpack(t.Context(), bytes.NewReader(try.archive), Unpacking{Target: there, Keys: try.keys, Signature: try.signature})
		if (err == nil) != try.right || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: Unpack = %+v, %v", name, got, err)
		}
		if err == nil && got.Signed != (len(try.keys) > 0) {
			t.Errorf("%s: signed is %t", name, got.Signed)
		}
		if err != nil && len(there) > 0 {
			t.Errorf("%s: content was taken in before the signature was right", name)
		}
	}
}

func TestNamesAreAskedBeforeContent(t *testing.T) {
	here, there := memory{}, memory{}
	text := archiveOf(t, image(here, appName, "one"), here)
	no := errors.New("not this name")
	_, err := Unpack(t.Context(), bytes.NewReader(text), Unpacking{Target: there, Names: func(_ context.Context, images []Image) error {
		if len(images) != 1 || images[0].Name != appName {
			t.Errorf("asked for %+v", images)
		}
		return no
	}})
	if !errors.Is(err, no) || len(there) > 0 {
		t.Errorf("Unpack = %v with %d things taken in", err, len(there))
	}
}

func TestArchiveOfDockerSave(t *testing.T) {
	layer, second := "layer one", strings.Repeat("layer two ", 1<<20) // more than is kept in memory
	var zipped bytes.Buffer
	g := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(g, "third")
	_ = g.Close()
	config := fmt.Sprintf(`{"architecture":"amd64","rootfs":{"type":"layers","diff_ids":["%s","%s","%s","%s"]}}`,
		blobOf([]byte(layer)).Digest, blobOf([]byte(second)).Digest, blobOf([]byte(layer)).Digest, blobOf([]byte("third")).Digest)
	text := tarOf(t,
		plain("aa/VERSION", "1.0"), plain("aa/json", "{}"), plain("aa/layer.tar", layer), plain("bb/layer.tar", second),
		entryOf{tar.Header{Typeflag: tar.TypeSymlink, Name: "cc/layer.tar", Linkname: "../aa/layer.tar"}, ""},
		plain("dd.tar.gz", zipped.String()), plain("conf.json", config), plain("repositories", "{}"),
		plain("manifest.json", `[{"Config":"conf.json","RepoTags":["app:1","example.com/app:2"],"Layers":["aa/layer.tar","bb/layer.tar","cc/layer.tar","dd.tar.gz"]}]`))
	var first []Image
	for name, r := range map[string]io.Reader{"file": bytes.NewReader(text), "stream": struct{ io.Reader }{bytes.NewReader(text)}} {
		there := memory{}
		got, err := Unpack(t.Context(), r, Unpacking{Target: there})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got.Images) != 2 || got.Images[0].Name != "app:1" || got.Images[1].Name != "example.com/app:2" || len(got.Notes) == 0 {
			t.Errorf("%s: %+v", name, got)
		}
		if first == nil {
			first = got.Images
		}
		if diff := cmp.Diff(first, got.Images); diff != "" {
			t.Errorf("the same archive makes other images:\n%s", diff)
		}
		var m v1.Manifest
		if err := json.Unmarshal(there[got.Images[0].Digest.Hash], &m); err != nil || len(m.Layers) != 4 || m.Layers[0].Digest != m.Layers[2].Digest {
			t.Errorf("%s: manifest %+v, %v", name, m, err)
			continue
		}
		if string(m.Layers[0].MediaType) != "application/vnd.oci.image.layer.v1.tar" || string(m.Layers[3].MediaType) != "application/vnd.oci.image.layer.v1.tar+gzip" {
			t.Errorf("%s: media types %s, %s", name, m.Layers[0].MediaType, m.Layers[3].MediaType)
		}
		for _, l := range m.Layers {
			if int64(len(there[l.Digest])) != l.Size {
				t.Errorf("%s: layer %s is not there", name, l.Digest)
			}
		}
	}
	for name, manifest := range map[string]string{
		"lacks a layer":     `[{"Config":"conf.json","Layers":["aa/layer.tar"]}]`,
		"names nothing":     `[{"Config":"conf.json","Layers":["aa/layer.tar","bb/layer.tar","cc/layer.tar","gone"]}]`,
		"climbs":            `[{"Config":"../conf.json","Layers":[]}]`,
		"swaps layers":      `[{"Config":"conf.json","RepoTags":["a:1"],"Layers":["bb/layer.tar","aa/layer.tar","cc/layer.tar","dd.tar.gz"]}]`,
		"config is a layer": `[{"Config":"aa/layer.tar","Layers":[]}]`,
		"no JSON":           `[`,
		"nothing in it":     `[]`,
	} {
		bad := tarOf(t, plain("aa/layer.tar", layer), plain("bb/layer.tar", second), plain("cc/layer.tar", layer), plain("dd.tar.gz", zipped.String()),
			plain("conf.json", config), plain("manifest.json", manifest))
		if got, err := Unpack(t.Context(), bytes.NewReader(bad), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: Unpack = %+v, %v, want ErrFormat", name, got, err)
		}
	}
	packed := tarOf(t, plain("layer.tar.xz", "\xfd7zXZ\x00"+strings.Repeat("x", 600)), plain("conf.json", fmt.Sprintf(`{"rootfs":{"diff_ids":["%s"]}}`, blobOf([]byte(layer)).Digest)),
		plain("manifest.json", `[{"Config":"conf.json","RepoTags":["a:1"],"Layers":["layer.tar.xz"]}]`))
	if _, err := Unpack(t.Context(), bytes.NewReader(packed), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), "load the archive by docker load") {
		t.Errorf("a layer that is compressed by xz = %v", err)
	}
	loop := tarOf(t, entryOf{tar.Header{Typeflag: tar.TypeSymlink, Name: "a/layer.tar", Linkname: "../b/layer.tar"}, ""},
		entryOf{tar.Header{Typeflag: tar.TypeSymlink, Name: "b/layer.tar", Linkname: "../a/layer.tar"}, ""}, plain("manifest.json", `[{"Config":"a/layer.tar"}]`))
	if _, err := Unpack(t.Context(), bytes.NewReader(loop), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
		t.Errorf("a loop of links = %v", err)
	}
}

func TestNamesOfOtherTools(t *testing.T) {
	doc := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[]}`
	other := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[],"subject":{}}`
	entry := func(text, annotations string) string {
		return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"%s","size":%d,"annotations":{%s}}`, blobOf([]byte(text)).Digest, len(text), annotations)
	}
	refName := `"org.opencontainers.image.ref.name":`
	for _, tt := range []struct {
		name, entries, as string
		want              string // names, or a part of the error
	}{
		{"skopeo with a name", entry(doc, refName+`"quay.io/team/app:1"`), "", "quay.io/team/app:1"},
		{"skopeo with a tag", entry(doc, refName+`"v1"`), "", "only that it is \"v1\""},
		{"a tag and --as", entry(doc, refName+`"v1"`), "team/app", "team/app:v1"},
		{"a tag and --as with a tag", entry(doc, refName+`"v1"`), "host:5000/team/app:2", "host:5000/team/app:2"},
		{"a port and --as", entry(doc, refName+`"v1"`), "host:5000/team/app", "host:5000/team/app:v1"},
		{"no name", entry(doc, ""), "", "does not say what its image"},
		{"no name and --as", entry(doc, ""), "app:3", "app:3"},
		{"containerd", entry(doc, `"io.containerd.image.name":"docker.io/library/app:9",`+refName+`"9"`), "", "docker.io/library/app:9"},
		{"with a referrer", entry(doc, refName+`"app:1"`) + "," + entry(other, ""), "", "app:1 app@" + blobOf([]byte(other)).Digest.String()},
		{"two and --as", entry(doc, refName+`"a:1"`) + "," + entry(other, refName+`"b:1"`), "c:1", "it holds 2 images"},
		{"the same twice", entry(doc, refName+`"a:1"`) + "," + entry(doc, refName+`"a:1"`), "", "a:1"},
		{"one name for two", entry(doc, refName+`"a:1"`) + "," + entry(other, refName+`"a:1"`), "", "it names a:1 twice"},
		{"bad digest", `{"digest":"md5:00","size":1}`, "", "index.json"},
	} {
		text := tarOf(t, plain(layoutName, layoutText), plain(indexName, `{"manifests":[`+tt.entries+`]}`),
			plain(blobName(blobOf([]byte(doc)).Digest.Hash), doc), plain(blobName(blobOf([]byte(other)).Digest.Hash), other))
		got, err := Unpack(t.Context(), bytes.NewReader(text), Unpacking{Target: memory{}, As: tt.as})
		var names []string
		if err != nil {
			names = []string{err.Error()}
		} else {
			for _, i := range got.Images {
				names = append(names, i.Name)
			}
		}
		if s := strings.Join(names, " "); s != tt.want && (err == nil || !strings.Contains(s, tt.want)) {
			t.Errorf("%s: %s, want %s", tt.name, s, tt.want)
		}
	}
}

func TestFolderOfAnOCILayout(t *testing.T) {
	here := memory{}
	text := archiveOf(t, image(here, appName, "one", "two"), here)
	dir := t.TempDir()
	r := tar.NewReader(bytes.NewReader(text))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		name := filepath.Join(dir, h.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	there := memory{}
	if got, err := UnpackDir(t.Context(), dir, Unpacking{Target: there}); err != nil || len(got.Images) != 1 || !maps.EqualFunc(here, there, bytes.Equal) {
		t.Errorf("UnpackDir = %+v, %v", got, err)
	}
	one := filepath.Join(dir, blobName(blobOf([]byte("one")).Digest.Hash))
	if err := errors.Join(os.Remove(one), os.Symlink("/etc/passwd", one)); err != nil {
		t.Fatal(err)
	}
	if _, err := UnpackDir(t.Context(), dir, Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
		t.Errorf("UnpackDir with a link = %v", err)
	}
	if _, err := UnpackDir(t.Context(), t.TempDir(), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) {
		t.Errorf("UnpackDir of an empty folder = %v", err)
	}
}

func TestInventoryGoesThereAndBack(t *testing.T) {
	for _, n := range []int{0, 3, 20_000} {
		var all []Blob
		for i := range n {
			all = append(all, Blob{blobOf([]byte(fmt.Sprint(i))).Digest, int64(i)})
		}
		var b, again bytes.Buffer
		if err := Inventory(&b, append(slices.Clone(all), all...)); err != nil {
			t.Fatal(err)
		}
		slices.Reverse(all)
		if err := Inventory(&again, all); err != nil || !bytes.Equal(b.Bytes(), again.Bytes()) {
			t.Errorf("%d: the same content makes another inventory, %v", n, err)
		}
		if compressed := kindOf(b.Bytes()) == zstdKind; compressed != (n*80 > compressFrom) {
			t.Errorf("%d: compressed is %t", n, compressed)
		}
		slices.SortFunc(all, byDigest)
		got, err := ReadInventory(&b)
		if err != nil || !slices.Equal(got, all) {
			t.Errorf("%d: ReadInventory gave %d, %v", n, len(got), err)
		}
	}
	d := blobOf(nil).Digest.String()
	for _, text := range []string{"", "x", inventoryFormat + "\n" + d, inventoryFormat + "\n" + d + " -1\n", inventoryFormat + "\n" + d + " 01\n",
		inventoryFormat + "\n" + d + " 1\n" + d + " 1\n", inventoryFormat + "\nmd5:00 1\n", inventoryFormat + "\n" + strings.Repeat("x", 5000)} {
		if got, err := ReadInventory(strings.NewReader(text)); !errors.Is(err, ErrFormat) {
			t.Errorf("ReadInventory(%.60q) = %v, %v, want ErrFormat", text, got, err)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	here := memory{}
	p := image(here, appName, "one", "two")
	a, _ := New(p)
	var b bytes.Buffer
	if err := a.WriteTo(context.Background(), &b, here, 0, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	var z bytes.Buffer
	w, _ := Packed(&z)
	_, _ = w.Write(b.Bytes())
	_ = w.Close()
	f.Add(z.Bytes())
	f.Fuzz(func(t *testing.T, text []byte) {
		there := memory{}
		got, err := Unpack(t.Context(), bytes.NewReader(text), Unpacking{Target: there})
		if err != nil {
			return
		}
		for _, i := range got.Images {
			if i.check() != nil {
				t.Errorf("an image that is none: %+v", i)
			}
		}
		for d, b := range there {
			if d.Algorithm == "sha256" && blobOf(b).Digest.Hash != d {
				t.Errorf("%s is not what its name says", d)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	a, _ := New(image(memory{}, appName, "one"))
	f.Add(a.Manifest)
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Errorf("the error is %v", err)
			}
			return
		}
		again, err := parseManifest(m.Encode())
		if err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if !bytes.Equal(again.Encode(), m.Encode()) {
			t.Error("it changes as it is written")
		}
	})
}

func FuzzInventory(f *testing.F) {
	f.Add([]byte(inventoryFormat + "\n" + blobOf(nil).Digest.String() + " 5\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		blobs, err := ReadInventory(bytes.NewReader(text))
		if err != nil {
			return
		}
		var b bytes.Buffer
		if err := Inventory(&b, blobs); err != nil {
			t.Fatal(err)
		}
		if again, err := ReadInventory(&b); err != nil || !slices.Equal(again, blobs) {
			t.Errorf("it changes as it is written: %v", err)
		}
	})
}

func FuzzVolumes(f *testing.F) {
	f.Add([]byte(`{"format":"forebay-volumes/1","name":"a","volume_size":1048576,"complete":true,"volumes":[{"name":"a.001","size":1,"digest":"sha256:` + strings.Repeat("0", 64) + `"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := parseVolumes(text)
		if err != nil {
			return
		}
		for _, one := range v.Volumes {
			if filepath.Base(one.Name) != one.Name {
				t.Errorf("a volume is called %q", one.Name)
			}
		}
	})
}

func FuzzKeysAndSignatures(f *testing.F) {
	_, private, _ := ed25519.GenerateKey(nil)
	signature, _ := Sign(private, []byte("x"))
	f.Add(signature)
	f.Add([]byte("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8= x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p := Proof{Text: []byte("x"), Signature: text, Keys: []ed25519.PublicKey{make([]byte, ed25519.PublicKeySize)}}
		if _, err := p.Check(); err == nil {
			t.Error("a signature by nobody is right")
		}
		_, _ = ParsePublicKeys(text)
		_, _ = ParsePrivateKey(text, nil)
	})
}
