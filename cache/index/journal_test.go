package index

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

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
		l := tagLine(Repo{Upstream: "docker.io", Name: "a" + text}, "t"+text, Tag{Desc: v1.Descriptor{MediaType: "m", Digest: digest("a")}})
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
