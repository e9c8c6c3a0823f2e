package admin

import (
	"time"

	"forebay/cache/vanished"
	"forebay/cache/wanted"
	"forebay/internal/imageset"
)

// PrefetchRequest asks for images before anybody pulls them.
type PrefetchRequest struct {
	Images    []PrefetchImage `json:"images"`
	Platforms []string        `json:"platforms"` // of images that name none; "all" alone is every platform
	Referrers bool            `json:"referrers,omitempty"`
	DryRun    bool            `json:"dry_run,omitempty"`
	Wait      bool            `json:"wait,omitempty"` // wait for the registries' budgets rather than fail
	Pin       bool            `json:"pin,omitempty"`
	AtOnce    int             `json:"at_once,omitempty"` // images at a time; absent: 3
}

// PrefetchImage is one image of a request.
type PrefetchImage struct {
	Ref       string   `json:"ref"` // with tag and digest, the digest is fetched and the tag is its name
	Platforms []string `json:"platforms,omitempty"`
	Blob      bool     `json:"blob,omitempty"` // the digest is a blob's
	At        string   `json:"at,omitempty"`   // where the name stands, for errors
}

// PrefetchSets are the sets of the configuration.
type PrefetchSets struct {
	Sets []PrefetchSet `json:"sets"`
}

// LockRequest asks what tags point to.
type LockRequest struct {
	Images []PrefetchImage `json:"images"`
	// Children has indexes fetched that are not kept, so that their platforms are told:
	// each is a pull.
	Children bool `json:"children,omitempty"`
}

func wantedOf(w wanted.Wanted) imageset.WantedImage { return imageset.WantedImage(w) }

// VanishedList is what registries say is gone that they had.
type VanishedList struct {
	Vanished []Vanished `json:"vanished"`
}

// Vanished is a tag, or without one a repository: see [vanished.Vanished].
type Vanished struct {
	Ref       string    `json:"ref"`
	Denied    bool      `json:"denied,omitempty"`
	Served    bool      `json:"served"`
	Since     time.Time `json:"since"`
	Said      string    `json:"said"`
	Pinned    []string  `json:"pinned,omitempty"`
	Bytes     int64     `json:"bytes"`
	NotPinned string    `json:"not_pinned,omitempty"`
	Asked     int64     `json:"asked"`
	Last      time.Time `json:"last,omitzero"`
	Clients   []string  `json:"clients,omitempty"`
}

func vanishedOf(v vanished.Vanished) Vanished {
	return Vanished{v.Name(), v.Denied, v.Served, v.Since, v.Said, v.Pinned, v.Bytes, v.NotPinned, v.Asked, v.Last, v.Clients}
}

// Cleared says how long the list was.
type Cleared struct {
	Cleared int `json:"cleared"`
}

// Registries says what names of images mean here, for who reads them from files.
type Registries struct {
	Default string            `json:"default"` // registry of names without one
	Names   map[string]string `json:"names"`   // from names and aliases to what they are called here
	Hosts   map[string]string `json:"hosts"`   // from names of the mirror itself to the registries that they stand for
}
