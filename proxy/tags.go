package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"forebay/cache"
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
	list, err := h.tagsNow(x, p)
	if err != nil {
		return err
	}
	x.result = list.Result
	h.setMutable(x.w.Header(), list.Result)
	if list.Result == cache.Passed {
		if list.Next != "" {
			x.link(p, "next", list.Next)
		}
		return x.writeJSON(tagList{Name: x.route.Name, Tags: append([]string{}, list.Tags...)})
	}
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

// tagsNow lists the tags of today, or those of the past that is asked for.
func (h *Handler) tagsNow(x *exchange, p page) (*cache.Listing, error) {
	if x.route.AsOf != "" {
		return h.tagsOf(x)
	}
	return h.listTags(x, p)
}

// wholeListWithin is how long a client waits for all tags of a repository. Some have 200,000, of which
// a registry gives a thousand in 120 ms.
const wholeListWithin = 2500 * time.Millisecond

// pageWithin bounds that and one page, so that clients hear in time.
const pageWithin = 15 * time.Second

// pageQueryMost bounds the query of a page of a registry.
const pageQueryMost = 2 << 10

// listTags returns all tags or, as long as that takes too long, the page of the registry that was asked for. Whoever
// has such a page goes on with those behind it, whose order may be another than ours.
func (h *Handler) listTags(x *exchange, p page) (*cache.Listing, error) {
	ctx, cancel := context.WithTimeout(&x.deadline, pageWithin)
	defer cancel()
	if next, ok := x.query("next"); ok {
		if _, err := url.ParseQuery(next); err != nil || len(next) > pageQueryMost {
			return nil, &Refusal{Status: http.StatusBadRequest, Code: "UNSUPPORTED", Message: "next must come from the Link of a page"}
		}
		return h.source.TagsPage(ctx, x.repo(), next)
	}
	list, err := h.wholeList(x)
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return list, err
	}
	query := url.Values{"n": {strconv.Itoa(min(p.n, registryPage))}}
	if p.last != "" {
		query.Set("last", p.last)
	}
	return h.source.TagsPage(ctx, x.repo(), query.Encode())
}

func (h *Handler) wholeList(x *exchange) (*cache.Listing, error) {
	ctx, cancel := context.WithTimeout(&x.deadline, wholeListWithin)
	defer cancel()
	return h.source.Tags(ctx, x.repo())
}

// registryPage is the page that registries are asked for at most. Those that give fewer say so by a Link.
const registryPage = 1000
