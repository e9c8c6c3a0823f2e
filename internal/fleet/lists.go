package fleet

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
)

const (
	tagsPath      = "/fleet/v1/tags/"
	referrersPath = "/fleet/v1/referrers/"
	// listedFor is how long the others know who was given a list. What they get from there may be as much older
	// than its time to live.
	listedFor = 10 * time.Second
)

// ofRepo stands for a digest where a list is the repository's.
var ofRepo = v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}

func (s shared) Tags(ctx context.Context, repo string) ([]string, error) {
	return listed(ctx, s, tagsPath, repo, ofRepo, func() ([]string, error) { return s.Upstream.Tags(ctx, repo) })
}

func (s shared) Referrers(ctx context.Context, repo string, d v1.Hash) ([]json.RawMessage, error) {
	return listed(ctx, s, referrersPath, repo, d, func() ([]json.RawMessage, error) { return s.Upstream.Referrers(ctx, repo, d) })
}

// listed gets a list that one mirror asks for and the others get from it.
func listed[T any](ctx context.Context, s shared, path, repo string, d v1.Hash, own func() (T, error)) (T, error) {
	id := s.identity(ctx)
	if id == "" {
		return own()
	}
	w := s.fleet.work(id, path, path, s.name, repo, d, listedFor)
	v, done, err := either(ctx, s.fleet, w, own, func(to Member, t turn, onlyKept bool) (v T, err error) {
		if onlyKept {
			return v, errPassed
		}
		res, err := s.fleet.request(ctx, w, to, t, http.MethodGet, "", false)
		if err != nil {
			return v, err
		}
		defer res.Body.Close()
		if err := json.NewDecoder(io.LimitReader(res.Body, replyMost)).Decode(&v); err != nil {
			return v, fmt.Errorf("%w: %w", errPassed, err)
		}
		return v, nil
	})
	done(err == nil)
	return v, err
}

func (f *Fleet) sendTags(w http.ResponseWriter, r *http.Request, a *asked) error {
	list, err := a.cache.Tags(r.Context(), a.repo)
	if err != nil {
		return err
	}
	return sendList(w, list.Result, list.Tags)
}

func (f *Fleet) sendReferrers(w http.ResponseWriter, r *http.Request, a *asked) error {
	list, err := a.cache.Referrers(r.Context(), a.repo, a.digest)
	if err != nil {
		return err
	}
	return sendList(w, list.Result, list.Manifests)
}

// sendList sends a list, unless it is an old one that its registry did not confirm.
func sendList(w http.ResponseWriter, res cache.Result, list any) error {
	if res == cache.Stale {
		return errOther
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list) // who asked may have gone
	return nil
}
