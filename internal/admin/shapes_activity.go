package admin

import (
	"time"

	"forebay/internal/activity"
)

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
