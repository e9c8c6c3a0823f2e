package admin

import (
	"time"

	"forebay/cache/vanished"
	"forebay/cache/wanted"
	"forebay/internal/imageset"
	"forebay/internal/prefetch"
	"forebay/internal/wire"
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

// PrefetchSnapshot says how far a prefetch has come.
type PrefetchSnapshot struct {
	Images int              `json:"images"` // in all
	Done   int              `json:"done"`   // of them, whatever came of it
	Failed int              `json:"failed"` // of those, not all there
	Total  Progress         `json:"total"`  // of the images that are done or active
	Active []PrefetchActive `json:"active"` // in the order of their start
	// Ended are the images that were done last, the latest last: at most 32 of Done.
	Ended []PrefetchEnded `json:"ended"`
}

// PrefetchSnapshotOf is how a prefetch without a server tells the same.
func PrefetchSnapshotOf(s prefetch.Snapshot) PrefetchSnapshot {
	return PrefetchSnapshot{
		Images: s.Images, Done: s.Done, Failed: s.Failed, Total: Progress(s.Total),
		Active: each(s.Active, activeOf), Ended: each(s.Ended, endedOf),
	}
}

// PrefetchActive is an image that is being fetched.
type PrefetchActive struct {
	Ref      string   `json:"ref"`
	Progress Progress `json:"progress"`
}

func activeOf(a prefetch.Active) PrefetchActive { return PrefetchActive{a.Ref, Progress(a.Progress)} }

// PrefetchEnded is an image that is done.
type PrefetchEnded struct {
	Ref   string         `json:"ref"`
	State prefetch.State `json:"state"`
	Bytes int64          `json:"bytes"`
	Error string         `json:"error,omitempty"`
}

func endedOf(e prefetch.Ended) PrefetchEnded { return PrefetchEnded(e) }

// PrefetchReport says what was done for all images.
type PrefetchReport struct {
	DryRun bool `json:"dry_run,omitempty"`
	// Outcome is "partial" if some images are incomplete, "failed" if all are, and "limited" if
	// some are and only because of limits.
	Outcome   string            `json:"outcome" enum:"done,partial,failed,limited"`
	Images    []PrefetchedImage `json:"images"` // in the order of the request
	Pulls     int64             `json:"pulls"`
	Fetched   int64             `json:"fetched"`
	Bytes     int64             `json:"bytes"`
	KeptBytes int64             `json:"kept_bytes"`
	More      bool              `json:"more,omitempty"` // of a dry run: there is more, of unknown size
	Seconds   float64           `json:"seconds"`
}

// PrefetchReportOf is how a prefetch without a server tells the same.
func PrefetchReportOf(r *prefetch.Report) PrefetchReport {
	return PrefetchReport{
		DryRun: r.DryRun, Outcome: r.Outcome, Images: each(r.Images, prefetchedOf),
		Pulls: r.Pulls, Fetched: r.Fetched, Bytes: r.Bytes, KeptBytes: r.KeptBytes, More: r.More, Seconds: r.Seconds,
	}
}

// PrefetchedImage says what was done for one image.
type PrefetchedImage struct {
	Ref    string         `json:"ref"`
	At     string         `json:"at,omitempty"` // file and line that name it
	State  prefetch.State `json:"state"`
	Digest wire.Digest    `json:"digest,omitzero"` // of the index, manifest or blob
	// Pulls are the requests that registries count as pulls: a GET for each manifest.
	Pulls     int64 `json:"pulls"`
	Fetched   int64 `json:"fetched"`    // manifests and blobs
	Bytes     int64 `json:"bytes"`      // of them
	KeptBytes int64 `json:"kept_bytes"` // that were there already
	// More is, of a dry run, whether Bytes is not all.
	More    bool          `json:"more,omitempty"`
	Failed  []RepairFault `json:"failed,omitempty"`   // what is still missing, at most 100
	MovedTo string        `json:"moved_to,omitempty"` // what the tag points to at the registry, when that is not Digest
	Pinned  bool          `json:"pinned,omitempty"`
	Error   string        `json:"error,omitempty"` // the worst of what went wrong
}

func prefetchedOf(i prefetch.Image) PrefetchedImage {
	return PrefetchedImage{
		Ref: i.Ref, At: i.At, State: i.State, Digest: i.Digest, Pulls: i.Pulls, Fetched: i.Fetched, Bytes: i.Bytes, KeptBytes: i.KeptBytes,
		More: i.More, Failed: each(i.Failed, repairFaultOf), MovedTo: i.MovedTo, Pinned: i.Pinned, Error: i.Error,
	}
}

// PrefetchSets are the sets of the configuration.
type PrefetchSets struct {
	Sets []PrefetchSet `json:"sets"`
}

// PrefetchSet is a set, with what became of it last.
type PrefetchSet struct {
	Name      string   `json:"name"`
	Images    []string `json:"images,omitempty"`
	Files     []string `json:"files,omitempty"`
	Platforms []string `json:"platforms"`
	Referrers bool     `json:"referrers,omitempty"`
	Pin       bool     `json:"pin,omitempty"`
	Schedule  string   `json:"schedule,omitempty"` // cron expression; absent: only when somebody asks
	TimeZone  string   `json:"time_zone,omitempty"`

	Running  bool              `json:"running"`
	Progress *PrefetchSnapshot `json:"progress,omitempty"` // while it runs
	Next     time.Time         `json:"next,omitzero"`
	Last     *PrefetchRun      `json:"last,omitempty"`
	Runs     []PrefetchRun     `json:"runs,omitempty"` // the last ten, the latest first
}

func setOf(s prefetch.SetStatus) PrefetchSet {
	out := PrefetchSet{
		Name: s.Name, Images: s.Images, Files: s.Files, Platforms: s.Platforms, Referrers: s.Referrers, Pin: s.Pin,
		Schedule: s.Schedule, TimeZone: s.TimeZone, Running: s.Running, Next: s.Next, Runs: each(s.Runs, runOf),
	}
	if s.Progress != nil {
		p := PrefetchSnapshotOf(*s.Progress)
		out.Progress = &p
	}
	if len(out.Runs) > 0 {
		out.Last = &out.Runs[0]
	}
	return out
}

// PrefetchRun is one run of a set.
type PrefetchRun struct {
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	By      string    `json:"by" enum:"schedule,operator"`
	Outcome string    `json:"outcome" enum:"done,partial,failed,limited,cancelled"`
	Error   string    `json:"error,omitempty"`

	Images    int               `json:"images"`
	Pulls     int64             `json:"pulls"`
	Fetched   int64             `json:"fetched"`
	Bytes     int64             `json:"bytes"`
	KeptBytes int64             `json:"kept_bytes"`
	Faulty    []PrefetchedImage `json:"faulty,omitempty"` // those with which something went wrong, at most 50
}

func runOf(r prefetch.LastRun) PrefetchRun {
	return PrefetchRun{
		Started: r.Started, Ended: r.Ended, By: r.By, Outcome: r.Outcome, Error: r.Error,
		Images: r.Images, Pulls: r.Pulls, Fetched: r.Fetched, Bytes: r.Bytes, KeptBytes: r.KeptBytes, Faulty: each(r.Faulty, prefetchedOf),
	}
}

// LockRequest asks what tags point to.
type LockRequest struct {
	Images []PrefetchImage `json:"images"`
	// Children has indexes fetched that are not kept, so that their platforms are told:
	// each is a pull.
	Children bool `json:"children,omitempty"`
}

// Locked is what tags were found to point to.
type Locked struct {
	File   imageset.LockFile `json:"lock"`
	Pulls  int64             `json:"pulls"` // that it took
	Failed []LockFault       `json:"failed,omitempty"`
}

// LockedOf is how a lock without a server tells the same.
func LockedOf(l *prefetch.Locked) Locked {
	return Locked{l.File, l.Pulls, each(l.Failed, lockFaultOf)}
}

// LockFault is an image whose digest could not be found out, and why.
type LockFault struct {
	Ref   string `json:"ref"`
	At    string `json:"at,omitempty"`
	Error string `json:"error"`
}

func lockFaultOf(f prefetch.LockFault) LockFault { return LockFault(f) }

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
