package admin

import (
	"net/http"

	"forebay/cache"
)

// PinList is all that is pinned.
type PinList struct {
	Pins []cache.Pin `json:"pins"`
	// Bytes is what the pins that are held take together, and LimitBytes what they may; 0 is no limit.
	Bytes      int64 `json:"bytes"`
	LimitBytes int64 `json:"limit_bytes"`
}

func (a *API) pins(w http.ResponseWriter, r *http.Request) error {
	if _, err := query(r); err != nil {
		return err
	}
	list := PinList{Pins: a.cache.Pins()}
	if list.Pins == nil {
		list.Pins = []cache.Pin{}
	}
	stats, err := a.cache.Stats()
	if err != nil {
		return err
	}
	list.Bytes, list.LimitBytes = stats.PinnedBytes, stats.PinLimitBytes
	reply(w, http.StatusOK, list)
	return nil
}

// PinRequest says what to pin.
type PinRequest struct {
	Ref       string   `json:"ref"`
	Platforms []string `json:"platforms,omitempty"` // none: those that somebody pulls
	// Fill starts a job that fetches what is missing.
	Fill bool `json:"fill,omitempty"`
}

// PinAnswer is a new pin, with the job that fetches what is missing, if there is one.
type PinAnswer struct {
	cache.Pin
	Job string `json:"job,omitempty"`
}

func (a *API) pin(w http.ResponseWriter, r *http.Request) error {
	var in PinRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	ref, err := a.reference(in.Ref)
	if err != nil {
		return err
	}
	ctx, cancel := a.changing(askTimeout)
	defer cancel()
	pin, err := a.cache.Pin(ctx, repoOf(ref), ref.Tag, ref.Digest, in.Platforms)
	if err != nil {
		return err
	}
	answer := PinAnswer{Pin: *pin}
	if in.Fill && pin.State == cache.Incomplete {
		job, err := a.startRepair(ref, in.Platforms)
		if err != nil {
			return err
		}
		answer.Job = job.ID
	}
	reply(w, http.StatusCreated, answer)
	return nil
}

func (a *API) unpin(w http.ResponseWriter, r *http.Request) error {
	ref, err := a.queryReference(r)
	if err != nil {
		return err
	}
	if err := a.cache.Unpin(repoOf(ref), ref.Tag, ref.Digest); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
