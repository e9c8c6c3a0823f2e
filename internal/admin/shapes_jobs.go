package admin

import (
	"encoding/json"
	"time"
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
	Kind     string    `json:"kind" enum:"repair,verify,gc,prefetch,lock,purge"`
	Target   string    `json:"target,omitempty"` // the image, or the first of several
	By       string    `json:"by,omitempty"`     // the operator who began it
	State    JobState  `json:"state"`
	Started  time.Time `json:"started"`
	Due      time.Time `json:"due,omitzero"` // of a purge: until then it waits, and to cancel it takes it back
	Ended    time.Time `json:"ended,omitzero"`
	Progress Progress  `json:"progress"`
	Error    string    `json:"error,omitempty"`
	// Prefetch is how far a prefetch is with its images, while it runs.
	Prefetch *PrefetchSnapshot `json:"prefetch,omitempty"`
	// Result is what it came to, once it is done: Repaired, Verified, Collected,
	// PrefetchReport, Locked or PurgeAnswer, by its kind.
	Result json.RawMessage `json:"result,omitempty"`
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

// VerifyRequest asks for a verification.
type VerifyRequest struct {
	Repair bool `json:"repair,omitempty"` // fetch what is damaged again
}

// CollectRequest asks for a collection of garbage.
type CollectRequest struct {
	DryRun bool `json:"dry_run,omitempty"` // only count
}
