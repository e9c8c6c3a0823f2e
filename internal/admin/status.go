package admin

import (
	"net/http"
	"time"

	"forebay/cache"
	"forebay/cache/upkeep"
)

// Upstream is a registry: as the cache sees it, and as it says itself.
type Upstream struct {
	cache.UpstreamInfo
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

// Status is the mirror at a glance.
type Status struct {
	Version       string           `json:"version"`
	StartedAt     time.Time        `json:"started_at"`
	UptimeSeconds int64            `json:"uptime_seconds"`
	Stats         upkeep.Stats     `json:"stats"`
	Upstreams     []Upstream       `json:"upstreams"`
	Fills         []cache.FillInfo `json:"fills"`
	Jobs          []Job            `json:"jobs"` // that run
	Usage         Usage            `json:"usage"`
}

func (a *API) status(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	s, err := a.glance()
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, s)
	return nil
}

// glance gathers a Status.
func (a *API) glance() (*Status, error) {
	stats, err := a.keeper.Stats()
	if err != nil {
		return nil, err
	}
	s := &Status{
		Version: a.version, StartedAt: a.started, UptimeSeconds: int64(time.Since(a.started).Seconds()),
		Stats: stats, Upstreams: []Upstream{}, Fills: a.keeper.Cache.Fills(), Jobs: []Job{}, Usage: a.usage(),
	}
	for _, u := range a.keeper.Cache.Upstreams() {
		one := Upstream{UpstreamInfo: u}
		if a.upstream != nil {
			one.RegistryStatus = a.upstream(u.Name)
		}
		one.fillIn()
		s.Upstreams = append(s.Upstreams, one)
	}
	for _, j := range a.jobs.all() {
		if j.State == Running {
			s.Jobs = append(s.Jobs, j)
		}
	}
	return s, nil
}

// fillIn makes lists that are not there empty ones.
func (s *RegistryStatus) fillIn() {
	if s.Budgets == nil {
		s.Budgets = []Budget{}
	}
	for i := range s.Budgets {
		if s.Budgets[i].Spent == nil {
			s.Budgets[i].Spent = []Spending{}
		}
	}
	if s.Endpoints == nil {
		s.Endpoints = []Endpoint{}
	}
	if s.Limited == nil {
		s.Limited = map[string]int64{}
	}
}

func (a *API) stats(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	stats, err := a.keeper.Stats()
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, stats)
	return nil
}
