package proxy

import (
	"net/http"
	"slices"
)

// tagList is the answer of tags/list.
type tagList struct {
	Name string   `json:"name"` // as the client spelled it, prefix and all
	Tags []string `json:"tags"`
}

// errUnlisted is the answer for tags that are no client's to know: they came by credentials of ours.
// A mirrored client asks the registry then, with its own.
var errUnlisted = &Refusal{Status: http.StatusNotFound, Code: "UNSUPPORTED", Message: "this mirror lists no tags of what it may read by its credentials: its setting catalog decides that"}

// tags lists a repository's tags: sorted, from after last, at most n.
func (h *Handler) tags(x *exchange) error {
	p, err := x.page(pageMost)
	if err != nil {
		return err
	}
	if !h.source.Lists(x.route.Upstream) {
		return errUnlisted
	}
	list, err := h.source.Tags(&x.deadline, x.repo())
	if err != nil {
		return err
	}
	x.result = list.Result
	h.setMutable(x.w.Header(), list.Result)
	tags := list.Tags
	if p.last != "" {
		i, found := slices.BinarySearch(tags, p.last)
		if found {
			i++
		}
		tags = tags[i:]
	}
	if len(tags) > p.n {
		tags = tags[:p.n]
		if p.n > 0 {
			x.linkNext(p, tags[p.n-1])
		}
	}
	if tags == nil {
		tags = []string{} // never null
	}
	return x.writeJSON(tagList{Name: x.route.Name, Tags: tags})
}
