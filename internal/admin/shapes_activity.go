package admin

import (
	"time"

	"forebay/internal/activity"
)

// Traffic counts requests about content, by how they were answered, and what was sent.
type Traffic struct {
	Hit           int64 `json:"hit"`    // served from what is kept
	Joined        int64 `json:"joined"` // shared what another request was waiting for
	Miss          int64 `json:"miss"`   // fetched for this request
	Stale         int64 `json:"stale"`  // served although its registry could not confirm it
	Passed        int64 `json:"passed"` // passed through and not kept
	Error         int64 `json:"error"`
	Pulls         int64 `json:"pulls"`          // GETs of manifests, as registries count them
	SavedPulls    int64 `json:"saved_pulls"`    // of these, those that cost no pull upstream
	ClientBytes   int64 `json:"client_bytes"`   // sent to clients
	UpstreamBytes int64 `json:"upstream_bytes"` // received from registries
}

// Answered is all requests about content.
func (t Traffic) Answered() int64 { return activity.Traffic(t).Answered() }

// Usage is what the mirror did for its clients since the start.
type Usage struct {
	Since time.Time `json:"since"`
	Traffic
	SavedBytes int64 `json:"saved_bytes"` // that clients got and no registry sent
	// HitRatio is the share of requests that were answered without fetching content, and
	// ByteRatio the share of bytes that no registry sent: from 0 to 1, -1 without any.
	HitRatio  float64 `json:"hit_ratio"`
	ByteRatio float64 `json:"byte_ratio"`
	Price     float64 `json:"price_per_gib"` // 0 when none is configured
	Saved     float64 `json:"saved_cost"`    // SavedBytes at that price
	Currency  string  `json:"currency"`
	// Upstreams has the same for each of them.
	Upstreams map[string]Traffic `json:"upstreams"`
}

// Series is a part of the history. The columns are as long as Times; steps in which the
// mirror did not run are left out.
type Series struct {
	Span        activity.Span      `json:"span"`
	StepSeconds int64              `json:"step_seconds"`
	Times       []int64            `json:"times"` // Unix seconds at which the steps begin
	Hit         []int64            `json:"hit"`
	Joined      []int64            `json:"joined"`
	Miss        []int64            `json:"miss"`
	Stale       []int64            `json:"stale"`
	Passed      []int64            `json:"passed"`
	Error       []int64            `json:"error"`
	Pulls       []int64            `json:"pulls"`
	SavedPulls  []int64            `json:"saved_pulls"`
	ClientBytes []int64            `json:"client_bytes"`
	FromBytes   []int64            `json:"upstream_bytes"`
	Evicted     []int64            `json:"evicted"`
	EvictedSize []int64            `json:"evicted_bytes"`
	UsedBytes   []int64            `json:"used_bytes"` // at the end of each step
	Budgets     map[string][]int64 `json:"budgets"`    // pulls left at the end of each step, by upstream; -1 when not known
	// Sum is all of it together.
	Sum Traffic `json:"sum"`
}

func seriesOf(s *activity.Series) Series {
	return Series{
		Span: s.Span, StepSeconds: s.StepSeconds, Times: s.Times,
		Hit: s.Hit, Joined: s.Joined, Miss: s.Miss, Stale: s.Stale, Passed: s.Passed, Error: s.Error,
		Pulls: s.Pulls, SavedPulls: s.SavedPulls, ClientBytes: s.ClientBytes, FromBytes: s.FromBytes,
		Evicted: s.Evicted, EvictedSize: s.EvictedSize, UsedBytes: s.UsedBytes, Budgets: s.Budgets, Sum: Traffic(s.Sum),
	}
}

// Tally is what was answered.
type Tally struct {
	Requests   int64 `json:"requests"`
	Hits       int64 `json:"hits"` // served without asking a registry for content
	Errors     int64 `json:"errors"`
	Pulls      int64 `json:"pulls"`       // GETs of manifests
	SavedPulls int64 `json:"saved_pulls"` // of these, those that cost no pull upstream
	Bytes      int64 `json:"bytes"`       // sent
}

// ClientInfo is what one client asked for.
type ClientInfo struct {
	Address   string `json:"address"`
	UserAgent string `json:"user_agent"` // of its last request
	Tally
	LastSeen  time.Time `json:"last_seen"`
	Since     time.Time `json:"since"` // when counting it began
	LastError string    `json:"last_error,omitempty"`
	ErrorAt   time.Time `json:"error_at,omitzero"`
	// Repositories are those that it asked for, the most traffic first, at most 20.
	Repositories []RepositoryUse `json:"repositories"`
}

func clientOf(c activity.ClientInfo) ClientInfo {
	return ClientInfo{
		Address: c.Address, UserAgent: c.UserAgent, Tally: Tally(c.Tally), LastSeen: c.LastSeen, Since: c.Since,
		LastError: c.LastError, ErrorAt: c.ErrorAt, Repositories: each(c.Repositories, repositoryUseOf),
	}
}

// RepositoryUse is what was asked for of one repository, by one client or by all.
type RepositoryUse struct {
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	Tally
	LastSeen time.Time `json:"last_seen"`
}

func repositoryUseOf(r activity.RepositoryUse) RepositoryUse {
	return RepositoryUse{Upstream: r.Upstream, Repository: r.Repository, Tally: Tally(r.Tally), LastSeen: r.LastSeen}
}

// ClientList is who asked most, and for what.
type ClientList struct {
	Window       activity.Window `json:"window"`
	Since        time.Time       `json:"since"` // when counting began
	Clients      []ClientInfo    `json:"clients"`
	Repositories []RepositoryUse `json:"repositories"` // of all clients
}

// Event is something that happened.
type Event struct {
	ID         int64     `json:"id"` // grows with each event, over restarts too
	At         time.Time `json:"at"`
	Kind       string    `json:"kind"` // "tag_moved", "evicted"
	Upstream   string    `json:"upstream,omitempty"`
	Repository string    `json:"repository,omitempty"`
	Tag        string    `json:"tag,omitempty"`
	Digest     string    `json:"digest,omitempty"`
	Was        string    `json:"was,omitempty"`   // of a tag that moved: its digest before
	Count      int64     `json:"count,omitempty"` // files that were removed
	Bytes      int64     `json:"bytes,omitempty"`
	Detail     string    `json:"detail,omitempty"`
}

func eventOf(e activity.Event) Event { return Event(e) }

// EventList is a part of the log, the latest first.
type EventList struct {
	Events []Event `json:"events"`
	Before int64   `json:"before,omitempty"` // what to give as before for older ones; absent at the end
}
