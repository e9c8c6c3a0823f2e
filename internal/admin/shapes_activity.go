package admin

import (
	"time"

	"forebay/internal/activity"
)

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

// ClientList is who asked most, and for what.
type ClientList struct {
	Window       activity.Window `json:"window"`
	Since        time.Time       `json:"since"` // when counting began
	Clients      []ClientInfo    `json:"clients"`
	Repositories []RepositoryUse `json:"repositories"` // of all clients
}

// EventList is a part of the log, the latest first.
type EventList struct {
	Events []Event `json:"events"`
	Before int64   `json:"before,omitempty"` // what to give as before for older ones; absent at the end
}
