package imageset

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"forebay/internal/wire"
)

// LockVersion is the version of lock files that is written. Others are refused.
const LockVersion = 1

const lockVersionKey = "forebay_lock"

// LockFile says what tags point to, so that two sites have the same bytes. The digest of an
// index determines those of its platforms; these are listed for people and programs.
type LockFile struct {
	Version int           `json:"forebay_lock"`
	Images  []LockedImage `json:"images"` // sorted by Ref, each once
}

// LockedImage is one image of a lock file.
type LockedImage struct {
	Ref       string      `json:"ref"`    // canonical, with a tag unless it was asked for by digest
	Digest    wire.Digest `json:"digest"` // of the index or manifest
	MediaType string      `json:"media_type"`
	Size      int64       `json:"size"` // of the index or manifest in bytes
	// Since is when the tag was first seen to have it, and Decided why it was promoted; where no
	// rule is about the tag there are neither.
	Since   time.Time      `json:"since,omitzero"`
	Decided *wire.Decision `json:"decided,omitempty"`
	// Platforms are the images of an index, in its order; none when they are not known.
	Platforms []LockedPlatform `json:"platforms,omitempty"`
}

// LockedPlatform is the image of one platform.
type LockedPlatform struct {
	Platform string      `json:"platform"`
	Digest   wire.Digest `json:"digest"`
	Size     int64       `json:"size"`
}

// Encode returns the bytes of the file. The same images make the same bytes.
func (f LockFile) Encode() ([]byte, error) {
	f.Version = LockVersion
	f.Images = slices.Clone(f.Images)
	slices.SortFunc(f.Images, func(a, b LockedImage) int { return strings.Compare(a.Ref, b.Ref) })
	f.Images = slices.CompactFunc(f.Images, func(a, b LockedImage) bool { return a.Ref == b.Ref })
	if f.Images == nil {
		f.Images = []LockedImage{}
	}
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}

// DecodeLock reads a lock file. The error tells the line.
func DecodeLock(text []byte) (LockFile, error) {
	var f LockFile
	decoder := json.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&f); err != nil {
		return f, jsonFault(text, decoder, err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return f, fmt.Errorf("line %d: something follows the end of the lock file", lineOf(text, decoder.InputOffset()))
	}
	if f.Version != LockVersion {
		return f, fmt.Errorf("line 1: version %d of lock files is not understood, only %d: use the forebay that wrote it", f.Version, LockVersion)
	}
	return f, nil
}

func jsonFault(text []byte, decoder *json.Decoder, err error) error {
	offset := decoder.InputOffset()
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		offset = kind.Offset
	}
	return fmt.Errorf("line %d: %w", lineOf(text, offset), err)
}

func lineOf(text []byte, offset int64) int {
	offset = min(max(offset, 0), int64(len(text)))
	return bytes.Count(text[:offset], []byte("\n")) + 1
}

// lock reads the images of a lock file.
func (r *reader) lock(text []byte) {
	f, err := DecodeLock(text)
	if err != nil {
		r.fault(0, err)
		return
	}
	at := finder{text: text}
	for _, image := range f.Images {
		line := at.line(image.Ref)
		ref, err := r.o.Registries.Reference(image.Ref)
		if err == nil && ref.HasDigest() && ref.Digest != image.Digest.Hash {
			err = fmt.Errorf("%s is locked to another digest than its own", clip(image.Ref))
		}
		if err == nil {
			_, err = wire.ParseDigest(image.Digest.String())
		}
		if err == nil {
			err = image.Decided.Check()
		}
		if err == nil && image.Digest == (wire.Digest{}) {
			err = fmt.Errorf("%s has no digest", clip(image.Ref))
		}
		if err != nil {
			r.fault(line, err)
			continue
		}
		if !ref.HasDigest() && ref.Tag == "" {
			ref.Tag = latest
		}
		ref.Digest = image.Digest.Hash
		r.put(Entry{Ref: ref, Since: image.Since, Decided: image.Decided, At: Position{r.name, line}})
	}
}

// finder finds the lines of texts that come in the order of a file.
type finder struct {
	text  []byte
	from  int
	lines int
}

func (f *finder) line(s string) int {
	quoted, err := json.Marshal(s)
	if err != nil {
		return 0
	}
	i := bytes.Index(f.text[f.from:], quoted)
	if i < 0 {
		return f.lines + 1
	}
	f.lines += bytes.Count(f.text[f.from:f.from+i], []byte("\n"))
	f.from += i
	return f.lines + 1
}

// WantedList is what was asked for and was not there.
type WantedList struct {
	Wanted []WantedImage `json:"wanted"` // sorted by Ref
}

// WantedImage is one thing that was asked for while its registry was not to be contacted.
type WantedImage struct {
	// Ref is an image, by tag or by digest. With Blob the digest is that of a blob which no kept
	// image is known to need.
	Ref   string    `json:"ref"`
	Blob  bool      `json:"blob,omitempty"`
	Count int64     `json:"count"` // how often it was asked for
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// wanted reads a wanted list.
func (r *reader) wanted(text []byte) {
	var list WantedList
	decoder := json.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(&list); err != nil {
		r.fault(0, jsonFault(text, decoder, err))
		return
	}
	at := finder{text: text}
	for _, w := range list.Wanted {
		line := at.line(w.Ref)
		ref, err := r.o.Registries.Reference(w.Ref)
		if err != nil {
			r.fault(line, err)
			continue
		}
		if w.Blob && !ref.HasDigest() {
			r.fault(line, fmt.Errorf("%s is a blob without a digest", clip(w.Ref)))
			continue
		}
		if ref.HasDigest() {
			ref.Tag = ""
		} else if ref.Tag == "" {
			ref.Tag = latest
		}
		r.put(Entry{Ref: ref, Blob: w.Blob, At: Position{r.name, line}})
	}
}
