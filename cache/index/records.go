package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Every record begins with the version of its own form, so that fields can be added to
// one without touching the others. Then follow its fields: numbers as varints, texts and
// digests with their length before them. A record is decoded whole or not at all.
const recordForm = 1

// errRecord: a record is damaged.
var errRecord = errors.New("record cannot be decoded")

func damaged(what string, err error) error {
	return fmt.Errorf("read %s: %w: %w", what, ErrDamaged, err)
}

// BlobInfo is what is known about committed content, manifests included.
type BlobInfo struct {
	Size  int64 // bytes
	Added time.Time
}

func (b BlobInfo) encode() []byte { return newEncoder().int(b.Size).time(b.Added) }

func decodeBlob(v []byte) (BlobInfo, error) {
	d := newDecoder(v)
	b := BlobInfo{Size: d.size(), Added: d.time()}
	return b, d.done()
}

// Link is the fact that a repository holds a digest. For a blob the media type may be empty.
type Link struct {
	MediaType string
	Size      int64     // bytes; -1 while unknown
	At        time.Time // when it was learned
}

func (l Link) encode() []byte {
	return newEncoder().text(l.MediaType).int(l.Size).time(l.At)
}

func decodeLink(v []byte) (Link, error) {
	d := newDecoder(v)
	l := Link{MediaType: d.text(), Size: d.int(), At: d.time()}
	return l, d.done()
}

// maxHistory bounds the former bindings that are kept of a tag.
const maxHistory = 20

// Binding is what a tag pointed to once.
type Binding struct {
	Digest    v1.Hash
	FirstSeen time.Time
	LastSeen  time.Time // when the upstream confirmed it last
}

// Tag is what a tag points to.
type Tag struct {
	Desc      v1.Descriptor // only media type, digest and size are kept
	CheckedAt time.Time     // when the upstream confirmed it last
	ChangedAt time.Time     // when the upstream was first seen to say so
	History   []Binding     // former bindings, latest first, at most 20
}

func (t Tag) encode() []byte {
	e := newEncoder().text(string(t.Desc.MediaType)).digest(t.Desc.Digest).int(t.Desc.Size)
	e = e.time(t.CheckedAt).time(t.ChangedAt).int(int64(len(t.History)))
	for _, b := range t.History {
		e = e.digest(b.Digest).time(b.FirstSeen).time(b.LastSeen)
	}
	return e
}

func decodeTag(v []byte) (Tag, error) {
	d := newDecoder(v)
	t := Tag{Desc: v1.Descriptor{MediaType: types.MediaType(d.text()), Digest: d.digest(), Size: d.int()}}
	t.CheckedAt, t.ChangedAt = d.time(), d.time()
	n := d.int()
	if n < 0 || n > maxHistory {
		return Tag{}, errRecord
	}
	for range n {
		t.History = append(t.History, Binding{Digest: d.digest(), FirstSeen: d.time(), LastSeen: d.time()})
	}
	return t, d.done()
}

// next returns the record of a tag of which the upstream said desc at a time. old is the
// record so far, if there is one.
func (t Tag) next(old Tag, known bool) Tag {
	desc := v1.Descriptor{MediaType: t.Desc.MediaType, Digest: t.Desc.Digest, Size: t.Desc.Size}
	n := Tag{Desc: desc, CheckedAt: t.CheckedAt, ChangedAt: t.CheckedAt}
	if !known {
		return n
	}
	if old.Desc.Digest == desc.Digest {
		n.ChangedAt, n.History = old.ChangedAt, old.History
		if old.CheckedAt.After(n.CheckedAt) {
			n.CheckedAt = old.CheckedAt
		}
		return n
	}
	was := Binding{Digest: old.Desc.Digest, FirstSeen: old.ChangedAt, LastSeen: old.CheckedAt}
	n.History = append([]Binding{was}, old.History...)
	n.History = n.History[:min(len(n.History), maxHistory)]
	return n
}

// repoRecord counts what a repository holds, so that listing repositories does not list links.
type repoRecord struct {
	manifests int64 // links of manifests
	blobs     int64 // links of blobs
	tags      int64
}

func (r repoRecord) encode() []byte {
	return newEncoder().int(r.manifests).int(r.blobs).int(r.tags)
}

func decodeRepo(v []byte) (repoRecord, error) {
	d := newDecoder(v)
	r := repoRecord{manifests: d.size(), blobs: d.size(), tags: d.size()}
	return r, d.done()
}

// totals counts everything. It changes in the same transaction as what it counts.
type totals struct {
	Totals
	live int64 // bytes of the journal lines that still count
	// mark is the place in the journal up to which the database has its lines. Lines behind it
	// were appended just before a crash.
	mark mark
}

// mark is a place in a journal.
type mark struct {
	run uint64 // which journal: drawn at random when the file was made
	off int64
}

func (t totals) encode() []byte {
	e := newEncoder().int(t.Blobs).int(t.Bytes).int(t.Links).int(t.Tags).int(t.Repositories)
	return e.int(t.live).int(int64(t.mark.run)).int(t.mark.off)
}

func decodeTotals(v []byte) (totals, error) {
	d := newDecoder(v)
	var t totals
	t.Blobs, t.Bytes, t.Links, t.Tags, t.Repositories = d.size(), d.size(), d.size(), d.size(), d.size()
	t.live = d.size()
	t.mark = mark{run: uint64(d.int()), off: d.size()}
	return t, d.done()
}

func encodeVersion(v int64) []byte { return newEncoder().int(v) }

func decodeVersion(v []byte) (int64, error) {
	d := newDecoder(v)
	n := d.size()
	return n, d.done()
}

// encoder is a record being written.
type encoder []byte

func newEncoder() encoder { return encoder{recordForm} }

func (e encoder) int(n int64) encoder { return binary.AppendVarint(e, n) }

func (e encoder) text(s string) encoder { return append(e.int(int64(len(s))), s...) }

func (e encoder) time(t time.Time) encoder {
	if t.IsZero() {
		return e.int(0)
	}
	return e.int(t.UnixMilli())
}

// digest writes an empty text for the zero digest and for one that cannot be: PutTag
// refuses both before they get here.
func (e encoder) digest(d v1.Hash) encoder {
	b, err := appendDigest(nil, d)
	if err != nil {
		b = nil
	}
	return append(e.int(int64(len(b))), b...)
}

// decoder reads a record. After the first fault everything reads as zero and done says so.
type decoder struct {
	b      []byte
	failed bool
}

func newDecoder(v []byte) *decoder {
	if len(v) == 0 || v[0] != recordForm {
		return &decoder{failed: true}
	}
	return &decoder{b: v[1:]}
}

func (d *decoder) fail() { d.b, d.failed = nil, true }

// done reports whether the record was read to its end and no further.
func (d *decoder) done() error {
	if d.failed || len(d.b) > 0 {
		return errRecord
	}
	return nil
}

func (d *decoder) int() int64 {
	n, used := binary.Varint(d.b)
	if used <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[used:]
	return n
}

// size reads a number that cannot be negative.
func (d *decoder) size() int64 {
	n := d.int()
	if n < 0 {
		d.fail()
		return 0
	}
	return n
}

func (d *decoder) bytes() []byte {
	n := d.int()
	if n < 0 || n > int64(len(d.b)) {
		d.fail()
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) text() string { return string(d.bytes()) }

func (d *decoder) time() time.Time {
	ms := d.int()
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

func (d *decoder) digest() v1.Hash {
	h, rest, err := cutDigest(d.bytes())
	if err != nil || len(rest) > 0 {
		d.fail()
	}
	return h
}
