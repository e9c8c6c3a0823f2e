package admin

import (
	"time"

	"forebay/cache/image"
	"forebay/cache/upkeep"
	"forebay/internal/wire"
)

// Contents is all that belongs to an image, as far as it is known without asking anybody.
type Contents struct {
	Ref       string      `json:"ref"`
	Tag       string      `json:"tag,omitempty"`
	Digest    wire.Digest `json:"digest"`
	MediaType string      `json:"media_type"`
	Size      int64       `json:"size"`               // of the manifest itself
	Confirmed time.Time   `json:"confirmed,omitzero"` // when the registry said last that the tag points to it
	Since     time.Time   `json:"since,omitzero"`     // when the tag was first seen to point to it
	// Decided is why the tag was promoted to it.
	Decided   *wire.Decision `json:"decided,omitempty"`
	Platforms []string       `json:"platforms,omitempty"` // of an index: those that Parts are of
	Omitted   []string       `json:"left,omitempty"`      // of an index: those that were not asked for
	Parts     []Part         `json:"parts"`               // each thing once, manifests before what they lead to
	Referrers []Referrer     `json:"referrers,omitempty"` // whose Parts are among those above
}

func contentsOf(c *image.Contents) Contents {
	return Contents{
		Ref: c.Ref, Tag: c.Tag, Digest: wire.Digest{Hash: c.Digest}, MediaType: c.MediaType, Size: c.Size, Confirmed: c.Confirmed,
		Platforms: c.Platforms, Omitted: c.Omitted, Parts: orNone(c.Parts), Referrers: c.Referrers,
	}
}

// Missing returns what of an image is not here, and how many bytes that is as far as it
// is known.
func (c *Contents) Missing() (parts []Part, bytes int64) {
	for _, p := range c.Parts {
		if p.State != image.Present {
			parts = append(parts, p)
			bytes += max(p.Size, 0)
		}
	}
	return parts, bytes
}

// DigestList is a number of digests.
type DigestList struct {
	Digests []string `json:"digests"`
}

// ImportRequest begins an import.
type ImportRequest struct {
	// Signed is what a key that the operator trusts has signed: the images may rely on what
	// it says to be here already.
	Signed *SignedManifest `json:"signed,omitempty"`
	// AllowOlder takes in what is older than what is here, and moves tags back.
	AllowOlder bool `json:"allow_older,omitempty"`
}

// SignedManifest is the manifest of a bundle with its signature, which is verified.
type SignedManifest struct {
	Manifest  string `json:"manifest"`
	Signature string `json:"signature"`
	Key       string `json:"key"` // that must have made it, as OpenSSH writes it
}

// Import is an import that has begun.
type Import struct {
	ID string `json:"id"`
}

// LackingRequest asks what an import has to bring.
type LackingRequest struct {
	// Refs are images of the repositories that it is for: what all of them hold need not be
	// brought. Without any, everything is to be.
	Refs    []string `json:"refs,omitempty"`
	Digests []string `json:"digests"`
}

// TakenIn says what an import has brought.
type TakenIn struct {
	Digest wire.Digest `json:"digest"`
	Had    bool        `json:"had"` // it was kept already, and is the same
}

// AdmitRequest names an image whose content was taken in.
type AdmitRequest struct {
	Ref       string `json:"ref"`
	Digest    string `json:"digest"`               // of its manifest or index
	MediaType string `json:"media_type,omitempty"` // if the manifest itself does not say
	Size      int64  `json:"size,omitempty"`       // of the manifest or index; 0 when not known
	// Confirmed is when the registry said so last; now if it is left out.
	Confirmed time.Time `json:"confirmed,omitzero"`
	// Since is when the tag was first seen to point to it where the image comes from.
	Since time.Time `json:"since,omitzero"`
	// Decided is why the tag was promoted to it there. It is told, and nothing goes by it.
	Decided *wire.Decision `json:"decided,omitempty"`
	Pin     bool           `json:"pin,omitempty"` // keep it whole from now on
}

// AdmitAnswer says what came of it.
type AdmitAnswer struct {
	Ref       string      `json:"ref"`
	Digest    wire.Digest `json:"digest"`
	Before    string      `json:"before,omitempty"`    // what the tag pointed to, if that was something else
	Stays     string      `json:"stays,omitempty"`     // what the tag goes on to point to, since that was confirmed later
	Platforms []string    `json:"platforms,omitempty"` // of an index: those that are here
	Omitted   []string    `json:"left,omitempty"`      // of an index: those that are not
	// Missing are the things of those platforms that the repository does not get, at most 100 one by one.
	Missing      []Part `json:"missing,omitempty"`
	MissingCount int64  `json:"missing_count"`
	MissingBytes int64  `json:"missing_bytes"`
	Pinned       bool   `json:"pinned,omitempty"`
	PinError     string `json:"pin_error,omitempty"` // why it could not be pinned, if it was to be
}

func admitAnswerOf(a *upkeep.Admitted) AdmitAnswer {
	return AdmitAnswer{
		Ref: a.Ref, Digest: wire.Digest{Hash: a.Digest}, Before: a.Before, Stays: a.Stays, Platforms: a.Platforms, Omitted: a.Omitted,
		Missing: a.Missing, MissingCount: a.MissingCount, MissingBytes: a.MissingBytes,
	}
}
