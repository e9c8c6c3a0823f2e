package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"forebay/cache"
	"forebay/cache/image"
	"forebay/cache/store"
	"forebay/cache/upkeep"
	"forebay/internal/wire"
)

// latest is the tag of a name without one, as for every client.
const latest = "latest"

// reference reads the name of one image.
func (a *API) reference(s string) (wire.Reference, error) {
	if s == "" {
		return wire.Reference{}, badRequest("ref is missing: name an image, such as nginx:1.27 or ghcr.io/owner/app")
	}
	ref, err := a.registries().Reference(s)
	if err != nil {
		return ref, err
	}
	switch {
	case ref.HasDigest():
		ref.Tag = ""
	case ref.Tag == "":
		ref.Tag = latest
	}
	return ref, nil
}

func repoOf(r wire.Reference) cache.Repo { return cache.Repo{Upstream: r.Upstream, Name: r.Repository} }

func (a *API) repositories(w http.ResponseWriter, r *http.Request) error {
	q, limit, err := part(r)
	if err != nil {
		return err
	}
	page, err := a.keeper.Images.Repositories(q["after"], limit)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, page)
	return nil
}

func (a *API) images(w http.ResponseWriter, r *http.Request) error {
	q, limit, err := part(r, "pattern", "missing")
	if err != nil {
		return err
	}
	missing, err := truth("missing", q["missing"])
	if err != nil {
		return err
	}
	ask := image.Query{Missing: missing, After: q["after"], Limit: limit}
	switch pattern := q["pattern"]; {
	case pattern == "":
	case strings.ContainsAny(pattern, "*?["):
		ask.Match = pattern
	default:
		ref, err := a.registries().Reference(pattern)
		if err != nil {
			return err
		}
		if ref.HasDigest() || ref.Tag != "" {
			return a.oneImage(w, ref, missing)
		}
		ask.Repo = repoOf(ref)
	}
	page, err := a.keeper.Images.List(r.Context(), ask)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, imagePageOf(page))
	return nil
}

// oneImage answers a list for a pattern that names a single image.
func (a *API) oneImage(w http.ResponseWriter, ref wire.Reference, missing bool) error {
	page := ImagePage{Images: []Image{}}
	found, err := a.keeper.Images.Inspect(repoOf(ref), ref.Tag, ref.Digest)
	if err == nil && (!missing || found.State == image.Incomplete) {
		for i := range found.Platforms {
			found.Platforms[i].Parts = nil
		}
		page.Images = append(page.Images, imageOf(*found))
	}
	if err != nil && problemOf(err).code != "not_kept" {
		return err
	}
	reply(w, http.StatusOK, page)
	return nil
}

func (a *API) image(w http.ResponseWriter, r *http.Request) error {
	ref, err := a.queryReference(r)
	if err != nil {
		return err
	}
	found, err := a.keeper.Images.Inspect(repoOf(ref), ref.Tag, ref.Digest)
	if err != nil {
		return err
	}
	i := imageOf(*found)
	if a.rules != nil {
		i.Signatures = a.rules.Signatures(repoOf(ref), ref.Tag, found.Digest)
	}
	reply(w, http.StatusOK, i)
	return nil
}

func (a *API) queryReference(r *http.Request) (wire.Reference, error) {
	q, err := query(r, "ref")
	if err != nil {
		return wire.Reference{}, err
	}
	return a.reference(q["ref"])
}

func (a *API) history(w http.ResponseWriter, r *http.Request) error {
	ref, err := a.queryReference(r)
	if err != nil {
		return err
	}
	if ref.HasDigest() {
		return badRequest("a digest has no history: name a tag")
	}
	list, err := a.keeper.Images.History(repoOf(ref), ref.Tag)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, History{ref.String(), list})
	return nil
}

func (a *API) refresh(w http.ResponseWriter, r *http.Request) error {
	var in RefRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	ref, err := a.reference(in.Ref)
	if err != nil {
		return err
	}
	if ref.HasDigest() {
		return badRequest("what a digest means never changes: name a tag")
	}
	ctx, cancel := a.changing(r, askTimeout)
	defer cancel()
	found, err := a.keeper.Refresh(ctx, repoOf(ref), ref.Tag)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, RefreshAnswer{ref.String(), *found})
	return nil
}

// purgesMost bounds the targets of one request, so that they fit into its body, and waitMost for
// how long one can be taken back, in seconds.
const (
	purgesMost = 500
	waitMost   = 60
)

func (a *API) purge(w http.ResponseWriter, r *http.Request) error {
	var in PurgeRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	ctx, cancel := a.changing(r, purgeTimeout)
	defer cancel()
	done, err := a.purgeOne(ctx, in.Target, upkeep.PurgeOptions{Force: in.Force, DryRun: in.DryRun})
	if err == nil {
		reply(w, http.StatusOK, done)
	}
	return err
}

// purgeLater purges one or several after a while, in which it can be taken back: by whoever cancels
// the job, wherever it was begun.
func (a *API) purgeLater(w http.ResponseWriter, r *http.Request) error {
	var in PurgesRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	switch {
	case len(in.Targets) == 0:
		return badRequest("targets is missing: name at least one image, repository or digest")
	case len(in.Targets) > purgesMost:
		return badRequest("targets has %d elements: use %d at most", len(in.Targets), purgesMost)
	case in.WaitSeconds < 0 || in.WaitSeconds > waitMost:
		return badRequest("wait_seconds is %d: use 0 to %d", in.WaitSeconds, waitMost)
	}
	o := upkeep.PurgeOptions{Force: in.Force}
	// What is wrong is told now, not when nobody looks any more.
	for _, t := range in.Targets {
		if _, err := a.purgeOne(r.Context(), t, upkeep.PurgeOptions{Force: in.Force, DryRun: true}); err != nil {
			return err
		}
	}
	ask := a.order(r, "purge", several(clip(in.Targets[0]), len(in.Targets)))
	ask.wait = time.Duration(in.WaitSeconds) * time.Second
	job, err := a.jobs.start(ask, func(ctx context.Context, tell func(told)) (any, error) {
		all := PurgeAnswer{Target: ask.target, What: "images"}
		var failed error
		for i, t := range in.Targets {
			done, err := a.purgeOne(ctx, t, o)
			if errors.Is(err, store.ErrNotKept) {
				err = nil // it was there, and went with another or by somebody else
			}
			if all.Add(done.Purged); len(in.Targets) == 1 {
				all.Target, all.What = done.Target, done.What
			}
			failed = errors.Join(failed, err)
			tell(told{Progress: Progress{Items: int64(i + 1), ItemsTotal: int64(len(in.Targets)), Bytes: all.Bytes}})
		}
		return all, failed
	})
	return accepted(w, job, err)
}

// purgeOne purges an image, a repository or a digest.
func (a *API) purgeOne(ctx context.Context, target string, o upkeep.PurgeOptions) (PurgeAnswer, error) {
	if target == "" {
		return PurgeAnswer{}, badRequest("target is missing: name an image, a repository or a digest")
	}
	if d, err := wire.ParseDigest(target); err == nil {
		done, err := a.keeper.PurgeDigest(ctx, d, o)
		return PurgeAnswer{d.String(), "digest", done}, err
	}
	ref, err := a.registries().Reference(target)
	if err != nil {
		return PurgeAnswer{}, err
	}
	if ref.Tag == "" && !ref.HasDigest() {
		done, err := a.keeper.PurgeRepository(ctx, repoOf(ref), o)
		return PurgeAnswer{ref.Name(), "repository", done}, err
	}
	if ref.HasDigest() {
		ref.Tag = ""
	}
	done, err := a.keeper.PurgeImage(ctx, repoOf(ref), ref.Tag, ref.Digest, o)
	return PurgeAnswer{ref.String(), "image", done}, err
}

func (a *API) cancelFill(w http.ResponseWriter, r *http.Request) error {
	d, err := pathDigest(r)
	if err != nil {
		return err
	}
	if a.keeper.Cache.Fills().Cancel(d) == 0 {
		return &problem{http.StatusNotFound, "no_fill", fmt.Sprintf("%s is not being fetched", d)}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
