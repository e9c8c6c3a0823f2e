package bundle

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/wire"
)

// Target takes what an archive holds.
type Target interface {
	// Begin is called once, before anything else. images are those of a bundle of ours; of
	// other archives they are known when all is read, and nil. proof is what one of
	// [Unpacking.Keys] has signed; nil without keys.
	Begin(ctx context.Context, images []Image, proof *Proof) error
	// Lacks returns those of the blobs that have to be brought, and makes sure that the
	// others stay.
	Lacks(ctx context.Context, blobs []Blob) ([]Blob, error)
	// TakeIn keeps the bytes of r as b once they have its digest and its size, which must
	// be checked, also when they are there already: had tells of that.
	TakeIn(ctx context.Context, b Blob, r io.Reader) (had bool, err error)
	// TakeUnnamed is TakeIn for size bytes whose digest is not known, and tells that by sha256.
	TakeUnnamed(ctx context.Context, size int64, r io.Reader) (d v1.Hash, had bool, err error)
}

// Progress says how far the reading of an archive is.
type Progress struct {
	Bytes, BytesTotal int64 // of content; the total is 0 while it is not known
	Items, ItemsTotal int64
}

// Unpacking says how an archive is to be read. Target is required.
type Unpacking struct {
	Target Target
	// Keys are those of which one must have signed the bundle; none asks for no signature.
	Keys []ed25519.PublicKey
	// Signature is the one beside the bundle; nil when there is none or it is in it.
	Signature []byte
	// As names the image of an archive that has one without a name.
	As string
	// Names is asked about the images as soon as they are known; its error ends the
	// reading. With a bundle of ours that is before any content is taken in. It may be nil.
	Names func(ctx context.Context, images []Image) error
	// Progress is told now and then. It may be nil.
	Progress func(Progress)
}

// Unpacked says what an archive held.
type Unpacked struct {
	Kind     string    // what made it, for people
	Images   []Image   // what to link, each after what it refers to
	Manifest *Manifest // nil unless it is a bundle of ours
	Signed   bool      // by one of the keys
	Taken    int64     // things that were taken in
	Bytes    int64     // of these
	Had      int64     // things that were there before, brought once more or not
	// Notes tell what is not as somebody may expect.
	Notes []string
}

// Bounds of what is read into memory.
const (
	docMost    = 4 << 20  // a manifest, see the registries' own limit
	indexMost  = 64 << 20 // index.json
	layoutMost = 64 << 10
	heldMost   = 64 << 20 // documents of an archive of docker save, together
)

// Unpack reads an archive, hands its content to the target and returns what it is: a
// bundle of ours, an OCI image layout of any tool, or what docker save writes, compressed
// or not. r is read once, and best can seek, which spares what the target has already.
// Nothing is to be linked when it returns an error.
func Unpack(ctx context.Context, r io.Reader, u Unpacking) (*Unpacked, error) {
	w, done, err := newTarWalk(r)
	if err != nil {
		return nil, err
	}
	defer done()
	out, err := unpack(ctx, w, u)
	if err == nil && w.tail() {
		out.Notes = append(out.Notes, "passed over: what follows the end of the archive. Of archives that were put together by cat only the first is read")
	}
	return out, err
}

// UnpackDir is Unpack for an OCI image layout in a folder.
func UnpackDir(ctx context.Context, dir string, u Unpacking) (*Unpacked, error) {
	w, done, err := newDirWalk(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer done()
	return unpack(ctx, w, u)
}

func unpack(ctx context.Context, w walk, u Unpacking) (*Unpacked, error) {
	s := &unpacking{Unpacking: u, ctx: ctx, files: map[string]stored{}, docs: map[v1.Hash][]byte{}, passed: map[string]int{}}
	for {
		f, err := w.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = s.file(f)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := s.finish(); err != nil {
		return nil, err
	}
	return &s.out, nil
}

// unpacking is one run of Unpack.
type unpacking struct {
	Unpacking
	ctx context.Context // of the one run
	out Unpacked
	at  Progress

	text      []byte // of our manifest
	started   bool   // with the content
	listed    set    // our manifest's blobs
	lacking   set    // of these, those that have to be brought
	left      set    // of these, those that have not come
	signature []byte // in the archive
	index     []byte
	docker    []byte
	hasLayout bool

	// Of archives of others: files by name, and documents by digest.
	files map[string]stored
	docs  map[v1.Hash][]byte
	held  int64

	passed map[string]int // files that were passed over, by what is wrong with them
}

// stored is a file that was taken in.
type stored struct {
	blob Blob
	kind compression
	// plain is the digest of what is compressed in it; "" if nothing is, or if its name has its digest
	plain string
	link  string // of a link: the name of the file
}

func (s *unpacking) file(f *file) (err error) {
	if leftBehind(f.name) {
		s.passed["that some tool has left"]++
		return nil
	}
	if f.odd && s.out.Manifest == nil {
		s.passed["that are links or devices"]++
		return nil
	}
	if (f.link != "" || f.odd) && s.out.Manifest != nil {
		return faultf("%q is a link, which no bundle has", f.name)
	}
	if f.link != "" && path.Base(f.name) != "layer.tar" {
		if f, err = s.resolve(f); f == nil {
			return err
		}
	}
	switch f.name {
	case layoutName:
		return s.layout(f)
	case ownName:
		return s.manifest(f)
	case signatureName:
		if s.started {
			return faultf("%s comes after content", f.name)
		}
		s.signature, err = s.again(f, s.signature, signatureMost)
		s.Signature = s.signature
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	switch f.name {
	case indexName:
		s.index, err = s.again(f, s.index, indexMost)
		if err == nil && s.out.Manifest != nil && blobOf(s.index) != s.out.Manifest.Index {
			return faultf("%s is not the one that the manifest is about", f.name)
		}
		return err
	case dockerName:
		s.docker, err = s.again(f, s.docker, indexMost)
		return err
	}
	if strings.HasPrefix(f.name, blobsDir+"/") {
		return s.blob(f)
	}
	if s.out.Manifest != nil {
		return faultf("%q has no place in a bundle", f.name)
	}
	return s.other(f)
}

// again reads a file that is kept in memory. An archive may have it twice, as tar -r makes them,
// but not as two different things.
func (s *unpacking) again(f *file, before []byte, most int64) ([]byte, error) {
	b, err := s.small(f, most)
	if err == nil && before != nil && !bytes.Equal(before, b) {
		err = errTwice(f)
	}
	return b, err
}

func errTwice(f *file) error { return faultf("it has %q twice, and not the same", f.name) }

// resolve returns the file that a hard link stands for, under the name of the link, with its bytes
// if they are in memory; nil for one that is done with.
func (s *unpacking) resolve(f *file) (*file, error) {
	to, err := s.stored(f.link)
	if err != nil { // it may be one that nobody asks for
		s.files[f.name] = stored{link: f.link}
		if _, blob := blobOfName(f.name); !blob {
			return nil, nil // who asks for it is told
		}
		return nil, faultf("%q is a link to %q, which does not come before it", f.name, f.link)
	}
	if d, blob := blobOfName(f.name); blob {
		if to.blob.Digest.Hash != d {
			return nil, faultf("%q is a link to %q, which has the digest %s", f.name, f.link, to.blob.Digest)
		}
		s.files[f.name] = to
		return nil, nil // it was brought under its first name
	}
	if text, ok := s.docs[to.blob.Digest.Hash]; ok {
		return &file{name: f.name, size: to.blob.Size, r: bytes.NewReader(text)}, nil
	}
	s.files[f.name] = to
	return nil, nil
}

// small reads a file that is kept in memory.
func (s *unpacking) small(f *file, most int64) ([]byte, error) {
	if f.r == nil || f.size > most {
		return nil, faultf("%q has %d bytes, at most %d are read", f.name, f.size, most)
	}
	b, err := io.ReadAll(io.LimitReader(f.r, f.size))
	if err != nil {
		return nil, readError(f, err)
	}
	return b, nil
}

// readError says that an archive ends in the middle of a file.
func readError(f *file, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return faultf("it ends within %q: %w", f.name, io.ErrUnexpectedEOF)
	}
	return fmt.Errorf("%s: %w", f.name, err)
}

func (s *unpacking) layout(f *file) error {
	b, err := s.small(f, layoutMost)
	if err != nil {
		return err
	}
	var l struct {
		Version string `json:"imageLayoutVersion"`
	}
	if json.Unmarshal(b, &l) != nil || !strings.HasPrefix(l.Version, "1.") {
		return faultf("%s is of version %.40q, want 1.0.0", f.name, l.Version)
	}
	s.hasLayout = true
	return nil
}

// manifest reads the manifest of a bundle of ours, which comes before everything that it
// is about.
func (s *unpacking) manifest(f *file) error {
	b, err := s.again(f, s.text, ManifestMost)
	if err != nil || s.text != nil {
		return err
	}
	if s.started {
		return faultf("%s comes after content", f.name)
	}
	m, err := parseManifest(b)
	if err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	s.text, s.out.Manifest = b, m
	return nil
}

// start is called before the first content: then a signature must have been right.
func (s *unpacking) start() error {
	if s.started {
		return nil
	}
	s.started = true
	m := s.out.Manifest
	var proof *Proof
	if len(s.Keys) > 0 {
		var err error
		if proof, err = s.trust(); err != nil {
			return err
		}
	}
	if m == nil {
		return s.Target.Begin(s.ctx, nil, nil)
	}
	if err := s.names(m.Images); err != nil {
		return err
	}
	if err := s.Target.Begin(s.ctx, m.Images, proof); err != nil {
		return err
	}
	lacking, err := s.Target.Lacks(s.ctx, m.Blobs)
	if err != nil {
		return err
	}
	s.listed, s.lacking, s.left = setOf(m.Blobs), setOf(lacking), setOf(m.Blobs)
	s.at.ItemsTotal = int64(len(m.Blobs))
	for _, b := range m.Blobs {
		s.at.BytesTotal += b.Size
	}
	return nil
}

// trust returns what one of the keys has signed.
func (s *unpacking) trust() (*Proof, error) {
	switch {
	case s.out.Manifest == nil:
		return nil, fmt.Errorf("%w: it is no bundle of forebay, and only those are signed", ErrSignature)
	case s.Signature == nil:
		return nil, fmt.Errorf("%w: it has none", ErrSignature)
	}
	proof := Proof{Text: s.text, Signature: s.Signature, Keys: s.Keys}
	key, err := proof.Check()
	if err != nil {
		return nil, err
	}
	proof.Keys = []ed25519.PublicKey{key}
	s.out.Signed = true
	if s.out.Manifest.Made.IsZero() {
		s.out.Notes = append(s.out.Notes, "an earlier version signed it without the time, so that nothing tells it from an older one")
	}
	return &proof, nil
}

func (s *unpacking) names(images []Image) error {
	if s.Names == nil {
		return nil
	}
	return s.Names(s.ctx, images)
}

// blob takes in a file that is named by its digest.
func (s *unpacking) blob(f *file) error {
	d, ok := blobOfName(f.name)
	if !ok && s.out.Manifest == nil && layerName(f.name) {
		return s.other(f)
	}
	if !ok {
		s.passed["below "+blobsDir+"/ that no digest names"]++
		return nil
	}
	b := Blob{wire.Digest{Hash: d}, f.size}
	if s.out.Manifest == nil {
		return s.foreign(f, b)
	}
	size, listed := s.listed[d]
	if !listed {
		return faultf("%q is not in the manifest", f.name)
	}
	if size != f.size {
		return faultf("%q has %d bytes, and the manifest says %d", f.name, f.size, size)
	}
	delete(s.left, d)
	if _, wanted := s.lacking[d]; !wanted {
		s.skip(b)
		return nil
	}
	return s.take(f, b, f.r)
}

// skip counts what is there already.
func (s *unpacking) skip(b Blob) {
	s.out.Had++
	s.at.Items++
	s.at.Bytes += b.Size
	s.tell()
}

func (s *unpacking) tell() {
	if s.Progress != nil {
		s.Progress(s.at)
	}
}

// take hands the bytes of a file to the target.
func (s *unpacking) take(f *file, b Blob, r io.Reader) error {
	return s.brought(f, b.Size, r, func(r io.Reader) (bool, error) { return s.Target.TakeIn(s.ctx, b, r) })
}

// brought has the size bytes of a file taken, and counts them.
func (s *unpacking) brought(f *file, size int64, r io.Reader, take func(io.Reader) (had bool, err error)) error {
	in := &tellReader{s: s, r: r}
	had, err := take(in)
	if err != nil {
		if in.err != nil { // what the target makes of that says less
			return readError(f, in.err)
		}
		return fmt.Errorf("%s: %w", f.name, err)
	}
	if had {
		s.out.Had++
	} else {
		s.out.Taken++
		s.out.Bytes += size
	}
	s.at.Items++
	s.at.Bytes += size - in.n
	s.tell()
	return nil
}

// tellReader tells of the bytes that are read, and remembers why they ended.
type tellReader struct {
	s   *unpacking
	r   io.Reader
	n   int64
	err error
}

func (t *tellReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.n += int64(n)
	t.s.at.Bytes += int64(n)
	t.s.tell()
	if err != nil && !errors.Is(err, io.EOF) {
		t.err = err
	}
	return n, err
}

// foreign takes in a blob of an archive that another tool made.
func (s *unpacking) foreign(f *file, b Blob) error {
	in := f.r
	head := make([]byte, min(f.size, 4))
	if _, err := io.ReadFull(in, head); err != nil {
		return readError(f, err)
	}
	kind := kindOf(head)
	in = io.MultiReader(bytes.NewReader(head), in)
	if f.size <= docMost && bytes.HasPrefix(head, []byte("{")) && s.held+f.size <= heldMost {
		text, err := io.ReadAll(in)
		if err != nil {
			return readError(f, err)
		}
		s.docs[b.Digest.Hash] = text
		s.held += f.size
		in = bytes.NewReader(text)
	}
	s.files[f.name] = stored{blob: b, kind: kind}
	return s.take(f, b, in)
}

// finish works out the images once everything was read.
func (s *unpacking) finish() error {
	if err := s.start(); err != nil { // of an archive with nothing in it
		return err
	}
	for _, what := range slices.Sorted(maps.Keys(s.passed)) {
		s.out.Notes = append(s.out.Notes, fmt.Sprintf("passed over: %d of its files %s", s.passed[what], what))
	}
	m := s.out.Manifest
	switch {
	case m != nil:
		s.out.Kind = "forebay bundle"
		if s.index == nil {
			return faultf("it has no %s", indexName)
		}
		if len(s.left) > 0 {
			return faultf("it ends without %d of its %d things", len(s.left), len(m.Blobs))
		}
		s.out.Images = m.Images
		if !s.out.Signed { // whoever carried it may have written anything
			for i := range m.Images {
				m.Images[i].Since, m.Images[i].Decided = time.Time{}, nil
			}
		}
		return nil
	case s.index != nil && s.hasLayout:
		images, err := s.layoutImages()
		if err != nil {
			return err
		}
		if len(images) > 0 {
			s.out.Kind = "OCI image layout"
			return s.found(images)
		}
	}
	if s.docker != nil {
		s.out.Kind = "archive of docker save"
		images, err := s.dockerImages()
		if err != nil {
			return err
		}
		return s.found(images)
	}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		if dir, base := path.Split(name); dir != "" && (base == layoutName || base == dockerName) {
			return faultf("what it holds is in its folder %.200q: unpack it, and name that folder, or pack anew what is in the folder", dir)
		}
	}
	return faultf("it is neither an OCI image layout nor an archive of docker save: it has no %s with %s, and no %s", indexName, layoutName, dockerName)
}
