package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"forebay/internal/imageset"
	"forebay/internal/manifest"
	"forebay/internal/prefetch"
)

// listMost bounds a request with a list of images: 10,000 of them have some 2 MB.
const (
	listMost   = 8 << 20
	imagesMost = 10_000
)

// entries reads the images of a request.
func (a *API) entries(images []PrefetchImage) ([]imageset.Entry, error) {
	switch {
	case len(images) == 0:
		return nil, badRequest("images is missing: name at least one image, such as nginx:1.27")
	case len(images) > imagesMost:
		return nil, badRequest("images has %d elements: use %d at most", len(images), imagesMost)
	}
	var list []imageset.Entry
	for _, image := range images {
		ref, err := a.registries().Reference(image.Ref)
		if err != nil {
			return nil, badRequest("%s%s", prefixed(image.At), err)
		}
		if ref.Tag == "" && !ref.HasDigest() {
			ref.Tag = latest
		}
		if image.Blob && !ref.HasDigest() {
			return nil, badRequest("%s%s is a blob without a digest", prefixed(image.At), clip(image.Ref))
		}
		if err := platforms(image.Platforms); err != nil {
			return nil, err
		}
		list = append(list, imageset.Entry{Ref: ref, Platforms: image.Platforms, Blob: image.Blob, At: imageset.Position{File: clip(image.At)}})
	}
	return imageset.Unique(list), nil
}

func prefixed(at string) string {
	if at == "" {
		return ""
	}
	return clip(at) + ": "
}

// platformsMost is more than any index has.
const platformsMost = 100

func platforms(list []string) error {
	if len(list) > platformsMost {
		return badRequest("platforms has %d elements: use %d at most", len(list), platformsMost)
	}
	if err := manifest.CheckPlatforms(list); err != nil {
		return badRequest("%s", err)
	}
	return nil
}

// target names a list of images.
func target(list []imageset.Entry) string {
	return several(prefetch.Name(list[0].Ref), len(list))
}

// several is what n things are called, of which first is one.
func several(first string, n int) string {
	if n > 1 {
		first += fmt.Sprintf(" and %d more", n-1)
	}
	return first
}

func (a *API) prefetch(w http.ResponseWriter, r *http.Request) error {
	var in PrefetchRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	list, err := a.entries(in.Images)
	if err != nil {
		return err
	}
	if len(in.Platforms) == 0 {
		return badRequest("platforms: %s", prefetch.ErrNoPlatform)
	}
	if err := platforms(in.Platforms); err != nil {
		return err
	}
	if in.AtOnce < 0 || in.AtOnce > prefetch.AtOnceMost {
		return badRequest("at_once is %d: use 1 to %d", in.AtOnce, prefetch.AtOnceMost)
	}
	q := prefetch.Request{
		Images: list, Platforms: in.Platforms, Referrers: in.Referrers, DryRun: in.DryRun, Wait: in.Wait, Pin: in.Pin, AtOnce: in.AtOnce,
	}
	job, err := a.jobs.start(a.order(r, "prefetch", target(list)), func(ctx context.Context, tell func(told)) (any, error) {
		return prefetch.Run(ctx, a.keeper, q, func(s prefetch.Snapshot) { tell(told{s.Total, &s}) })
	})
	return accepted(w, job, err)
}

func (a *API) lock(w http.ResponseWriter, r *http.Request) error {
	var in LockRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	list, err := a.entries(in.Images)
	if err != nil {
		return err
	}
	job, err := a.jobs.start(a.order(r, "lock", target(list)), simple(func(ctx context.Context, tell func(Progress)) (any, error) {
		locked, err := prefetch.Lock(ctx, a.keeper, list, in.Children, tell)
		if err != nil {
			return nil, err
		}
		return locked, a.explain(ctx, locked.File.Images)
	}))
	return accepted(w, job, err)
}

// explain says of locked images since when and why tags that a rule is about answer with them.
func (a *API) explain(ctx context.Context, images []imageset.LockedImage) error {
	for i := range images {
		image := &images[i]
		ref, err := a.reference(image.Ref)
		if err != nil {
			return err
		}
		if ref.HasDigest() || a.rules == nil || !a.rules.Concerns(repoOf(ref), ref.Tag) {
			continue
		}
		if answers, err := a.rules.Answer(ctx, repoOf(ref), ref.Tag, ""); err == nil && answers.Digest == image.Digest.Hash {
			image.Since = answers.Since.UTC()
		}
		if image.Decided, err = a.rules.Decided(repoOf(ref), ref.Tag, image.Digest.Hash); err != nil {
			return err
		}
	}
	return nil
}

func (a *API) listSets() []PrefetchSet {
	if a.sets == nil {
		return []PrefetchSet{}
	}
	return a.sets.List()
}

func (a *API) prefetchSet(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("set")
	for _, s := range a.listSets() {
		if s.Name == name {
			reply(w, http.StatusOK, s)
			return nil
		}
	}
	return &problem{http.StatusNotFound, "no_set", fmt.Sprintf("there is no prefetch set %q in the configuration", clip(name))}
}

func (a *API) runSet(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("set")
	err := prefetch.ErrNoSet
	if a.sets != nil {
		err = a.sets.Start(name)
	}
	switch {
	case errors.Is(err, prefetch.ErrNoSet):
		return &problem{http.StatusNotFound, "no_set", fmt.Sprintf("there is no prefetch set %q in the configuration", clip(name))}
	case errors.Is(err, prefetch.ErrRunning):
		return &problem{http.StatusConflict, "running", err.Error()}
	case err != nil:
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

func (a *API) clearWanted(w http.ResponseWriter, _ *http.Request) error {
	n, err := a.keeper.Cache.Wanted().Clear()
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, Cleared{n})
	return nil
}

func (a *API) forgetVanished(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "ref")
	if err == nil {
		err = a.keeper.ForgetGone(q["ref"])
	}
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}
