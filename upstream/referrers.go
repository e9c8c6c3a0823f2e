package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/internal/manifest"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

const (
	// Bounds of a whole listing of referrers (compare CVE-2023-46737: endless signatures).
	referrerPagesMax = 100
	referrerBytesMax = 16 << 20
)

// Referrers returns the descriptors of all manifests whose subject is d, unfiltered,
// each as the bytes the registry gave. No referrers is an empty list, and only if the
// registry said so.
func (r *Registry) Referrers(ctx context.Context, repo string, d v1.Hash) ([]json.RawMessage, error) {
	a := &ask{
		op: "list referrers of " + repo + "@" + d.String(), method: http.MethodGet, repo: repo,
		tail: "/referrers/" + d.String(), accept: string(types.OCIImageIndex),
	}
	if err := validRepo(repo); err != nil {
		return nil, r.broken(a, "%w", err).err
	}
	if _, err := wire.ParseDigest(d.String()); err != nil {
		return nil, r.broken(a, "%w", err).err
	}
	if e := r.preferred(a); e != nil && r.opts.Now().UnixNano() < e.noReferrers.Load() {
		return r.taggedReferrers(ctx, a, repo, d)
	}
	list := []json.RawMessage{}
	err := r.eachPage(ctx, a, referrerPagesMax, referrerBytesMax, func(p *page) error {
		found, err := r.readReferrers(a, p)
		list = append(list, found...)
		return err
	})
	switch {
	case err == nil:
		return list, nil
	case !unknownAPI(err):
		return nil, err
	}
	found, terr := r.taggedReferrers(ctx, a, repo, d)
	if len(found) == 0 && maybeRefused(err) {
		return nil, err // nobody has said that there are none
	}
	if e := r.preferred(a); e != nil && terr == nil && (len(found) > 0 || lacksReferrers(err)) {
		e.noReferrers.Store(r.opts.Now().Add(noReferrersFor).UnixNano())
	}
	return found, terr
}

// unknownAPI reports whether err may mean that the registry knows no referrers API: every
// refusal of the request, with whatever status, but for the sake of a limit.
func unknownAPI(err error) bool {
	var e *pull.Error
	return errors.As(err, &e) && (e.Kind == pull.NotFound || e.Kind == pull.Unsupported || e.Status != 0 && e.Kind == pull.Invalid || maybeRefused(err))
}

// maybeRefused reports whether err may as well mean that we may not know, or that the registry
// fails: some answer 403 and 500 to paths that they do not know. Then a list under the tag counts,
// and that there is none does not.
func maybeRefused(err error) bool {
	var e *pull.Error
	return errors.As(err, &e) && (e.Kind == pull.Denied || e.Status == http.StatusInternalServerError)
}

// noReferrersFor is for how long a registry without the referrers API is not asked for it.
const noReferrersFor = time.Hour

// lacksReferrers reports whether err says that there is no such API, and not that the
// repository or the manifest does not exist, which registries also answer with 404.
func lacksReferrers(err error) bool {
	var e *pull.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Code {
	case "NAME_UNKNOWN", "MANIFEST_UNKNOWN", "NAME_INVALID", "DENIED", "UNAUTHORIZED":
		return false
	}
	return true
}

// preferred returns the endpoint that is asked for a first while all are well, or nil.
func (r *Registry) preferred(a *ask) *endpoint {
	for _, e := range r.endpoints {
		if e.serves(a) {
			return e
		}
	}
	return nil
}

// readReferrers reads one page of the referrers API. Anything but an index, such as the
// login page that Artifact Registry has redirected to, means that there is no such API.
func (r *Registry) readReferrers(a *ask, p *page) ([]json.RawMessage, error) {
	contentType := p.header.Get("Content-Type")
	if wire.MediaType(contentType) != string(types.OCIImageIndex) {
		found, err := manifest.TypeOf(contentType, p.body)
		if err != nil || !manifest.IsIndexType(string(found)) {
			return nil, r.fail(a, pull.Unsupported, fmt.Errorf("content type %q, which is no index's", wire.Redact(contentType))).err
		}
	}
	list, err := readIndex(p.body)
	if err != nil {
		return nil, r.broken(a, "%w", err).err
	}
	return list, nil
}

// taggedReferrers reads the index that registries without the API keep under a tag made
// from the digest (OCI distribution specification, "Referrers Tag Schema").
func (r *Registry) taggedReferrers(ctx context.Context, a *ask, repo string, d v1.Hash) ([]json.RawMessage, error) {
	const hexMax = 64
	tag := d.Algorithm + "-" + d.Hex[:min(len(d.Hex), hexMax)]
	desc, body, err := r.Manifest(ctx, repo, tag)
	switch {
	case pull.KindOf(err) == pull.NotFound:
		return []json.RawMessage{}, nil
	case err != nil:
		return nil, err
	}
	if !manifest.IsIndexType(string(desc.MediaType)) {
		return nil, r.broken(a, "tag %s is no index", tag).err
	}
	list, err := readIndex(body)
	if err != nil {
		return nil, r.broken(a, "tag %s: %w", tag, err).err
	}
	return list, nil
}

// readIndex returns the descriptors of an index, each of which must have a valid digest.
func readIndex(body []byte) ([]json.RawMessage, error) {
	var index struct {
		Manifests []json.RawMessage `json:"manifests"`
	}
	if err := json.Unmarshal(body, &index); err != nil {
		return nil, errors.New("the answer is no index")
	}
	for _, raw := range index.Manifests {
		var desc struct {
			Digest string `json:"digest"`
		}
		if err := json.Unmarshal(raw, &desc); err != nil {
			return nil, errors.New("the index holds what is no descriptor")
		}
		if _, err := wire.ParseDigest(desc.Digest); err != nil {
			return nil, fmt.Errorf("the index: %w", err)
		}
	}
	return index.Manifests, nil
}
