package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/row"
)

func FuzzParseLine(f *testing.F) {
	d := digest("a")
	for _, l := range [][]byte{
		LinkLine(nginx, row.Manifest, d, row.Link{MediaType: "a/b; charset=x", Size: 5, At: at(1)}),
		LinkLine(nginx, row.Blob, d, row.Link{Size: -1}),
		UnlinkLine(nginx, row.Blob, d, at(2)),
		TagLine(nginx, "latest", row.Tag{Desc: v1.Descriptor{Digest: d}}),
		UntagLine(nginx, "%", time.Time{}),
		PinLine(row.Pin{Repo: nginx, Ref: "1", Platforms: []string{"linux/amd64", "linux/arm/v7"}, At: at(1)}),
		UnpinLine(nginx, d.String(), at(3)),
		line("+link"),
		line("-tag", "docker.io", "library/nginx", "latest"),
		line("+freeze", "docker.io", "library/nginx"),
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
		if diff := cmp.Diff(e, got); err != nil || diff != "" {
			t.Errorf("line %q becomes %q: %v (-want +got)\n%s", b, again, err, diff)
		}
	})
}

// line returns an entry as the line that says it.
func (e Entry) line() []byte {
	switch {
	case e.Pin.Ref != "" && e.Remove:
		return UnpinLine(e.Pin.Repo, e.Pin.Ref, e.At)
	case e.Pin.Ref != "":
		return PinLine(e.Pin)
	case e.Decision.Name != "" && e.Remove:
		return UndecideLine(e.Decision.Name, e.At)
	case e.Decision.Name != "":
		return DecisionLine(e.Decision)
	case e.Was.Digest != (v1.Hash{}):
		return WasLine(e.Repo, e.Tag, e.Was)
	case e.Tag != "" && e.Remove:
		return UntagLine(e.Repo, e.Tag, e.At)
	case e.Tag != "":
		return TagLine(e.Repo, e.Tag, row.Tag{Desc: e.Desc, ChangedAt: e.At})
	case e.Remove:
		return UnlinkLine(e.Repo, e.Kind, e.Desc.Digest, e.At)
	default:
		return LinkLine(e.Repo, e.Kind, e.Desc.Digest, row.Link{MediaType: string(e.Desc.MediaType), Size: e.Desc.Size, At: e.At})
	}
}

func TestLinesSurviveStrangeText(t *testing.T) {
	for _, text := range []string{"", " ", "%", "%%", "a b\tc\nd\re", "%20", "\x7f", "ünï", "\xff\xfe", "-"} {
		l := TagLine(row.Repo{Upstream: "docker.io", Name: "a" + text}, "t"+text, row.Tag{Desc: v1.Descriptor{MediaType: "m", Digest: digest("a")}})
		if n := bytes.Count(l, []byte("\n")); n != 1 {
			t.Errorf("line for %q has %d ends", text, n)
		}
		e, err := parseLine(bytes.TrimSuffix(l, []byte("\n")))
		if err != nil || e.Repo.Name != "a"+text || e.Tag != "t"+text {
			t.Errorf("line for %q becomes %q, %q, %v", text, e.Repo.Name, e.Tag, err)
		}
	}
}

func TestDamagedLinesAreCounted(t *testing.T) {
	good := LinkLine(nginx, row.Blob, digest("a"), row.Link{Size: 5, At: at(1)})
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
		bad, err := Read(bytes.NewReader(tt.journal), func(Entry) error { n++; return nil })
		if n != tt.good || bad != tt.bad || err != nil {
			t.Errorf("%s: %d lines and %d bad, %v; want %d and %d", name, n, bad, err, tt.good, tt.bad)
		}
	}
	if _, err := Read(bytes.NewReader([]byte("forebay refs 2 00\n")), nil); !errors.Is(err, row.ErrNewer) {
		t.Errorf("newer journal: %v, want %v", err, row.ErrNewer)
	}
}

var nginx = row.Repo{Upstream: "docker.io", Name: "library/nginx"}

func digest(s string) v1.Hash {
	h := sha256.Sum256([]byte(s))
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h[:])}
}

// at is a time that survives encoding, n seconds after some moment.
func at(n int) time.Time { return time.Unix(1_700_000_000+int64(n), 0) }

func slice(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
