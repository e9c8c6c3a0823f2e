package proxy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// Past knows what tags were. Its errors are as those of the cache.
type Past interface {
	// AsOf returns what a tag had at a time, or has in a snapshot, and since when it had it. It asks nobody.
	AsOf(ctx context.Context, repo cache.Repo, tag, past string) (d v1.Hash, since time.Time, err error)
	// TagsAsOf returns the tags of a repository that AsOf knows, sorted.
	TagsAsOf(ctx context.Context, repo cache.Repo, past string) ([]string, error)
	// History returns what a tag has had, the earliest first.
	History(repo cache.Repo, tag string) ([]Held, error)
}

// Held is that a tag had a digest from a time on.
type Held struct {
	Since  time.Time `json:"updateTimestamp"`
	Digest string    `json:"digest"`
}

// find returns the manifest that is asked for: of today, or of the past.
func (h *Handler) find(x *exchange, repo cache.Repo, ref string) (*cache.Manifest, error) {
	if x.route.AsOf == "" || x.route.Digest != (v1.Hash{}) {
		return h.source.Manifest(&x.deadline, repo, ref, x.head())
	}
	if h.past == nil {
		return nil, errNoPast
	}
	d, since, err := h.past.AsOf(&x.deadline, repo, ref, x.route.AsOf)
	if err != nil {
		return nil, err
	}
	m, err := h.source.Manifest(&x.deadline, repo, d.String(), x.head())
	if err != nil {
		if x.deadline.Err() == nil && pull.DetailOf(err) != pull.ByPolicy { // what the tag points to today must not stand in for it
			err = &pull.Error{Kind: pull.NotFound, Detail: pull.ByPolicy, Code: "as-of", Upstream: repo.Upstream, Op: "get manifest " + repo.Name + "@" + d.String(),
				Message: repo.String() + ":" + ref + " was " + d.String() + " at " + x.route.AsOf + ", which cannot be had any more", Err: err}
		}
		return nil, err
	}
	dated := *m
	dated.Since = since
	return &dated, nil
}

// errNoPast refuses what needs a past where there is none.
var errNoPast = &Refusal{Status: http.StatusNotFound, Code: "UNSUPPORTED", Message: "this mirror does not tell what tags were"}

// tagsOf lists the tags of a repository in the past.
func (h *Handler) tagsOf(x *exchange) (*cache.Listing, error) {
	if h.past == nil {
		return nil, errNoPast
	}
	tags, err := h.past.TagsAsOf(&x.deadline, x.repo(), x.route.AsOf)
	return &cache.Listing{Tags: tags, Result: cache.Hit}, err
}

// history answers with what a tag has had, in the form of the extension _chainguard/history, whose
// parameters start and end leave out what it got before the one, and from the other on
// (edu.chainguard.dev, "Using the Tag History API").
func (h *Handler) history(x *exchange) error {
	if h.past == nil || !h.source.Lists(x.route.Upstream) {
		return errNoPast
	}
	var bounds [2]time.Time
	for i, name := range [...]string{"start", "end"} {
		text, given := x.query(name)
		if !given {
			continue
		}
		var ok bool
		if bounds[i], ok = wire.Instant(text); !ok {
			return &Refusal{Status: http.StatusBadRequest, Code: "UNSUPPORTED", Message: name + " must be a time as ISO 8601 writes it, such as 2026-11-01T12:00:00Z"}
		}
	}
	start, end := bounds[0], bounds[1]
	if !end.IsZero() && end.Before(start) {
		return &Refusal{Status: http.StatusBadRequest, Code: "UNSUPPORTED", Message: "end must not be before start"}
	}
	all, err := h.past.History(x.repo(), x.route.Reference)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(one Held) bool { return one.Since.Before(start) || !end.IsZero() && !one.Since.Before(end) })
	x.w.Header()["Cache-Control"] = h.static.noCache
	return x.writeJSON(struct {
		History []Held `json:"history"`
	}{all})
}

// refusedType is the media type of the answer to a client that must not go elsewhere, up to the
// rule, which clients show.
const refusedType = "application/vnd.forebay.refused."

// writeRefused answers a client that would ask the registry itself after any error: by a document
// of a type that it does not know. containerd, BuildKit and dockerd with the image store of
// containerd stop at that after a HEAD, and containers/image after a GET; dockerd with its own
// store goes on to the registry whatever it gets (docs/policies.md). Of skopeo it cannot be seen whether it
// does. The document has the digest that
// the answer says, but after the HEAD of a tag: there the former stop at what is no digest, show it, and
// ask nobody for the document.
func (h *Handler) writeRefused(x *exchange, why error) error {
	f, rule := failureOf(why), "policy"
	var e *pull.Error
	if errors.As(why, &e) && e.Code != "" {
		rule = strings.Map(func(c rune) rune {
			if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' {
				return c
			}
			return '-'
		}, strings.ToLower(e.Code))
	}
	mediaType := refusedType + rule + "+json"
	body, err := json.Marshal(struct {
		SchemaVersion int           `json:"schemaVersion"` // all that containers/image shows
		MediaType     string        `json:"mediaType"`
		Errors        [1]errorEntry `json:"errors"`
	}{http.StatusForbidden, mediaType, [1]errorEntry{{"DENIED", f.message}}})
	if err != nil {
		return err
	}
	d, _, err := v1.SHA256(bytes.NewReader(body))
	if err != nil {
		return err
	}
	header := x.w.Header()
	setContent(header, d)
	if x.head() && x.route.Digest == (v1.Hash{}) {
		delete(header, "Etag")
		header["Docker-Content-Digest"] = []string{strings.Map(func(c rune) rune {
			if c < ' ' || c > '~' {
				return '?' // a judge may have said anything
			}
			return c
		}, f.message)}
	}
	header["Content-Type"] = []string{mediaType}
	header["Cache-Control"] = h.static.noStore
	setLength(header, int64(len(body)))
	x.w.WriteHeader(http.StatusOK)
	if !x.head() {
		_, _ = x.w.Write(body) // the client is gone if it fails
	}
	return why
}
