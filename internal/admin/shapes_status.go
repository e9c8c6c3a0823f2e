package admin

import (
	"time"

	"forebay/cache/tier"
	"forebay/cache/upkeep"
	"forebay/internal/fleet"
)

// Status is the mirror at a glance.
type Status struct {
	Troubles      []Trouble  `json:"troubles"` // what is wrong now, the most urgent first
	Version       string     `json:"version"`
	Name          string     `json:"name"`    // of this mirror: that of its machine
	Address       string     `json:"address"` // at which clients on other machines reach it: "http://box:5000"
	StartedAt     time.Time  `json:"started_at"`
	UptimeSeconds int64      `json:"uptime_seconds"`
	Stats         Stats      `json:"stats"`
	Upstreams     []Upstream `json:"upstreams"`
	Fills         []FillInfo `json:"fills"`
	Jobs          []Job      `json:"jobs"` // that run
	Usage         Usage      `json:"usage"`
}

// Upstream is a registry: as the cache sees it, and as it says itself.
type Upstream struct {
	Name string `json:"name"`
	// State is how it does by its answers of the last minute: "fails" if most of them were failures,
	// "degraded" if something of it cannot be had, "limited" while it refuses pulls; "offline" if it
	// is never asked, and "unknown" if it was not asked since the start.
	State     string    `json:"state" enum:"answers,degraded,fails,limited,offline,unknown"`
	LastAsked time.Time `json:"last_asked,omitzero"` // when it last answered or failed
	// Sparing is whether so little is left of its budget that tags that moved are served stale.
	Sparing bool `json:"sparing"`
	RegistryStatus
}

// RegistryStatus is what is known of a registry's limits and endpoints.
type RegistryStatus struct {
	Budgets   []Budget         `json:"budgets"`
	Endpoints []Endpoint       `json:"endpoints"`
	Limited   map[string]int64 `json:"limited"` // 429s since the start, by what was limited
	Probes    int64            `json:"probes"`  // HEADs that asked whether pulls go through again
	Failovers int64            `json:"failovers"`
}

// Budget is what a registry will still give to one credential.
type Budget struct {
	Credential    string     `json:"credential"` // user name, or "anonymous"
	Host          string     `json:"host"`
	Limit         int64      `json:"limit"`          // pulls in a window; -1 when it did not say
	Remaining     int64      `json:"remaining"`      // pulls left; -1 when it did not say
	WindowSeconds int64      `json:"window_seconds"` // 0 when it did not say
	SeenAt        time.Time  `json:"seen_at,omitzero"`
	Low           bool       `json:"low"`                   // less than the reserve remains
	PausedUntil   time.Time  `json:"paused_until,omitzero"` // while pulls are refused
	Why           string     `json:"why,omitempty"`         // they are
	PerHour       float64    `json:"per_hour"`              // pulls at present
	RunsOut       time.Time  `json:"runs_out,omitzero"`     // if this goes on
	Returns       time.Time  `json:"returns,omitzero"`      // some of what is used up
	Elsewhere     int64      `json:"elsewhere"`             // spent in the window, and not by this mirror
	Spent         []Spending `json:"spent"`                 // the most first, at most 20
	SpentHere     int64      `json:"spent_here"`            // in the window, by this mirror: all of it
	// Who spent that, and for what: the most first, at most 20 of each. What is left of SpentHere
	// is others'.
	SpentByClient     []Spent `json:"spent_by_client"`
	SpentByRepository []Spent `json:"spent_by_repository"`
}

// Spent is what one client, or one repository, cost.
type Spent struct {
	Name  string `json:"name"` // of a client, empty is the mirror itself
	Pulls int64  `json:"pulls"`
}

// Spending is what one client cost in one repository.
type Spending struct {
	Client     string `json:"client"` // address; empty is the mirror itself, which refreshes ahead
	Repository string `json:"repository"`
	Pulls      int    `json:"pulls"`
}

// Endpoint is where a registry is reached.
type Endpoint struct {
	URL         string    `json:"url"`
	StandIn     bool      `json:"stand_in"`
	Open        bool      `json:"open"`                  // its breaker: it is not asked but for probes
	Failures    int       `json:"failures"`              // requests in a row
	NextProbe   time.Time `json:"next_probe,omitzero"`   // while open
	LastFault   string    `json:"last_fault,omitempty"`  // empty after a success
	PausedUntil time.Time `json:"paused_until,omitzero"` // while all requests are refused
	Why         string    `json:"why,omitempty"`         // they are
}

// Stats are figures of what is kept.
type Stats struct {
	Blobs        int64 `json:"blobs"` // files, manifests included
	BlobBytes    int64 `json:"blob_bytes"`
	Repositories int64 `json:"repositories"`
	Tags         int64 `json:"tags"`
	Links        int64 `json:"links"` // rights of repositories to digests

	UsedBytes int64  `json:"used_bytes"` // of the folder, index and reservations of fills included
	MaxBytes  int64  `json:"max_bytes"`  // 0 means no limit
	DiskFree  uint64 `json:"disk_free_bytes"`
	DiskTotal uint64 `json:"disk_total_bytes"`

	PinnedBytes   int64 `json:"pinned_bytes"`
	PinLimitBytes int64 `json:"pin_limit_bytes"` // 0 means no limit

	// Since the start.
	EvictedBlobs  int64 `json:"evicted_blobs"`
	EvictedBytes  int64 `json:"evicted_bytes"`
	AgainBlobs    int64 `json:"again_blobs"` // fetched again after they were evicted: a store of about twice the size would have kept them
	AgainBytes    int64 `json:"again_bytes"`
	EvictedIdle   int64 `json:"evicted_idle_seconds"` // how long half of what was evicted had not been used; 0 when nothing was
	TagsMoved     int64 `json:"tags_moved"`
	ReleasesMoved int64 `json:"releases_moved"` // tags of full versions, which nobody is expected to move

	QuarantineFiles int64 `json:"quarantine_files"`
	QuarantineBytes int64 `json:"quarantine_bytes"`
	Scrub           Scrub `json:"scrub"`

	Bucket *Bucket `json:"bucket,omitempty"`
	// EvictedUnsaved counts what was evicted before it was uploaded, since the start.
	EvictedUnsaved int64 `json:"evicted_unsaved"`
}

func statsOf(s upkeep.Stats) Stats {
	return Stats{
		Blobs: s.Blobs, BlobBytes: s.BlobBytes, Repositories: s.Repositories, Tags: s.Tags, Links: s.Links,
		UsedBytes: s.UsedBytes, MaxBytes: s.MaxBytes, DiskFree: s.DiskFree, DiskTotal: s.DiskTotal,
		PinnedBytes: s.PinnedBytes, PinLimitBytes: s.PinLimitBytes,
		EvictedBlobs: s.EvictedBlobs, EvictedBytes: s.EvictedBytes, AgainBlobs: s.AgainBlobs, AgainBytes: s.AgainBytes, EvictedIdle: int64(s.EvictedIdle.Seconds()), TagsMoved: s.TagsMoved, ReleasesMoved: s.ReleasesMoved,
		QuarantineFiles: s.QuarantineFiles, QuarantineBytes: s.QuarantineBytes, Scrub: s.Scrub,
		Bucket: bucketOf(s.Bucket), EvictedUnsaved: s.EvictedUnsaved,
	}
}

// Bucket is what is known of the bucket behind the folder.
type Bucket struct {
	Objects     int64 `json:"objects"` // as far as is known
	ObjectBytes int64 `json:"object_bytes"`
	MaxBytes    int64 `json:"max_bytes"` // 0 means no limit

	Queued      int   `json:"queued"` // uploads that wait or run
	QueuedBytes int64 `json:"queued_bytes"`
	// More is whether there is more to upload than is counted in Queued.
	More bool `json:"more"`

	// Since the start.
	Uploaded      int64 `json:"uploaded"`
	UploadedBytes int64 `json:"uploaded_bytes"`
	Failures      int64 `json:"failures"` // of uploads
	Removed       int64 `json:"removed"`  // objects, for age or room
	Damaged       int64 `json:"damaged"`  // objects that were not what their name says

	Degraded      bool      `json:"degraded"`
	DegradedSince time.Time `json:"degraded_since,omitzero"`
	LastError     string    `json:"last_error,omitempty"`
	LastErrorAt   time.Time `json:"last_error_at,omitzero"`

	RefsBehind  time.Time `json:"refs_behind_since,omitzero"` // since when links, tags and pins wait to get there
	RefsDamaged int64     `json:"refs_damaged"`               // segments of them with lines that could not be read

	Survey *BucketSurvey `json:"survey,omitempty"` // the last listing of it
	Calls  []BucketCalls `json:"calls"`
}

func bucketOf(s *tier.Stats) *Bucket {
	if s == nil {
		return nil
	}
	return &Bucket{
		Objects: s.Objects, ObjectBytes: s.ObjectBytes, MaxBytes: s.MaxBytes,
		Queued: s.Queued, QueuedBytes: s.QueuedBytes, More: s.More,
		Uploaded: s.Uploaded, UploadedBytes: s.UploadedBytes, Failures: s.Failures, Removed: s.Removed, Damaged: s.Damaged,
		Degraded: s.Degraded, DegradedSince: s.DegradedSince, LastError: s.LastError, LastErrorAt: s.LastErrorAt,
		RefsBehind: s.RefsBehind, RefsDamaged: s.RefsDamaged,
		Survey: s.Survey, Calls: orNone(s.Calls),
	}
}

// ReplicaList is the mirrors of the fleet; without one there is none.
type ReplicaList struct {
	Replicas []fleet.Replica `json:"replicas"`
}
