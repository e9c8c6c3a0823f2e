package admin

import (
	"net/http"
	"time"

	"forebay/internal/activity"
)

// DrillRequest has an outage rehearsed: no registry is asked for so long.
type DrillRequest struct {
	Minutes int `json:"minutes"` // 1 to 120
}

// drillMost bounds how long an outage is rehearsed, in minutes.
const drillMost = 120

func (a *API) beginDrill(w http.ResponseWriter, r *http.Request) error {
	var in DrillRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	if in.Minutes < 1 || in.Minutes > drillMost {
		return badRequest("minutes is %d: use 1 to %d", in.Minutes, drillMost)
	}
	return a.rehearse(w, time.Now().Add(time.Duration(in.Minutes)*time.Minute))
}

func (a *API) endDrill(w http.ResponseWriter, _ *http.Request) error {
	return a.rehearse(w, time.Now())
}

func (a *API) rehearse(w http.ResponseWriter, until time.Time) error {
	a.activity.Rehearse(until) // first, so that it has all that fails
	a.keeper.Cache.Rehearse(until)
	reply(w, http.StatusOK, a.activity.Rehearsal())
	return nil
}

// AroundList are signs that somebody does not pull through the mirror.
type AroundList struct {
	Around []activity.Around `json:"around"`
}
