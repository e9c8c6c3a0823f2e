package admin

import (
	"net/http"

	"forebay/cache/image"
)

func (a *API) pins() (PinList, error) {
	list := orNone(a.keeper.Images.Pins.List()) // which works out what they hold, before it is counted
	stats, err := a.keeper.Stats()
	return PinList{list, stats.PinnedBytes, stats.PinLimitBytes}, err
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
	ctx, cancel := a.changing(r, askTimeout)
	defer cancel()
	pin, err := a.keeper.Pin(ctx, repoOf(ref), ref.Tag, ref.Digest, in.Platforms)
	if err != nil {
		return err
	}
	answer := PinAnswer{Pin: *pin}
	if in.Fill && pin.State == image.Incomplete {
		job, err := a.startRepair(r, ref, in.Platforms)
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
	ctx, cancel := a.changing(r, askTimeout)
	defer cancel()
	if err := a.keeper.Images.Pins.Remove(ctx, repoOf(ref), ref.Tag, ref.Digest); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
