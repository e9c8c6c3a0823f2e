// Package bundle reads and writes images in files, for sites without a network: an OCI image
// layout in a tar archive, with a manifest of its own that accounts for every byte. A bundle
// is whole, or has what another site lacks; it is one file or several; it may be signed.
//
// It promises that the same content makes the same bytes, and that it passes on nothing of an
// archive that does not have the digest of its name. It trusts no archive: every name, size,
// number and digest is checked or bounded. It knows no storage and no HTTP.
//
// docs/bundle-format.md describes the format.
package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/wire"
)

// manifestFormat names the form of a manifest. A change that older readers would get
// wrong gets another number.
const manifestFormat = "forebay-bundle/1"

// ErrFormat means that a file is not what it should be: damaged, hostile, or of another kind.
var ErrFormat = errors.New("not a sound bundle")

func faultf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrFormat, fmt.Errorf(format, args...))
}

// Blob is content: a manifest, a configuration or a layer.
type Blob struct {
	Digest wire.Digest `json:"digest"`
	Size   int64       `json:"size"` // bytes
}

// Image is one name that a bundle carries.
type Image struct {
	// Name is in full: "docker.io/library/nginx:1.27", or with "@sha256:…" for what has no tag.
	Name      string      `json:"name"`
	Digest    wire.Digest `json:"digest"`
	MediaType string      `json:"mediaType"`
	Size      int64       `json:"size"`                // of the manifest or index
	Platforms []string    `json:"platforms,omitempty"` // of an index: those that belong to the bundle
	Left      []string    `json:"left,omitempty"`      // of an index: those that do not
	// Confirmed is when the registry last said that the tag points to it, or when somebody wrote
	// down that it is to; zero for what has no tag, and while the bundle is not signed.
	Confirmed time.Time `json:"confirmed,omitzero"`
	// Since is when the tag was first seen to point to it, by the clock of the mirror that it comes
	// from; zero where Confirmed is, and where that is not known.
	Since time.Time `json:"since,omitzero"`
	// Decided is why the tag was promoted to it there; nil where Confirmed is zero, and where it was not.
	Decided *wire.Decision `json:"decided,omitempty"`
	// Refers says that it belongs to another image of the bundle, as a signature does.
	Refers bool `json:"refers,omitempty"`
}

// Manifest says what a bundle holds. It is a file of the archive and beside it.
type Manifest struct {
	Format string `json:"format"`
	// Made is when the bundle was made, by the clock of who signed it: its serial among those of
	// the key. Zero while it is not signed, so that the same content makes the same bytes.
	Made time.Time `json:"made,omitzero"`
	// Index is index.json of the archive, which binds the names in it to this manifest.
	Index  Blob    `json:"index"`
	Images []Image `json:"images"` // sorted by name
	// Blobs are in the archive, in its order.
	Blobs []Blob `json:"blobs"`
	// Assumed belong to the images and are not in the archive, since the other side has
	// them. Sorted by digest.
	Assumed []Blob `json:"assumed,omitempty"`
}

// Encode returns the text of a manifest: the same for the same manifest.
func (m *Manifest) Encode() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(m); err != nil {
		panic("bundle: manifest cannot be JSON: " + err.Error()) // it has nothing but texts and numbers
	}
	return b.Bytes()
}

// Has returns all content that a side has once it has imported the bundle.
func (m *Manifest) Has() []Blob { return slices.Concat(m.Blobs, m.Assumed) }

// Bounds of what is read into memory.
const (
	// ManifestMost bounds a manifest. An entry has some 120 bytes: it is enough for half a
	// million of them.
	ManifestMost = 64 << 20
	// imagesMost bounds the names of a bundle.
	imagesMost = 100_000
	// entriesMost bounds the files of an archive.
	entriesMost = 500_000
	// blobMost bounds one blob: the largest layers known have some 100 GB.
	blobMost = 1 << 42
)

// ReadManifest reads and checks a manifest. Every error is an [ErrFormat] or r's.
func ReadManifest(r io.Reader) (*Manifest, []byte, error) {
	text, err := readMost(r, ManifestMost)
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest of a bundle: %w", err)
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, nil, fmt.Errorf("read manifest of a bundle: %w", err)
	}
	return m, text, nil
}

// readMost reads all of r, which must not have more than most bytes.
func readMost(r io.Reader, most int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > most {
		return nil, faultf("more than %d bytes", most)
	}
	return b, nil
}

func parseManifest(text []byte) (*Manifest, error) {
	var m Manifest
	var form struct{ Format string }
	if err := json.Unmarshal(text, &form); err != nil {
		return nil, faultf("it is no JSON: %w", err)
	}
	switch {
	case form.Format == manifestFormat:
	case strings.HasPrefix(form.Format, "forebay-bundle/"):
		return nil, faultf("it has the form %.40q, which a newer forebay reads", form.Format)
	default:
		return nil, faultf("it does not say that it is %s", manifestFormat)
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, faultf("%w", err)
	}
	return &m, m.check()
}

func (m *Manifest) check() error {
	if err := m.Index.check(); err != nil {
		return faultf("index: %w", err)
	}
	if len(m.Images) > imagesMost {
		return faultf("%d images are more than %d", len(m.Images), imagesMost)
	}
	if len(m.Blobs)+len(m.Assumed) > entriesMost {
		return faultf("%d things are more than %d", len(m.Blobs)+len(m.Assumed), entriesMost)
	}
	known := make(map[v1.Hash]int64, len(m.Blobs)+len(m.Assumed))
	for _, b := range m.Has() {
		if err := b.check(); err != nil {
			return err
		}
		if _, twice := known[b.Digest.Hash]; twice {
			return faultf("it has %s twice", b.Digest)
		}
		known[b.Digest.Hash] = b.Size
	}
	names := make(map[string]bool, len(m.Images))
	for _, i := range m.Images {
		if err := i.check(); err != nil {
			return err
		}
		if names[i.Name] {
			return faultf("it names %s twice", i.Name)
		}
		names[i.Name] = true
		if size, ok := known[i.Digest.Hash]; !ok || size != i.Size {
			return faultf("image %s is not among its content", i.Name)
		}
	}
	return nil
}

func (b Blob) check() error {
	if _, err := wire.ParseDigest(b.Digest.String()); err != nil {
		return faultf("%w", err)
	}
	if b.Size < 0 || b.Size > blobMost {
		return faultf("%s is said to have %d bytes", b.Digest, b.Size)
	}
	return nil
}

// nameMost bounds a name: a registry, a repository of 255, a tag of 128 or a digest.
const nameMost = 1024

func (i Image) check() error {
	if i.Name == "" || len(i.Name) > nameMost || strings.ContainsFunc(i.Name, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return faultf("%.80q is no name of an image", i.Name)
	}
	if len(i.MediaType) > 255 {
		return faultf("the media type of %s has %d bytes", i.Name, len(i.MediaType))
	}
	if err := (Blob{i.Digest, i.Size}).check(); err != nil {
		return faultf("image %s: %w", i.Name, err)
	}
	if err := i.Decided.Check(); err != nil {
		return faultf("image %s: %w", i.Name, err)
	}
	if i.Size > docMost {
		return faultf("the manifest of %s is said to have %d bytes", i.Name, i.Size)
	}
	return nil
}
