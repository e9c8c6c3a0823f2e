package proxy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"forebay/internal/pull"
)

// Bounds on one page of referrers. containerd reads 4 MiB of an index and no more.
const (
	referrersMost      = 1000
	referrersMostBytes = 4<<20 - 4<<10 // and some for the frame around them
)

// What stands around the descriptors of an image index.
const (
	indexHead = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[`
	indexTail = `]}`
)

// referrer is a descriptor, with the bytes that the upstream gave, which are what is served.
type referrer struct {
	Digest       string `json:"digest"`
	ArtifactType string `json:"artifactType"`
	raw          json.RawMessage
}

// referrers lists the manifests whose subject is the digest. If there are none, the list is
// empty. If the upstream failed, the answer is an error: a client that checks signatures
// would take an empty list for an image without any.
func (h *Handler) referrers(x *exchange) error {
	found, err := h.source.Referrers(&x.deadline, x.repo(), x.route.Digest)
	if err != nil {
		return err
	}
	x.result = found.Result
	filter, filtered := x.query("artifactType")
	filtered = filtered && filter != ""
	list := make([]referrer, 0, len(found.Manifests))
	for _, raw := range found.Manifests {
		r := referrer{raw: raw}
		if err := json.Unmarshal(raw, &r); err != nil {
			return &pull.Error{Kind: pull.Invalid, Upstream: x.route.Upstream,
				Op: "list referrers of " + x.route.Repository + "@" + x.route.Reference, Err: fmt.Errorf("descriptor: %w", err)}
		}
		if !filtered || r.ArtifactType == filter {
			list = append(list, r)
		}
	}
	header := x.w.Header()
	if filtered {
		header.Set("OCI-Filters-Applied", "artifactType")
	}
	h.setMutable(header, found.Result)
	header.Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	return x.writeBody(x.referrersPage(list))
}

// referrersPage returns the document with the descriptors after the parameter last, and
// links to the next page if there is one. A list of several pages is ordered by digest,
// so that its pages fit together however the upstream orders it.
func (x *exchange) referrersPage(list []referrer) []byte {
	last, _ := x.query("last")
	if last != "" || !fitsPage(list) {
		slices.SortFunc(list, func(a, b referrer) int { return cmp.Compare(a.Digest, b.Digest) })
		list = slices.DeleteFunc(list, func(r referrer) bool { return last != "" && r.Digest <= last })
	}
	body := []byte(indexHead)
	for i, r := range list {
		if i > 0 {
			if i == referrersMost || len(body)+len(r.raw) > referrersMostBytes {
				x.linkNext(page{}, list[i-1].Digest)
				break
			}
			body = append(body, ',')
		}
		body = append(body, r.raw...)
	}
	return append(body, indexTail...)
}

func fitsPage(list []referrer) bool {
	size := len(indexHead)
	for _, r := range list {
		size += len(r.raw) + 1
	}
	return len(list) <= referrersMost && size <= referrersMostBytes
}
