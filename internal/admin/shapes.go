package admin

import (
	"forebay/cache"
	"forebay/cache/image"
	"forebay/cache/tier"
	"forebay/cache/upkeep"
	"forebay/internal/activity"
	"forebay/internal/prefetch"
	"forebay/internal/trouble"
)

// What the API answers and is asked stands in the files shapes_*.go, each type with the
// name that its schema has in openapi.json, and here are those that others make for operators
// as they are: a test compares all of them field by field, so that a name that changes there
// changes nothing for who asks us. Two answers are formats of files that a command takes, and
// stand where those are read: [imageset.LockFile] and [imageset.WantedList].
type (
	Part           = image.Part
	Referrer       = image.Referrer
	RepositoryInfo = image.RepositoryInfo
	RepositoryPage = image.RepositoryPage
	TagBinding     = image.TagBinding
	Stored         = image.Stored
	StoredPage     = image.StoredPage
	Pin            = image.Pin

	Progress    = upkeep.Progress
	RepairFault = upkeep.Fault
	Repaired    = upkeep.Repaired
	Verified    = upkeep.Verified
	BadBlob     = upkeep.BadBlob
	Collected   = upkeep.Collected
	Refreshed   = upkeep.Refreshed
	Purged      = upkeep.Purged
	Scrub       = upkeep.Scrub

	PrefetchSnapshot = prefetch.Snapshot
	PrefetchActive   = prefetch.Active
	PrefetchEnded    = prefetch.Ended
	PrefetchReport   = prefetch.Report
	PrefetchedImage  = prefetch.Image
	PrefetchSet      = prefetch.SetStatus
	PrefetchRun      = prefetch.LastRun
	Locked           = prefetch.Locked
	LockFault        = prefetch.LockFault

	FillInfo     = cache.FillInfo
	Stats        = upkeep.Stats
	Bucket       = tier.Stats
	BucketSurvey = tier.Survey
	BucketCalls  = tier.Calls
	Trouble      = trouble.Trouble

	Traffic       = activity.Traffic
	Series        = activity.Series
	Tally         = activity.Tally
	ClientInfo    = activity.ClientInfo
	RepositoryUse = activity.RepositoryUse
	Event         = activity.Event
	Drill         = activity.Drill
	Usage         = activity.Usage
)

// Fault is the body of every answer that is an error.
type Fault struct {
	Error FaultDetail `json:"error"`
}

// FaultDetail says what went wrong.
type FaultDetail struct {
	Code    string `json:"code"`    // for programs: "not_kept"
	Message string `json:"message"` // for people
}

// each converts a list. It never returns nil, which would be null in JSON, and openapi.json
// promises an array.
func each[From, To any](list []From, convert func(From) To) []To {
	out := make([]To, len(list))
	for i, one := range list {
		out[i] = convert(one)
	}
	return out
}
