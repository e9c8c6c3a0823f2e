package proxy

import (
	"strings"

	"forebay/cache"
)

// catalogMost bounds one page of the catalog.
const catalogMost = 1000

type repositoryList struct {
	Repositories []string `json:"repositories"`
}

// catalog lists the repositories that have something in the cache, by the names under which
// this client can pull them: with the registry in front, unless the request names one.
func (h *Handler) catalog(x *exchange) error {
	p, err := x.page(catalogMost)
	if err != nil {
		return err
	}
	prefix := ""
	if x.route.Upstream != "" {
		prefix = x.route.Upstream + "/"
	}
	list, wanted, most, more := []string{}, p.n, p.n, p.n > 0
	gated := x.guest.May != nil
	if gated {
		// Of many names the client may see few. One more than the page has tells whether there is
		// another page: what is hidden is neither a place in the list nor a reason for a link.
		wanted, most = p.n+1, catalogMost
	}
	for after := prefix + p.last; more && len(list) < wanted; {
		var names []string
		if names, more, err = h.source.Catalog(&x.deadline, after, most); err != nil {
			return err
		}
		more = more && len(names) > 0
		for _, full := range names {
			name, ok := strings.CutPrefix(full, prefix)
			if !ok {
				more = false // sorted: the rest belongs to other registries too
				break
			}
			if after = full; x.sees(full) {
				list = append(list, name)
			}
		}
	}
	x.result = cache.Hit
	if gated {
		more = len(list) > p.n
		list = list[:min(len(list), p.n)]
	}
	if more && len(list) > 0 {
		x.linkNext(p, list[len(list)-1])
	}
	h.setMutable(x.w.Header(), cache.Hit)
	return x.writeJSON(repositoryList{list})
}
