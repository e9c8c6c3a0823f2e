package admin

import (
	"net/http"
	"strings"

	"forebay/cache"
	"forebay/cache/image"
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
	q, err := query(r, "after", "limit")
	if err != nil {
		return err
	}
	limit, err := number("limit", q["limit"])
	if err != nil {
		return err
	}
	page, err := a.keeper.Images.Repositories(q["after"], limit)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, repositoryPageOf(page))
	return nil
}

func (a *API) images(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "pattern", "missing", "after", "limit")
	if err != nil {
		return err
	}
	limit, err := number("limit", q["limit"])
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
	reply(w, http.StatusOK, imageOf(*found))
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
	reply(w, http.StatusOK, History{ref.String(), each(list, bindingOf)})
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
	reply(w, http.StatusOK, RefreshAnswer{ref.String(), Refreshed(*found)})
	return nil
}

func (a *API) purge(w http.ResponseWriter, r *http.Request) error {
	var in PurgeRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	if in.Target == "" {
		return badRequest("target is missing: name an image, a repository or a digest")
	}
	ctx, cancel := a.changing(r, purgeTimeout)
	defer cancel()
	if d, err := wire.ParseDigest(in.Target); err == nil {
		done, err := a.keeper.PurgeDigest(ctx, d, in.Force)
		return purged(w, PurgeAnswer{d.String(), "digest", Purged(done)}, err)
	}
	ref, err := a.registries().Reference(in.Target)
	if err != nil {
		return err
	}
	if ref.Tag == "" && !ref.HasDigest() {
		done, err := a.keeper.PurgeRepository(ctx, repoOf(ref), in.Force)
		return purged(w, PurgeAnswer{ref.Name(), "repository", Purged(done)}, err)
	}
	if ref.HasDigest() {
		ref.Tag = ""
	}
	done, err := a.keeper.PurgeImage(ctx, repoOf(ref), ref.Tag, ref.Digest, in.Force)
	return purged(w, PurgeAnswer{ref.String(), "image", Purged(done)}, err)
}

func purged(w http.ResponseWriter, answer PurgeAnswer, err error) error {
	if err == nil {
		reply(w, http.StatusOK, answer)
	}
	return err
}
