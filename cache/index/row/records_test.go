package row

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// sampleRecords are one record of each kind.
func sampleRecords(t testing.TB) [][]byte {
	t.Helper()
	tag := Tag{Desc: v1.Descriptor{MediaType: "m/t", Digest: digest("a"), Size: 1 << 40}, CheckedAt: at(3), ChangedAt: at(1),
		History: []Binding{{Digest: digest("b"), FirstSeen: at(0), LastSeen: at(1)}, {Digest: digest("c")}}}
	doc, err := EncodeDoc(at(5), []byte(`["a","b"]`))
	if err != nil {
		t.Fatal(err)
	}
	return [][]byte{
		BlobInfo{Size: 12345, Added: at(1)}.Encode(),
		Link{MediaType: "a/b", Size: -1, At: at(2)}.Encode(),
		tag.Encode(),
		RepoRecord{Manifests: 1, Blobs: 2, Tags: 3}.Encode(),
		TotalsRecord{Totals: Totals{1, 2, 3, 4, 5}, Live: 6, Mark: Mark{Run: 1 << 63, Off: 8}}.Encode(),
		EncodeVersion(1),
		Remote{Size: 7, Stamp: at(3), Used: at(4)}.Encode(),
		Upload{ID: "id", PartSize: 5 << 20, At: at(5)}.Encode(),
		doc,
	}
}

// redo decodes v as each kind and encodes it again.
func redo(v []byte) map[string]func() ([]byte, error) {
	return map[string]func() ([]byte, error){
		"blob":    func() ([]byte, error) { r, err := DecodeBlob(v); return r.Encode(), err },
		"link":    func() ([]byte, error) { r, err := DecodeLink(v); return r.Encode(), err },
		"tag":     func() ([]byte, error) { r, err := DecodeTag(v); return r.Encode(), err },
		"repo":    func() ([]byte, error) { r, err := DecodeRepo(v); return r.Encode(), err },
		"totals":  func() ([]byte, error) { r, err := DecodeTotals(v); return r.Encode(), err },
		"remote":  func() ([]byte, error) { r, err := DecodeRemote(v); return r.Encode(), err },
		"upload":  func() ([]byte, error) { r, err := DecodeUpload(v); return r.Encode(), err },
		"version": func() ([]byte, error) { r, err := DecodeVersion(v); return EncodeVersion(r), err },
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
		if _, doc, err := DecodeDoc(v); err == nil && len(doc) > MaxDoc {
			t.Errorf("document of %x has %d bytes", v, len(doc))
		}
		if d, rest, err := CutDigest(v); err == nil {
			key, err := AppendDigest(nil, d)
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
			if _, err := redoOf(kind, r[:n]); !errors.Is(err, ErrRecord) {
				t.Errorf("%s record cut to %d bytes: %v, want %v", kind, n, err, ErrRecord)
			}
		}
		if _, err := redoOf(kind, append(bytes.Clone(r), 0)); !errors.Is(err, ErrRecord) {
			t.Errorf("%s record with a byte too many: %v, want %v", kind, err, ErrRecord)
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
		if a.Check() != nil || b.Check() != nil || a == b {
			return
		}
		prefix, err := RepoKey(PrefixTag, a)
		if err != nil {
			t.Fatalf("repoKey(%q): %v", a, err)
		}
		if key, err := TagKey(b, last); err == nil && bytes.HasPrefix(key, prefix) {
			t.Errorf("tag %q of %q has a key of %q", last, b, a)
		}
		got, rest, err := CutRepo(appendRepo(nil, a))
		if err != nil || got != a || len(rest) > 0 {
			t.Errorf("cutRepo of %q = %q, %q, %v", a, got, rest, err)
		}
		if a.String() == b.String() {
			t.Errorf("%q and %q have one record", a, b)
		}
	})
}

func digest(s string) v1.Hash {
	h := sha256.Sum256([]byte(s))
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h[:])}
}

// at is a time that survives encoding, n seconds after some moment.
func at(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0) }
