package admin

import (
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	media "github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/store"
	"forebay/cache/upkeep"
	"forebay/internal/wire"
)

// Content goes in and out here by its digest alone, for bundles. Only operators may do that:
// no repository has the content until an image is admitted.

// contentPrefix is where content itself is sent, whose size no bound on questions fits.
const contentPrefix = prefix + "/content/"

// movesContent reports whether the body of a request is content.
func movesContent(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, contentPrefix) }

func (a *API) contents(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "ref", "platforms", "referrers")
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
	var platforms []string
	if q["platforms"] != "" {
		platforms = strings.Split(q["platforms"], ",")
	}
	list, err := a.keeper.Images.Contents(r.Context(), repoOf(ref), ref.Tag, ref.Digest, platforms, referrers)
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, contentsOf(list))
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

func (a *API) takeIn(w http.ResponseWriter, r *http.Request) error {
	d, err := pathDigest(r)
	if err != nil {
		return err
	}
	if r.ContentLength < 0 {
		return &problem{http.StatusLengthRequired, "no_length", "the request must say its Content-Length"}
	}
	if err := a.keeper.TakeIn(r.Context(), d, r.ContentLength, r.Body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// digestsMost bounds the digests of one question, so that they fit into its body.
const digestsMost = 400

// lacking answers which of the given digests are not kept. Those that are kept stay for a
// day, as if they had just been put.
func (a *API) lacking(w http.ResponseWriter, r *http.Request) error {
	var in DigestList
	if err := decode(r, &in); err != nil {
		return err
	}
	if len(in.Digests) > digestsMost {
		return badRequest("%d digests are more than %d", len(in.Digests), digestsMost)
	}
	out := DigestList{Digests: []string{}}
	for _, s := range in.Digests {
		d, err := wire.ParseDigest(s)
		if err != nil {
			return badRequest("%s", err)
		}
		if !a.keeper.Expect(d) {
			out.Digests = append(out.Digests, s)
		}
	}
	reply(w, http.StatusOK, out)
	return nil
}

func (a *API) stored(w http.ResponseWriter, r *http.Request) error {
	q, err := query(r, "after", "limit")
	if err != nil {
		return err
	}
	limit, err := number("limit", q["limit"])
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
	reply(w, http.StatusOK, storedPageOf(page))
	return nil
}

func (a *API) admit(w http.ResponseWriter, r *http.Request) error {
	var in AdmitRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	ref, err := a.reference(in.Ref)
	if err != nil {
		return err
	}
	d, err := wire.ParseDigest(in.Digest)
	if err != nil {
		return badRequest("%s", err)
	}
	if ref.HasDigest() && ref.Digest != d {
		return badRequest("the name %s and the digest %s disagree", clip(in.Ref), d)
	}
	if in.Confirmed.After(time.Now()) {
		in.Confirmed = time.Time{} // the clock of another machine
	}
	root := upkeep.Root{Repo: repoOf(ref), Tag: ref.Tag, Confirmed: in.Confirmed, Desc: v1.Descriptor{Digest: d, Size: in.Size, MediaType: media.MediaType(in.MediaType)}}
	ctx, cancel := a.changing(purgeTimeout)
	defer cancel()
	done, err := a.keeper.Admit(ctx, root)
	if err != nil {
		return err
	}
	answer := admitAnswerOf(done)
	if in.Pin {
		_, err := a.keeper.Pin(ctx, root.Repo, root.Tag, d, nil)
		answer.Pinned = err == nil
		if err != nil {
			answer.PinError = err.Error()
		}
	}
	reply(w, http.StatusOK, answer)
	return nil
}

// contentProblem turns errors of content into what is answered; nil for others.
func contentProblem(err error) *problem {
	switch {
	case errors.Is(err, upkeep.ErrContent):
		return &problem{http.StatusUnprocessableEntity, "bad_content", err.Error()}
	case errors.Is(err, store.ErrNoRoom):
		return &problem{http.StatusInsufficientStorage, "no_room", err.Error()}
	}
	return nil
}
