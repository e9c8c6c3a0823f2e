package row

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Every record begins with the version of its own form, so that fields can be added to
// one without touching the others. Then follow its fields: numbers as varints, texts and
// digests with their length before them. A record is decoded whole or not at all.
const recordForm = 1

var (
	// ErrRecord: a record is damaged.
	ErrRecord = errors.New("record cannot be decoded")
	// ErrNewer: a newer version of the program wrote it.
	ErrNewer = errors.New("index was written by a newer version")
	// ErrTooBig: a document is larger than can be kept.
	ErrTooBig = errors.New("too big for the index")
)

// BlobInfo is what is known about committed content, manifests included.
type BlobInfo struct {
	Size  int64 // bytes
	Added time.Time
}

// Encode returns the record.
func (b BlobInfo) Encode() []byte { return newEncoder().int(b.Size).time(b.Added) }

// DecodeBlob reads a record, or returns [ErrRecord].
func DecodeBlob(v []byte) (BlobInfo, error) {
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

// Encode returns the record.
func (l Link) Encode() []byte {
	return newEncoder().text(l.MediaType).int(l.Size).time(l.At)
}

// DecodeLink reads a record, or returns [ErrRecord].
func DecodeLink(v []byte) (Link, error) {
	d := newDecoder(v)
	l := Link{MediaType: d.text(), Size: d.int(), At: d.time()}
	return l, d.done()
}

// Over returns l, with what l leaves unknown taken from old, and with the time of old.
func (l Link) Over(old Link) Link {
	if l.MediaType == "" {
		l.MediaType = old.MediaType
	}
	if l.Size < 0 {
		l.Size = old.Size
	}
	l.At = old.At
	return l
}

// maxMediaType bounds what an upstream may call its content (RFC 6838 4.2: 127 for each half).
const maxMediaType = 1024

// CheckMediaType reports that a media type is too long to be kept.
func CheckMediaType(s string) error {
	if len(s) > maxMediaType {
		return fmt.Errorf("media type of %d bytes is too long", len(s))
	}
	return nil
}

// The bounds of the former bindings that are kept of a tag: those of HistoryDays, or more where there
// are few, and no more than MaxHistory, which take 16 KiB.
const (
	MaxHistory  = 200
	HistoryDays = 400
	fewBindings = 20
)

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
	History   []Binding     // former bindings, latest first, at most [MaxHistory]
}

// Encode returns the record.
func (t Tag) Encode() []byte {
	e := newEncoder().text(string(t.Desc.MediaType)).digest(t.Desc.Digest).int(t.Desc.Size)
	e = e.time(t.CheckedAt).time(t.ChangedAt).int(int64(len(t.History)))
	for _, b := range t.History {
		e = e.digest(b.Digest).time(b.FirstSeen).time(b.LastSeen)
	}
	return e
}

// DecodeTag reads a record, or returns [ErrRecord].
func DecodeTag(v []byte) (Tag, error) {
	d := newDecoder(v)
	t := Tag{Desc: v1.Descriptor{MediaType: types.MediaType(d.text()), Digest: d.digest(), Size: d.int()}}
	t.CheckedAt, t.ChangedAt = d.time(), d.time()
	n := d.int()
	if n < 0 || n > MaxHistory {
		return Tag{}, ErrRecord
	}
	for range n {
		t.History = append(t.History, Binding{Digest: d.digest(), FirstSeen: d.time(), LastSeen: d.time()})
	}
	return t, d.done()
}

// Next returns the record of a tag of which the upstream said desc at a time. old is the
// record so far, if there is one. t.ChangedAt counts if somebody else has seen it earlier.
func (t Tag) Next(old Tag, known bool) Tag {
	desc := v1.Descriptor{MediaType: t.Desc.MediaType, Digest: t.Desc.Digest, Size: t.Desc.Size}
	n := Tag{Desc: desc, CheckedAt: t.CheckedAt, ChangedAt: t.CheckedAt}
	if !t.ChangedAt.IsZero() && t.ChangedAt.Before(t.CheckedAt) {
		n.ChangedAt = t.ChangedAt
	}
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
	n.History = append([]Binding{was}, slices.DeleteFunc(slices.Clone(old.History), func(b Binding) bool {
		return b.Digest == was.Digest && b.FirstSeen.Equal(was.FirstSeen)
	})...)
	n.History = n.History[:min(len(n.History), MaxHistory)]
	for before := t.CheckedAt.AddDate(0, 0, -HistoryDays); len(n.History) > fewBindings && n.History[len(n.History)-1].LastSeen.Before(before); {
		n.History = n.History[:len(n.History)-1]
	}
	return n
}

// With returns t with a former binding, in its place or in that of the same from the same time.
func (t Tag) With(b Binding) Tag {
	history := slices.Clone(t.History)
	same := func(one Binding) bool { return one.Digest == b.Digest && one.FirstSeen.Equal(b.FirstSeen) }
	if at := slices.IndexFunc(history, same); at >= 0 {
		history[at] = b
	} else {
		at := slices.IndexFunc(history, func(one Binding) bool { return !one.FirstSeen.After(b.FirstSeen) })
		if at < 0 {
			at = len(history)
		}
		history = slices.Insert(history, at, b)
	}
	t.History = history[:min(len(history), MaxHistory)]
	return t
}

// Decision is what an operator decided: a text under a name.
type Decision struct {
	Name, Text string
	At         time.Time
}

// Encode returns the record, which has no name.
func (d Decision) Encode() []byte { return newEncoder().text(d.Text).time(d.At) }

// DecodeDecision reads a record, or returns [ErrRecord].
func DecodeDecision(v []byte) (Decision, error) {
	d := newDecoder(v)
	one := Decision{Text: d.text(), At: d.time()}
	return one, d.done()
}

// MaxDecision bounds the text of a decision, so that it fits into a line of the journal however it is spelt there.
const MaxDecision = 4 << 10

// DecisionKey returns the key of a decision.
func DecisionKey(name string) ([]byte, error) {
	if err := CheckName("decision", name); err != nil {
		return nil, err
	}
	return append([]byte{PrefixDecision}, name...), nil
}

// Check reports why a decision cannot be kept.
func (d Decision) Check() error {
	if len(d.Text) > MaxDecision {
		return fmt.Errorf("decision %.80q of %d bytes: %w", d.Name, len(d.Text), ErrTooBig)
	}
	_, err := DecisionKey(d.Name)
	return err
}

// RepoRecord counts what a repository holds, so that listing repositories does not list links.
type RepoRecord struct {
	Manifests int64 // links of manifests
	Blobs     int64 // links of blobs
	Tags      int64
}

// Encode returns the record.
func (r RepoRecord) Encode() []byte {
	return newEncoder().int(r.Manifests).int(r.Blobs).int(r.Tags)
}

// DecodeRepo reads a record, or returns [ErrRecord].
func DecodeRepo(v []byte) (RepoRecord, error) {
	d := newDecoder(v)
	r := RepoRecord{Manifests: d.size(), Blobs: d.size(), Tags: d.size()}
	return r, d.done()
}

// Totals is what the index counts.
type Totals struct {
	Blobs        int64 // blob records
	Bytes        int64 // their sizes
	Links        int64
	Tags         int64
	Repositories int64 // with at least one link or tag
}

// TotalsRecord counts everything. It changes in the same transaction as what it counts.
type TotalsRecord struct {
	Totals
	Live int64 // bytes of the journal lines that still count
	// Mark is the place in the journal up to which the database has its lines. Lines behind it
	// were appended just before a crash.
	Mark Mark
}

// Mark is a place in a journal.
type Mark struct {
	Run uint64 // which journal: drawn at random when the file was made
	Off int64
}

// Encode returns the record.
func (t TotalsRecord) Encode() []byte {
	e := newEncoder().int(t.Blobs).int(t.Bytes).int(t.Links).int(t.Tags).int(t.Repositories)
	return e.int(t.Live).int(int64(t.Mark.Run)).int(t.Mark.Off)
}

// DecodeTotals reads a record, or returns [ErrRecord].
func DecodeTotals(v []byte) (TotalsRecord, error) {
	d := newDecoder(v)
	var t TotalsRecord
	t.Blobs, t.Bytes, t.Links, t.Tags, t.Repositories = d.size(), d.size(), d.size(), d.size(), d.size()
	t.Live = d.size()
	t.Mark = Mark{Run: uint64(d.int()), Off: d.size()}
	return t, d.done()
}

// EncodeVersion returns the record of the schema version.
func EncodeVersion(v int64) []byte { return newEncoder().int(v) }

// DecodeVersion reads the record of the schema version.
func DecodeVersion(v []byte) (int64, error) {
	d := newDecoder(v)
	n := d.size()
	return n, d.done()
}

// Remote is what is known about content in the bucket behind the store. A record says
// that the object was there, whole, when somebody looked last.
type Remote struct {
	Size int64
	// Stamp is how old the object said it was: when it was put, or marked as needed.
	Stamp time.Time
	// Used is the last use, noted when the file on the disk was dropped.
	Used time.Time
}

// Encode returns the record.
func (r Remote) Encode() []byte { return newEncoder().int(r.Size).time(r.Stamp).time(r.Used) }

// DecodeRemote reads a record, or returns [ErrRecord].
func DecodeRemote(v []byte) (Remote, error) {
	d := newDecoder(v)
	r := Remote{Size: d.size(), Stamp: d.time(), Used: d.time()}
	return r, d.done()
}

// Upload is an upload in several parts that has begun and not ended.
type Upload struct {
	ID       string // what the bucket calls it
	PartSize int64
	At       time.Time // when it began
}

// Encode returns the record.
func (u Upload) Encode() []byte { return newEncoder().text(u.ID).int(u.PartSize).time(u.At) }

// DecodeUpload reads a record, or returns [ErrRecord].
func DecodeUpload(v []byte) (Upload, error) {
	d := newDecoder(v)
	u := Upload{ID: d.text(), PartSize: d.size(), At: d.time()}
	return u, d.done()
}

// Pin is the wish that an image is kept whole.
type Pin struct {
	Repo      Repo
	Ref       string   // tag, or digest
	Platforms []string // "linux/arm64"; none means those that are kept
	At        time.Time
}

// Encode returns the record, without what the key says.
func (p Pin) Encode() []byte {
	e := newEncoder().time(p.At).int(int64(len(p.Platforms)))
	for _, name := range p.Platforms {
		e = e.text(name)
	}
	return e
}

// MaxPlatforms bounds the platforms of a pin; no index is known that has more than 20.
const MaxPlatforms = 64

// DecodePin returns a pin without what its key says.
func DecodePin(v []byte) (Pin, error) {
	d := newDecoder(v)
	p := Pin{At: d.time()}
	n := d.int()
	if n < 0 || n > MaxPlatforms {
		return Pin{}, ErrRecord
	}
	for range n {
		p.Platforms = append(p.Platforms, d.text())
	}
	return p, d.done()
}

// Check reports why the platforms of a pin cannot be kept.
func (p Pin) Check() error {
	if len(p.Platforms) > MaxPlatforms {
		return fmt.Errorf("%d platforms are more than %d", len(p.Platforms), MaxPlatforms)
	}
	for _, name := range p.Platforms {
		if err := CheckName("platform", name); err != nil {
			return err
		}
		if strings.Contains(name, ",") {
			return fmt.Errorf("platform %.80q has a comma", name)
		}
	}
	return nil
}

// Use is the record of a last use: minutes since 1970 in four bytes, and a hint in one.
type Use struct {
	At   time.Time
	Hint uint8
}

// EncodeUse returns the record of a last use.
func EncodeUse(minutes uint32, hint uint8) []byte {
	return append(binary.BigEndian.AppendUint32(nil, minutes), hint)
}

// DecodeUse reads the record of a last use.
func DecodeUse(v []byte) (Use, error) {
	if len(v) != 5 {
		return Use{}, ErrRecord
	}
	return Use{At: FromMinutes(binary.BigEndian.Uint32(v)), Hint: v[4]}, nil
}

// DecodeMinutes reads the time of a last use.
func DecodeMinutes(v []byte) (time.Time, error) {
	u, err := DecodeUse(v)
	return u.At, err
}

// FromMinutes returns the time of so many minutes since 1970.
func FromMinutes(m uint32) time.Time { return time.Unix(int64(m)*60, 0) }

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
	b, err := AppendDigest(nil, d)
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
		return ErrRecord
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
	h, rest, err := CutDigest(d.bytes())
	if err != nil || len(rest) > 0 {
		d.fail()
	}
	return h
}
