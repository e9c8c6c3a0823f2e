package proxy

import (
	"fmt"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/internal/manifest"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// manifest answers with a manifest or index, by tag or digest, in the bytes and with the
// type that the upstream gave: nothing is converted to what the client prefers.
func (h *Handler) manifest(x *exchange) error {
	repo, ref := x.repo(), x.route.Reference
	if x.stays() && h.source.Troubled(repo) {
		return unavailable(x, "get manifest "+repo.Name, "a blob of this repository could not be had a short while ago")
	}
	accept := x.r.Header["Accept"]
	x.deadline.accept = manifest.MoreTypes(accept)
	m, err := h.find(x, repo, ref)
	if pull.DetailOf(err) == pull.ByPolicy && (x.mirrored || h.fallback == FallbackClients && x.client == wire.Skopeo) && (x.head() || x.route.Digest == (v1.Hash{})) {
		return h.writeRefused(x, err)
	}
	if err != nil {
		return err
	}
	x.result = m.Result
	if err := h.checkManifest(x, m); err != nil {
		return err
	}
	if !wire.Accepts(accept, string(m.Desc.MediaType)) {
		return &Refusal{Status: http.StatusNotFound, Code: "MANIFEST_UNKNOWN", Message: fmt.Sprintf("the manifest is of type %s, which the Accept header does not allow", m.Desc.MediaType)}
	}
	if x.stays() && !x.head() && !h.source.Servable(&x.deadline, repo, m) {
		return unavailable(x, "get manifest "+repo.Name, "its blobs are not all cached")
	}
	return h.writeManifest(x, m)
}

// checkManifest refuses a manifest that clients would fail on for good: containerd asks
// nobody else after a HEAD without type or length, or with a wrong digest.
func (h *Handler) checkManifest(x *exchange, m *cache.Manifest) error {
	var why string
	switch {
	case m.Desc.MediaType == "":
		why = "the manifest has no media type"
	case m.Desc.Size <= 0:
		why = "the manifest is empty"
	case m.Desc.Digest == (v1.Hash{}):
		why = "the manifest has no digest"
	case x.route.Digest != (v1.Hash{}) && m.Desc.Digest != x.route.Digest:
		why = "the manifest has another digest"
	case !x.head() && int64(len(m.Bytes)) != m.Desc.Size:
		why = "the manifest has another size"
	default:
		return nil
	}
	return &pull.Error{Kind: pull.Invalid, Upstream: x.route.Upstream, Op: "get manifest " + x.route.Repository, Message: why}
}

func (h *Handler) writeManifest(x *exchange, m *cache.Manifest) error {
	header := x.w.Header()
	setContent(header, m.Desc.Digest)
	h.setBudget(x, header)
	if x.route.Digest != (v1.Hash{}) {
		header["Cache-Control"] = h.static.immutable
	} else {
		header["Cache-Control"] = h.static.noCache
		if !m.Since.IsZero() {
			header["Last-Modified"] = []string{m.Since.UTC().Format(http.TimeFormat)}
		}
	}
	if m.StaleFor > 0 || m.Result == cache.Stale {
		header["Warning"] = h.static.stale
	}
	if err := x.unlessMatch(m.Desc.Digest); err != nil {
		return err
	}
	if wire.MatchesETag(x.r.Header["If-None-Match"], header["Docker-Content-Digest"][0]) {
		return x.notModified()
	}
	header["Content-Type"] = []string{string(m.Desc.MediaType)}
	setLength(header, m.Desc.Size)
	x.w.WriteHeader(http.StatusOK)
	if x.head() {
		return nil
	}
	_, err := x.w.Write(m.Bytes)
	return err
}
