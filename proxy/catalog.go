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
	list := []string{}
	more := p.n > 0
	for after := prefix + p.last; more && len(list) < p.n; {
		var names []string
		if names, more, err = h.source.Catalog(&x.deadline, after, p.n-len(list)); err != nil {
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
	if more { // the page is full: no name that is hidden is ever a place in the list
		x.linkNext(p, list[len(list)-1])
	}
	h.setMutable(x.w.Header(), cache.Hit)
	return x.writeJSON(repositoryList{list})
}
