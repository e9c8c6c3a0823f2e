package index

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// sampleRecords are one record of each kind.
func sampleRecords(t testing.TB) [][]byte {
	t.Helper()
	tag := Tag{Desc: v1.Descriptor{MediaType: "m/t", Digest: digest("a"), Size: 1 << 40}, CheckedAt: at(3), ChangedAt: at(1),
		History: []Binding{{Digest: digest("b"), FirstSeen: at(0), LastSeen: at(1)}, {Digest: digest("c")}}}
	doc, err := encodeDoc(at(5), []byte(`["a","b"]`))
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{
		BlobInfo{Size: 12345, Added: at(1)}.encode(),
		Link{MediaType: "a/b", Size: -1, At: at(2)}.encode(),
		tag.encode(),
		repoRecord{manifests: 1, blobs: 2, tags: 3}.encode(),
		totals{Totals: Totals{1, 2, 3, 4, 5}, live: 6, mark: mark{run: 1 << 63, off: 8}}.encode(),
		encodeVersion(1),
		Remote{Size: 7, Stamp: at(3), Used: at(4)}.encode(),
		Upload{ID: "id", PartSize: 5 << 20, At: at(5)}.encode(),
		doc,
	}
}

// redo decodes v as each kind and encodes it again.
func redo(v []byte) map[string]func() ([]byte, error) {
	return map[string]func() ([]byte, error){
		"blob":    func() ([]byte, error) { r, err := decodeBlob(v); return r.encode(), err },
		"link":    func() ([]byte, error) { r, err := decodeLink(v); return r.encode(), err },
		"tag":     func() ([]byte, error) { r, err := decodeTag(v); return r.encode(), err },
		"repo":    func() ([]byte, error) { r, err := decodeRepo(v); return r.encode(), err },
		"totals":  func() ([]byte, error) { r, err := decodeTotals(v); return r.encode(), err },
		"remote":  func() ([]byte, error) { r, err := decodeRemote(v); return r.encode(), err },
		"upload":  func() ([]byte, error) { r, err := decodeUpload(v); return r.encode(), err },
		"version": func() ([]byte, error) { r, err := decodeVersion(v); return encodeVersion(r), err },
	}
}

func FuzzDecodeRecords(f *testing.F) {
	for _, r := range sampleRecords(f) {
		f.Add(r)
		f.Add(r[:len(r)-1])
	}
	f.Add([]byte{})
	f.Add([]byte{recordForm})
	f.Add([]byte{recordForm + 1, 0})
	f.Fuzz(func(t *testing.T, v []byte) {
		for kind, redo := range redo(v) {
			once, err := redo()
			if err != nil {
				continue
			}
			// Varints have longer spellings: compare from the second time on.
			twice, err := redoOf(kind, once)
			if err != nil || !bytes.Equal(once, twice) {
				t.Errorf("%s record %x becomes %x, then %x, %v", kind, v, once, twice, err)
			}
		}
		if _, doc, err := decodeDoc(v); err == nil && len(doc) > maxDoc {
			t.Errorf("document of %x has %d bytes", v, len(doc))
		}
		if d, rest, err := cutDigest(v); err == nil {
			key, err := appendDigest(nil, d)
			if err != nil || !bytes.Equal(append(key, rest...), v) {
				t.Errorf("digest of key %x is %s, which is %x, %v", v, d, key, err)
			}
		}
	})
}

func redoOf(kind string, v []byte) ([]byte, error) { return redo(v)[kind]() }

func TestCutRecordsAreErrors(t *testing.T) {
	for i, r := range sampleRecords(t)[:6] {
		kind := []string{"blob", "link", "tag", "repo", "totals", "version"}[i]
		if same, err := redoOf(kind, r); err != nil || !bytes.Equal(same, r) {
			t.Errorf("%s record %x becomes %x, %v", kind, r, same, err)
		}
		for n := range len(r) {
			if _, err := redoOf(kind, r[:n]); !errors.Is(err, errRecord) {
				t.Errorf("%s record cut to %d bytes: %v, want %v", kind, n, err, errRecord)
			}
		}
		if _, err := redoOf(kind, append(bytes.Clone(r), 0)); !errors.Is(err, errRecord) {
			t.Errorf("%s record with a byte too many: %v, want %v", kind, err, errRecord)
		}
	}
}

func TestTimesSurviveRecords(t *testing.T) {
	for _, want := range []time.Time{{}, at(0), time.UnixMilli(1), time.UnixMilli(-5)} {
		d := newDecoder(newEncoder().time(want))
		if got := d.time(); !got.Equal(want) || d.done() != nil {
			t.Errorf("time %v becomes %v", want, got)
		}
	}
}

func FuzzKeysAreUnambiguous(f *testing.F) {
	f.Add("docker.io", "library/nginx", "ghcr.io", "a/b", "latest")
	f.Add("a", "b", "a", "b/c", "d")
	f.Fuzz(func(t *testing.T, up1, name1, up2, name2, last string) {
		a, b := Repo{up1, name1}, Repo{up2, name2}
		if a.check() != nil || b.check() != nil || a == b {
			return
		}
		prefix, err := repoKey(prefixTag, a)
		if err != nil {
			t.Fatalf("repoKey(%q): %v", a, err)
		}
		if key, err := tagKey(b, last); err == nil && bytes.HasPrefix(key, prefix) {
			t.Errorf("tag %q of %q has a key of %q", last, b, a)
		}
		got, rest, err := cutRepo(appendRepo(nil, a))
		if err != nil || got != a || len(rest) > 0 {
			t.Errorf("cutRepo of %q = %q, %q, %v", a, got, rest, err)
		}
		if a.String() == b.String() {
			t.Errorf("%q and %q have one record", a, b)
		}
	})
}

func FuzzParseLine(f *testing.F) {
	d := digest("a")
	for _, l := range [][]byte{
		linkLine(nginx, Manifest, d, Link{MediaType: "a/b; charset=x", Size: 5, At: at(1)}),
		linkLine(nginx, Blob, d, Link{Size: -1}),
		unlinkLine(nginx, Blob, d),
		tagLine(nginx, "latest", Tag{Desc: v1.Descriptor{Digest: d}}),
		untagLine(nginx, "%"),
		pinLine(Pin{Repo: nginx, Ref: "1", Platforms: []string{"linux/amd64", "linux/arm/v7"}, At: at(1)}),
		unpinLine(nginx, d.String()),
		line("+link"),
		line("+tag", "a", "b", "c", "d", "e", "f", "g"),
	} {
		f.Add(l[:len(l)-1])
	}
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseLine(b)
		if err != nil && len(b) > 9 {
			// With the right checksum, which nothing would hit upon.
			b = fmt.Appendf(nil, "%08x %s", crc32.Checksum(b[9:], castagnoli), b[9:])
			e, err = parseLine(b)
		}
		if err != nil {
			return
		}
		again := bytes.TrimSuffix(e.line(), []byte("\n"))
		got, err := parseLine(again)
		if diff := cmp.Diff(e, got, cmp.AllowUnexported(entry{})); err != nil || diff != "" {
			t.Errorf("line %q becomes %q: %v (-want +got)\n%s", b, again, err, diff)
		}
		var batch Batch
		if err := e.change(&batch); err != nil {
			t.Errorf("line %q is accepted, its change is not: %v", b, err)
		}
	})
}

// line returns an entry as the line that says it.
func (e entry) line() []byte {
	switch {
	case e.pin.Ref != "" && e.remove:
		return unpinLine(e.pin.Repo, e.pin.Ref)
	case e.pin.Ref != "":
		return pinLine(e.pin)
	case e.tag != "" && e.remove:
		return untagLine(e.repo, e.tag)
	case e.tag != "":
		return tagLine(e.repo, e.tag, Tag{Desc: e.desc, ChangedAt: e.at})
	case e.remove:
		return unlinkLine(e.repo, e.kind, e.desc.Digest)
	default:
		return linkLine(e.repo, e.kind, e.desc.Digest, Link{MediaType: string(e.desc.MediaType), Size: e.desc.Size, At: e.at})
	}
}

func TestLinesSurviveStrangeText(t *testing.T) {
	for _, text := range []string{"", " ", "%", "%%", "a b\tc\nd\re", "%20", "\x7f", "ünï", "\xff\xfe", "-"} {
		l := tagLine(Repo{"docker.io", "a" + text}, "t"+text, Tag{Desc: v1.Descriptor{MediaType: "m", Digest: digest("a")}})
		if n := bytes.Count(l, []byte("\n")); n != 1 {
			t.Errorf("line for %q has %d ends", text, n)
		}
		e, err := parseLine(bytes.TrimSuffix(l, []byte("\n")))
		if err != nil || e.repo.Name != "a"+text || e.tag != "t"+text {
			t.Errorf("line for %q becomes %q, %q, %v", text, e.repo.Name, e.tag, err)
		}
	}
}

func TestDamagedLinesAreCounted(t *testing.T) {
	good := linkLine(nginx, Blob, digest("a"), Link{Size: 5, At: at(1)})
	flipped := bytes.Clone(good)
	flipped[20] ^= 1
	long := append(bytes.Repeat([]byte("x"), 3*maxLine), '\n')
	for name, tt := range map[string]struct {
		journal   []byte
		good, bad int
	}{
		"empty":            {nil, 0, 0},
		"header alone":     {header(7), 0, 0},
		"torn header":      {header(7)[:9], 0, 1},
		"sound":            {slice(header(7), good, good), 2, 0},
		"torn line":        {slice(header(7), good, good[:30]), 1, 1},
		"end is missing":   {slice(header(7), good, good[:len(good)-1]), 1, 1},
		"flipped bit":      {slice(header(7), flipped, good), 1, 1},
		"without header":   {slice(good, good), 2, 0},
		"damaged header":   {slice([]byte("forebay refs 1 zzz\n"), good), 1, 1},
		"blank lines":      {slice(header(7), []byte("\n\n"), good), 1, 0},
		"too long":         {slice(header(7), long, good), 1, 1},
		"too long, torn":   {slice(header(7), good, long[:len(long)-1]), 1, 1},
		"zeros at the end": {slice(header(7), good, make([]byte, 5000)), 1, 1},
	} {
		n := 0
		bad, err := readJournal(bytes.NewReader(tt.journal), func(entry) error { n++; return nil })
		if n != tt.good || bad != tt.bad || err != nil {
			t.Errorf("%s: %d lines and %d bad, %v; want %d and %d", name, n, bad, err, tt.good, tt.bad)
		}
	}
	if _, err := readJournal(bytes.NewReader([]byte("forebay refs 2 00\n")), nil); !errors.Is(err, ErrNewer) {
		t.Errorf("newer journal: %v, want %v", err, ErrNewer)
	}
}

func slice(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
