package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/sums"
	"forebay/internal/wire"
)

// Names of files in an archive.
const (
	layoutName    = "oci-layout"
	indexName     = "index.json"
	dockerName    = "manifest.json" // of docker save
	ownName       = "forebay/manifest.json"
	signatureName = "forebay/manifest.json.sig"
	blobsDir      = "blobs"

	layoutText = `{"imageLayoutVersion":"1.0.0"}`

	// Annotations of descriptors in index.json: the one of OCI's layout, which skopeo,
	// podman and crane read, and containerd's, which docker reads, too.
	refNameAnnotation   = "org.opencontainers.image.ref.name"
	imageNameAnnotation = "io.containerd.image.name"
)

// Source gives content by its digest.
type Source interface {
	// Open returns the bytes of content; they may be others than the digest says. An
	// [os.File] is copied by the kernel. The caller closes it.
	Open(ctx context.Context, d v1.Hash) (io.ReadCloser, error)
}

// Packing says what an archive is to hold.
type Packing struct {
	Images []Image
	// Manifests are those in the archive that refer to others. They come first, so that a
	// reader knows what to expect. Blobs are the rest.
	Manifests, Blobs []Blob
	Assumed          []Blob // not carried
	// Sign makes a signature over the text of the manifest; nil for none. Made and the times of
	// confirmation of the images are written for it only.
	Sign func(text []byte) ([]byte, error)
	Made time.Time
	// Docker is manifest.json as docker save writes it; empty for none.
	Docker []byte
}

// Archive is a tar archive every byte of which is determined by its content before it is
// written: it has no times and no owners, and its order is that of digests.
type Archive struct {
	Manifest  []byte  // text of the manifest
	Signature []byte  // of the manifest; nil without one
	Digest    v1.Hash // of Manifest
	Size      int64   // bytes of the whole archive
	Bytes     int64   // of these, content
	entries   []entry
}

// entry is a file of the archive: of bytes at hand, or of content.
type entry struct {
	name   string
	inline []byte
	blob   Blob // when there is no inline
	isBlob bool
}

func (e entry) size() int64 {
	if e.isBlob {
		return e.blob.Size
	}
	return int64(len(e.inline))
}

// New lays out an archive.
func New(p Packing) (*Archive, error) {
	index, err := indexOf(p.Images)
	if err != nil {
		return nil, err
	}
	m := Manifest{Format: manifestFormat, Index: blobOf(index), Images: slices.Clone(p.Images)}
	if p.Sign != nil {
		m.Made = p.Made.UTC()
	}
	for i := range m.Images {
		m.Images[i].Confirmed = m.Images[i].confirmed(p)
		if m.Images[i].Since = m.Images[i].Since.UTC(); m.Images[i].Confirmed.IsZero() {
			m.Images[i].Since, m.Images[i].Decided = time.Time{}, nil
		}
	}
	slices.SortFunc(m.Images, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	for _, list := range [][]Blob{p.Manifests, p.Blobs} {
		m.Blobs = append(m.Blobs, sorted(list)...)
	}
	if m.Blobs == nil {
		m.Blobs = []Blob{}
	}
	m.Assumed = sorted(p.Assumed)
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("lay out bundle: %w", err)
	}
	a := &Archive{Manifest: m.Encode()}
	a.Digest = blobOf(a.Manifest).Digest.Hash
	a.add(layoutName, []byte(layoutText))
	a.add(ownName, a.Manifest)
	if p.Sign != nil {
		if a.Signature, err = p.Sign(a.Manifest); err != nil {
			return nil, err
		}
		a.add(signatureName, a.Signature)
	}
	a.add(indexName, index)
	if len(p.Docker) > 0 {
		a.add(dockerName, p.Docker)
	}
	for _, b := range m.Blobs {
		a.entries = append(a.entries, entry{name: blobName(b.Digest.Hash), blob: b, isBlob: true})
		a.Bytes += b.Size
	}
	for _, e := range a.entries {
		head, err := header(e)
		if err != nil {
			return nil, err
		}
		a.Size += int64(len(head)) + padded(e.size())
	}
	a.Size += endSize
	return a, nil
}

// Redated returns a packing with the times of a bundle that was begun before: what a registry
// said then of a tag that has not moved is as true.
func (m *Manifest) Redated(p Packing) Packing {
	p.Made, p.Images = m.Made, slices.Clone(p.Images)
	then := make(map[string]Image, len(m.Images))
	for _, i := range m.Images {
		then[i.Name] = i
	}
	for i := range p.Images {
		now := &p.Images[i]
		was := then[now.Name]
		if was.Digest == now.Digest && (now.Confirmed.IsZero() || was.Confirmed.Before(now.Confirmed)) {
			now.Confirmed = was.Confirmed
		}
	}
	return p
}

// confirmed returns when a tag was confirmed that is signed for: if nobody knows, as of an image
// that a lock file names, it is the maker of the bundle who says so.
func (i Image) confirmed(p Packing) time.Time {
	switch {
	case p.Sign == nil || strings.Contains(i.Name, "@"):
		return time.Time{}
	case i.Confirmed.IsZero():
		return p.Made.UTC()
	}
	return i.Confirmed.UTC()
}

func (a *Archive) add(name string, b []byte) {
	a.entries = append(a.entries, entry{name: name, inline: b})
}

func sorted(blobs []Blob) []Blob {
	all := slices.Clone(blobs)
	slices.SortFunc(all, byDigest)
	return all
}

func blobName(d v1.Hash) string { return path.Join(blobsDir, d.Algorithm, d.Hex) }

func blobOf(b []byte) Blob {
	h, err := sums.Hash("sha256")
	if err != nil {
		panic(err) // it is one of the two
	}
	_, _ = h.Write(b)
	return Blob{wire.Digest{Hash: v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", h.Sum(nil))}}, int64(len(b))}
}

// indexOf returns index.json for images. It is no image itself, so that referrers and
// images stand beside each other.
func indexOf(images []Image) ([]byte, error) {
	images = slices.Clone(images)
	slices.SortFunc(images, func(a, b Image) int { return strings.Compare(a.Name, b.Name) })
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, i := range images {
		index.Manifests = append(index.Manifests, v1.Descriptor{
			MediaType: types.MediaType(i.MediaType), Digest: i.Digest.Hash, Size: i.Size,
			Annotations: map[string]string{refNameAnnotation: i.Name, imageNameAnnotation: i.Name},
		})
	}
	return json.Marshal(index)
}

const (
	tarBlock = 512
	endSize  = 2 * tarBlock // two blocks of zeros (POSIX.1, pax "ustar interchange format")
)

func padded(n int64) int64 { return (n + tarBlock - 1) / tarBlock * tarBlock }

// header returns the header of an entry, in more than one block if its name or size is large.
func header(e entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: e.name, Size: e.size(), Mode: 0o644, ModTime: time.Unix(0, 0)})
	if err != nil {
		return nil, fmt.Errorf("lay out %s: %w", e.name, err)
	}
	return b.Bytes(), nil // without Close, which would add the end
}

// WriteTo writes the archive to w from an offset on. Content comes from src and is compared
// with its digest meanwhile. progress, if not nil, is called with the size of each piece that
// is written. If w and the source are files, the kernel copies.
func (a *Archive) WriteTo(ctx context.Context, w io.Writer, src Source, from int64, progress func(n int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	out := &writing{ctx: ctx, w: w, src: src, skip: from, progress: progress}
	for _, e := range a.entries {
		if err := out.entry(e); err != nil {
			return fmt.Errorf("write %s: %w", e.name, err)
		}
	}
	return out.bytes(make([]byte, endSize))
}

// writing is one run of WriteTo.
type writing struct {
	ctx      context.Context // of the one run
	w        io.Writer
	src      Source
	skip     int64 // bytes that are there already
	progress func(int64)
}

func (w *writing) entry(e entry) error {
	head, err := header(e)
	if err != nil {
		return err
	}
	if err := w.bytes(head); err != nil {
		return err
	}
	if !e.isBlob {
		err = w.bytes(e.inline)
	} else {
		err = w.blob(e.blob)
	}
	if err != nil {
		return err
	}
	return w.bytes(make([]byte, padded(e.size())-e.size()))
}

// bytes writes what of b is not there yet.
func (w *writing) bytes(b []byte) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if w.skip >= int64(len(b)) {
		w.skip -= int64(len(b))
		w.progress(int64(len(b)))
		return nil
	}
	w.progress(w.skip)
	b = b[w.skip:]
	w.skip = 0
	n, err := w.w.Write(b)
	w.progress(int64(n))
	return err
}

// blob writes the part of a blob that is not written yet. If there is one, the whole blob is
// compared with its digest: the part before may have come from another file.
func (w *writing) blob(b Blob) (err error) {
	if w.skip >= b.Size && w.skip > 0 {
		w.skip -= b.Size
		w.progress(b.Size)
		return nil
	}
	in, err := w.src.Open(w.ctx, b.Digest.Hash)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read from
	skip := w.skip
	w.skip = 0
	w.progress(skip)
	var got v1.Hash
	if f, ok := in.(*os.File); ok && takesFiles(w.w) {
		got, err = w.copyFile(f, b, skip)
	} else {
		got, err = w.copyStream(in, b, skip)
	}
	switch {
	case err != nil:
		return err
	case got != b.Digest.Hash:
		return &DamagedError{Digest: b.Digest.Hash, Got: got}
	}
	return nil
}

// DamagedError says that content from a source does not have its digest.
type DamagedError struct{ Digest, Got v1.Hash }

func (e *DamagedError) Error() string {
	return fmt.Sprintf("what is kept of %s is damaged, it has the digest %s", e.Digest, e.Got)
}

// takesFiles reports whether w lets the kernel copy from files.
func takesFiles(w io.Writer) bool {
	_, file := w.(*os.File)
	_, volumes := w.(*VolumeWriter)
	return file || volumes
}

// kernelPiece is how much the kernel copies at a time, between two looks at the context.
const kernelPiece = 8 << 20

// copyFile lets the kernel copy a file, and computes the digest meanwhile.
func (w *writing) copyFile(f *os.File, b Blob, skip int64) (v1.Hash, error) {
	sum, err := sums.New(b.Digest.Algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	defer sum.End()
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	hashed := make(chan error, 1)
	go func() { hashed <- readInto(ctx, sum, io.NewSectionReader(f, 0, b.Size+1), b.Size) }()
	if _, err = f.Seek(skip, io.SeekStart); err == nil {
		err = w.copyPieces(f, b.Size-skip)
	}
	if err != nil {
		cancel()
		return v1.Hash{}, errors.Join(err, ended(<-hashed))
	}
	if err := <-hashed; err != nil {
		return v1.Hash{}, err
	}
	return sum.Sum(), nil
}

// ended drops the error of a hash that ended only because the copy did.
func ended(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (w *writing) copyPieces(f *os.File, left int64) error {
	for left > 0 {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(w.w, f, min(left, kernelPiece))
		left -= n
		w.progress(n)
		if err != nil {
			return shortOf(err)
		}
		if out, ok := w.w.(*os.File); ok {
			if at, err := out.Seek(0, io.SeekCurrent); err == nil { // not a pipe
				writeBack(out, at-n, n)
			}
		}
	}
	return nil
}

// readInto hashes exactly size bytes of r.
func readInto(ctx context.Context, sum *sums.Beside, r io.Reader, size int64) error {
	for at := int64(0); at <= size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := sum.Buffer()
		n, err := io.ReadFull(r, p)
		at += int64(n)
		if at > size {
			return errors.New("it is longer than it was")
		}
		sum.Write(p[:n])
		switch {
		case err != nil && at == size && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
			return nil
		case err != nil:
			return shortOf(err)
		}
	}
	return nil
}

func shortOf(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("it is shorter than it was: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// copyStream copies what is no file.
func (w *writing) copyStream(in io.Reader, b Blob, skip int64) (v1.Hash, error) {
	sum, err := sums.New(b.Digest.Algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	defer sum.End()
	for at := int64(0); at < b.Size; {
		if err := w.ctx.Err(); err != nil {
			return v1.Hash{}, err
		}
		p := sum.Buffer()
		n, err := io.ReadFull(in, p[:min(int64(len(p)), b.Size-at)])
		if err != nil {
			return v1.Hash{}, shortOf(err)
		}
		sum.Write(p[:n])
		if past := min(max(skip-at, 0), int64(n)); past < int64(n) {
			m, err := w.w.Write(p[past:n])
			w.progress(int64(m))
			if err != nil {
				return v1.Hash{}, err
			}
		}
		at += int64(n)
	}
	return sum.Sum(), nil
}
