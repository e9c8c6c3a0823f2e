package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
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
