package admin

import (
	"encoding/json"
	"time"

	"forebay/cache/image"
	"forebay/cache/upkeep"
	"forebay/internal/wire"
)

// JobState says how a job stands.
type JobState string

// The states of a job.
const (
	Running   JobState = "running"
	Done      JobState = "done"
	Failed    JobState = "failed"
	Cancelled JobState = "cancelled"
)

// Job is work that takes longer than an answer should.
type Job struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind" enum:"repair,verify,gc,prefetch,lock"`
	Target   string    `json:"target,omitempty"` // the image, or the first of several
	State    JobState  `json:"state"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	Progress Progress  `json:"progress"`
	Error    string    `json:"error,omitempty"`
	// Prefetch is how far a prefetch is with its images, while it runs.
	Prefetch *PrefetchSnapshot `json:"prefetch,omitempty"`
	// Result is what it came to, once it is done: Repaired, Verified, Collected,
	// PrefetchReport or Locked, by its kind.
	Result json.RawMessage `json:"result,omitempty"`
}

// Progress says how far something that takes its time has come.
type Progress struct {
	Items      int64 `json:"items"`       // done
	ItemsTotal int64 `json:"items_total"` // to do, as far as is known; 0 while it is not
	Bytes      int64 `json:"bytes"`       // done
	BytesTotal int64 `json:"bytes_total"` // likewise
	Faults     int64 `json:"faults"`      // of the items done, those that went wrong
}

// JobList is the jobs that run and those that ended last, the latest first.
type JobList struct {
	Jobs []Job `json:"jobs"`
}

// RepairRequest says what to complete.
type RepairRequest struct {
	Ref       string   `json:"ref"`
	Platforms []string `json:"platforms,omitempty"` // none: those that somebody pulled, or that are pinned
}

// Repaired says what a repair did.
type Repaired struct {
	Fetched int64              `json:"fetched"` // things that were missing
	Bytes   int64              `json:"bytes"`
	Failed  []RepairFault      `json:"failed"` // what is still missing, at most 100
	State   image.Completeness `json:"state"`
}

func repairedOf(r *upkeep.Repaired) Repaired {
	return Repaired{Fetched: r.Fetched, Bytes: r.Bytes, Failed: each(r.Failed, repairFaultOf), State: r.State}
}

// RepairFault is something that could not be fetched.
type RepairFault struct {
	Digest wire.Digest `json:"digest"`
	Error  string      `json:"error"`
}

func repairFaultOf(f upkeep.Fault) RepairFault { return RepairFault(f) }

// VerifyRequest asks for a verification.
type VerifyRequest struct {
	Repair bool `json:"repair,omitempty"` // fetch what is damaged again
}

// Verified says what a verification found.
type Verified struct {
	Blobs   int64     `json:"blobs"` // read
	Bytes   int64     `json:"bytes"`
	Damaged []BadBlob `json:"damaged"` // at most 100
	Faults  int64     `json:"faults"`  // damaged or unreadable, all of them
	Fetched int64     `json:"fetched"` // of those, fetched again
}

func verifiedOf(v *upkeep.Verified) Verified {
	return Verified{Blobs: v.Blobs, Bytes: v.Bytes, Damaged: each(v.Damaged, badBlobOf), Faults: v.Faults, Fetched: v.Fetched}
}

// BadBlob is a blob that does not have its digest any more, or cannot be read.
type BadBlob struct {
	Digest     wire.Digest `json:"digest"`
	Error      string      `json:"error"`
	Quarantine string      `json:"quarantine,omitempty"` // file below the storage folder, if it was kept
	Fetched    bool        `json:"fetched"`              // a good one has taken its place
}

func badBlobOf(b upkeep.BadBlob) BadBlob { return BadBlob(b) }

// CollectRequest asks for a collection of garbage.
type CollectRequest struct {
	DryRun bool `json:"dry_run,omitempty"` // only count
}

// Collected says what a collection of garbage removed, or would.
type Collected struct {
	DryRun bool `json:"dry_run"`
	// Blobs are files that no repository holds, and BlobBytes their sizes.
	Blobs     int64 `json:"blobs"`
	BlobBytes int64 `json:"blob_bytes"`
	// Adopted are files that the index did not know and some repository holds; they stay.
	Adopted int64 `json:"adopted"`
	Rows    int64 `json:"rows"` // records of the index without a file
	// Links and Tags were of content that is not kept, and older than three months.
	Links int64 `json:"links"`
	Tags  int64 `json:"tags"`
	// Partials are fills that nobody went on with for a day.
	Partials     int64 `json:"partials"`
	PartialBytes int64 `json:"partial_bytes"`
}

func collectedOf(c *upkeep.Collected) Collected { return Collected(*c) }
