package admin

import (
	"time"

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

// ReplicaList is the mirrors of the fleet; without one there is none.
type ReplicaList struct {
	Replicas []fleet.Replica `json:"replicas"`
}
