// Package trouble says what is wrong with the mirror now: since when, why, what is served all the
// same, what to do, and where to look.
//
// It is the only place that judges that. The page, the command line, the admin API, /readyz and
// the metrics show what it says, in its words. Its texts come from registries and clients in
// part: whoever shows them must escape them.
package trouble

import "time"

// Trouble is one thing that is wrong.
type Trouble struct {
	ID       string    `json:"id"` // stays the same while it lasts
	Kind     Kind      `json:"kind"`
	Severity Severity  `json:"severity"`
	Upstream string    `json:"upstream,omitempty"` // empty where none is concerned
	What     string    `json:"what"`               // in one line, without names of repositories, clients and files: everybody may read it
	Since    time.Time `json:"since"`
	Until    time.Time `json:"until,omitzero"` // when it is expected to end, or to get worse where Kind is Budget; zero when that is not known
	Cause    string    `json:"cause"`
	Served   string    `json:"served"` // what clients get all the same
	Do       string    `json:"do"`
	// View is where the page shows more, and Command what shows more on a terminal.
	View    string `json:"view"`
	Command string `json:"command"`
	Detail  string `json:"detail,omitempty"` // what was said last, as it was said; it may name files
}

// Kind says what a trouble is about.
type Kind string

// The kinds.
const (
	Limit         Kind = "limit"         // a registry has no pulls left for us, or refuses all requests
	Budget        Kind = "budget"        // its pulls run out
	Upstream      Kind = "upstream"      // it fails
	Endpoint      Kind = "endpoint"      // one of several ways to it fails
	Repository    Kind = "repository"    // something of it fails
	Disk          Kind = "disk"          // it refuses, or is nearly full
	Index         Kind = "index"         // it cannot be written
	Bucket        Kind = "bucket"        // it fails
	Fleet         Kind = "fleet"         // other mirrors cannot be told, nor tell
	Room          Kind = "room"          // the store is too small for its use
	Verification  Kind = "verification"  // content did not have its digest
	Gone          Kind = "gone"          // images that their registries do not have any more
	Clients       Kind = "clients"       // some reached a limit of ours
	Configuration Kind = "configuration" // it gives away what is secret
	Drill         Kind = "drill"         // an outage is rehearsed
)

// Severity says how urgent a trouble is.
type Severity string

// The severities.
const (
	Critical Severity = "critical" // clients do not get what they ask for
	Warning  Severity = "warning"  // they may come not to
	Notice   Severity = "notice"   // nobody waits for it to be mended
)

// rank orders them, the most urgent first.
func (s Severity) rank() int {
	switch s {
	case Critical:
		return 0
	case Warning:
		return 1
	}
	return 2
}
