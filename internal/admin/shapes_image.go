package admin

import (
	"time"

	"forebay/cache"
	"forebay/cache/image"
	"forebay/internal/rules"
	"forebay/internal/wire"
)

// Image is what is kept of a tag, or of a manifest that no tag names.
type Image struct {
	Upstream   string      `json:"upstream"`
	Repository string      `json:"repository"` // canonical, without the upstream
	Tag        string      `json:"tag,omitempty"`
	Digest     wire.Digest `json:"digest"`
	MediaType  string      `json:"media_type"`

	CheckedAt time.Time `json:"checked_at,omitzero"` // when the upstream last confirmed the tag
	ChangedAt time.Time `json:"changed_at,omitzero"` // when the tag was first seen to point here
	UsedAt    time.Time `json:"used_at,omitzero"`    // last pull through here, to the minute

	State image.Completeness `json:"state"`
	// KeptBytes and MissingBytes count the platforms that were pulled, each thing once.
	KeptBytes    int64 `json:"kept_bytes"`
	MissingBytes int64 `json:"missing_bytes"`
	// MissingMore is whether what is missing is of unknown size, beside MissingBytes.
	MissingMore bool `json:"missing_more,omitempty"`
	Pinned      bool `json:"pinned,omitempty"`
	// Signatures has what each rule that wants the image signed has found of it. Lists are without.
	Signatures []rules.Signature `json:"signatures,omitempty"`

	Platforms []ImagePlatform `json:"platforms"`
}

func imageOf(i image.Image) Image {
	return Image{
		Upstream: i.Upstream, Repository: i.Repository, Tag: i.Tag, Digest: wire.Digest{Hash: i.Digest}, MediaType: i.MediaType,
		CheckedAt: i.CheckedAt, ChangedAt: i.ChangedAt, UsedAt: i.UsedAt,
		State: i.State, KeptBytes: i.KeptBytes, MissingBytes: i.MissingBytes, MissingMore: i.MissingMore, Pinned: i.Pinned,
		Platforms: each(i.Platforms, platformOf),
	}
}

// Name returns "docker.io/library/nginx:1.27", or with its digest when it has no tag.
func (i *Image) Name() string {
	return image.Name(cache.Repo{Upstream: i.Upstream, Name: i.Repository}, i.Tag, i.Digest.Hash)
}

// ImagePlatform is one image of an index, or the only one.
type ImagePlatform struct {
	Platform string             `json:"platform"` // "linux/arm64", "attestation", "" while not known
	Digest   wire.Digest        `json:"digest"`   // of its manifest
	State    image.Completeness `json:"state"`
	// Size is the sum of manifest, configuration and layers in bytes; -1 until the manifest is kept.
	Size         int64     `json:"size"`
	MissingBytes int64     `json:"missing_bytes"`
	Parts        []Part    `json:"parts,omitempty"` // of a single image only
	UsedAt       time.Time `json:"used_at,omitzero"`
}

func platformOf(p image.ImagePlatform) ImagePlatform {
	return ImagePlatform{
		Platform: p.Platform, Digest: wire.Digest{Hash: p.Digest}, State: p.State, Size: p.Size, MissingBytes: p.MissingBytes,
		Parts: orNone(p.Parts), UsedAt: p.UsedAt,
	}
}

// ImagePage is a part of the images.
type ImagePage struct {
	Images []Image `json:"images"`
	// Next is what to go on after; absent at the end. There may be more even if Images is
	// short or empty.
	Next string `json:"next,omitempty"`
}

func imagePageOf(p *image.Page) ImagePage { return ImagePage{each(p.Images, imageOf), p.Next} }

// History is what a tag pointed to, the latest first.
type History struct {
	Ref      string       `json:"ref"`
	Bindings []TagBinding `json:"bindings"`
}

// RefRequest names an image.
type RefRequest struct {
	Ref string `json:"ref"`
}

// RefreshAnswer says what a refresh found.
type RefreshAnswer struct {
	Ref string `json:"ref"`
	Refreshed
}

// PurgeRequest says what to purge.
type PurgeRequest struct {
	// Target is an image with its tag or digest, a repository, which is all of it, or a bare
	// digest, which is purged from every repository.
	Target string `json:"target"`
	Force  bool   `json:"force,omitempty"` // pinned content, too
	DryRun bool   `json:"dry_run,omitempty"`
}

// PurgesRequest says what to purge together, and when.
type PurgesRequest struct {
	Targets []string `json:"targets"` // see PurgeRequest
	Force   bool     `json:"force,omitempty"`
	// WaitSeconds is for how long it can be taken back, at most 60.
	WaitSeconds int `json:"wait_seconds,omitempty"`
}

// PurgeAnswer says what was purged.
type PurgeAnswer struct {
	Target string `json:"target"` // in full
	What   string `json:"what" enum:"image,repository,digest,images"`
	Purged
}

// PinList is all that is pinned.
type PinList struct {
	Pins []Pin `json:"pins"`
	// Bytes is what the pins that are held take together, and LimitBytes what they may; 0 is no limit.
	Bytes      int64 `json:"bytes"`
	LimitBytes int64 `json:"limit_bytes"`
}

// PinRequest says what to pin.
type PinRequest struct {
	Ref       string   `json:"ref"`
	Platforms []string `json:"platforms,omitempty"` // none: those that somebody pulls
	// Fill starts a job that fetches what is missing.
	Fill bool `json:"fill,omitempty"`
}

// PinAnswer is a new pin, with the job that fetches what is missing, if there is one.
type PinAnswer struct {
	Pin
	Job string `json:"job,omitempty"`
}
