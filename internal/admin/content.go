package admin

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/image"
	"forebay/cache/store"
	"forebay/cache/upkeep"
	"forebay/internal/bundle"
	"forebay/internal/wire"
)

// HeldFor is how long what belongs to an image is kept from eviction for who asks for that.
const HeldFor = time.Hour

// Content goes out here by its digest alone, for bundles. Only operators may do that.

func (a *API) contents(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "ref", "as_of", "platforms", "referrers", "hold")
	if err != nil {
		return err
	}
	ref, err := a.reference(q["ref"])
	if err != nil {
		return err
	}
	referrers, err := truth("referrers", q["referrers"])
	if err != nil {
		return err
	}
	hold, err := truth("hold", q["hold"])
	if err != nil {
		return err
	}
	if _, v := visiting(r); hold && !v.who.Role.may(Operate) {
		return lacks(v.who, Operate)
	}
	var platforms []string
	if q["platforms"] != "" {
		platforms = strings.Split(q["platforms"], ",")
	}
	var since time.Time
	var decided *wire.Decision
	if ref.Tag != "" && a.rules != nil {
		answers, err := a.rules.Answer(r.Context(), repoOf(ref), ref.Tag, q["as_of"])
		if err != nil {
			return err
		}
		ref.Digest, since = answers.Digest, answers.Since
		if decided, err = a.rules.Decided(repoOf(ref), ref.Tag, ref.Digest); err != nil {
			return err
		}
	}
	look := func() (*image.Contents, error) {
		return a.keeper.Images.Contents(r.Context(), repoOf(ref), ref.Tag, ref.Digest, platforms, referrers)
	}
	list, err := look()
	if err == nil && hold {
		for _, p := range list.Parts {
			a.keeper.Store.Hold(p.Digest.Hash, HeldFor)
		}
		list, err = look() // what was evicted before that is missing
	}
	if err != nil {
		return err
	}
	out := contentsOf(list)
	out.Since, out.Decided = since, decided
	reply(w, http.StatusOK, out)
	return nil
}

func pathDigest(r *http.Request) (v1.Hash, error) {
	d, err := wire.ParseDigest(r.PathValue("digest"))
	if err != nil {
		return d, badRequest("%s", err)
	}
	return d, nil
}

func (a *API) content(w http.ResponseWriter, r *http.Request) error {
	d, err := pathDigest(r)
	if err != nil {
		return err
	}
	f, size, err := a.keeper.Content(d)
	if err != nil {
		return err
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	_, _ = io.CopyN(w, f, size) // a client that left, or gets too little, sees it by the length
	return nil
}

func (a *API) stored(w http.ResponseWriter, r *http.Request) error {
	q, limit, err := part(r)
	if err != nil {
		return err
	}
	var after v1.Hash
	if q["after"] != "" {
		if after, err = wire.ParseDigest(q["after"]); err != nil {
			return badRequest("%s", err)
		}
	}
	page, err := a.keeper.Images.StoredAfter(after, limit)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, page)
	return nil
}

// contentProblem turns errors of content into what is answered; nil for others.
func contentProblem(err error) *problem {
	switch {
	case errors.Is(err, upkeep.ErrContent):
		return &problem{http.StatusUnprocessableEntity, "bad_content", err.Error()}
	case errors.Is(err, store.ErrNoRoom):
		return &problem{http.StatusInsufficientStorage, "no_room", err.Error()}
	case errors.Is(err, upkeep.ErrNoImport):
		return &problem{http.StatusNotFound, "no_import", err.Error()}
	case errors.Is(err, upkeep.ErrOlder):
		return &problem{http.StatusConflict, "older", err.Error()}
	case errors.Is(err, upkeep.ErrBusy):
		return &problem{http.StatusTooManyRequests, "too_many_imports", err.Error()}
	case errors.Is(err, bundle.ErrSignature):
		return &problem{http.StatusUnprocessableEntity, "bad_signature", err.Error()}
	}
	return nil
}
