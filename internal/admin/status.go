package admin

import (
	"net/http"
	"time"

	"forebay/cache"
)

// Budget is what a registry says that it will still give to one identity.
type Budget struct {
	Upstream      string    `json:"upstream"`
	Credential    string    `json:"credential"`     // user name, or "anonymous"
	Limit         int64     `json:"limit"`          // pulls in a window; -1 when it did not say
	Remaining     int64     `json:"remaining"`      // pulls left; -1 when it did not say
	WindowSeconds int64     `json:"window_seconds"` // 0 when it did not say
	SeenAt        time.Time `json:"seen_at"`
}

// Status is the mirror at a glance.
type Status struct {
	Version       string               `json:"version"`
	StartedAt     time.Time            `json:"started_at"`
	UptimeSeconds int64                `json:"uptime_seconds"`
	Stats         cache.Stats          `json:"stats"`
	Upstreams     []cache.UpstreamInfo `json:"upstreams"`
	Budgets       []Budget             `json:"budgets"`
	Fills         []cache.FillInfo     `json:"fills"`
	Jobs          []Job                `json:"jobs"` // that run
}

func (a *API) status(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	stats, err := a.cache.Stats()
	if err != nil {
		return err
	}
	s := Status{
		Version: a.version, StartedAt: a.started, UptimeSeconds: int64(time.Since(a.started).Seconds()),
		Stats: stats, Upstreams: a.cache.Upstreams(), Budgets: []Budget{}, Fills: a.cache.Fills(), Jobs: []Job{},
	}
	if a.budgets != nil {
		s.Budgets = append(s.Budgets, a.budgets()...)
	}
	for _, j := range a.jobs.all() {
		if j.State == Running {
			s.Jobs = append(s.Jobs, j)
		}
	}
	reply(w, http.StatusOK, s)
	return nil
}

func (a *API) stats(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	stats, err := a.cache.Stats()
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, stats)
	return nil
}
