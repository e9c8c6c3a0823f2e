package bundle

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
)

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

func TestFolderWithinAnArchiveIsNamed(t *testing.T) {
	for want, e := range map[string]entryOf{"in its folder \"images/\"": plain("images/oci-layout", layoutText), "in its folder \"a/b/\"": plain("a/b/manifest.json", "[]"), "has no index.json": plain("a/x", "x")} {
		if _, err := Unpack(t.Context(), bytes.NewReader(tarOf(t, e)), Unpacking{Target: memory{}}); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), want) {
			t.Errorf("Unpack with %s = %v, want %s", e.Name, err, want)
		}
	}
}

func TestWhatFollowsAnArchiveIsTold(t *testing.T) {
	here := memory{}
	text := archiveOf(t, image(here, appName, "one"), here)
	for name, tt := range map[string]struct {
		after string
		told  bool
	}{
		"nothing":         {"", false},
		"a tape's zeros":  {strings.Repeat("\x00", 10240), false},
		"another archive": {string(archiveOf(t, image(here, "docker.io/library/other:1", "two"), here)), true},
		"anything":        {strings.Repeat("\x00", 1<<20) + "x", true},
	} {
		packed := bytes.Buffer{}
		g := gzip.NewWriter(&packed)
		_, _ = io.WriteString(g, string(text)+tt.after)
		_ = g.Close()
		for kind, r := range map[string]io.Reader{"file": strings.NewReader(string(text) + tt.after), "stream": struct{ io.Reader }{strings.NewReader(string(text) + tt.after)}, "gzip": &packed} {
			got, err := Unpack(t.Context(), r, Unpacking{Target: memory{}})
			if err != nil || len(got.Images) != 1 || tt.told != (strings.Contains(strings.Join(got.Notes, "\n"), "follows the end")) {
				t.Errorf("%s, %s: Unpack = %+v, %v", name, kind, got, err)
			}
			if n, _ := r.Read(make([]byte, 1)); n > 0 && !tt.told {
				t.Errorf("%s, %s: not read to its end", name, kind)
			}
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
