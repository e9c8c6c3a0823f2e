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
	names := []string{}
	more := false
	if p.n > 0 {
		names, more, err = h.source.Catalog(&x.deadline, prefix+p.last, p.n)
		if err != nil {
			return err
		}
	}
	x.result = cache.Hit
	list := make([]string, 0, len(names))
	for _, name := range names {
		name, ok := strings.CutPrefix(name, prefix)
		if !ok {
			more = false // sorted: the rest belongs to other registries too
			break
		}
		list = append(list, name)
	}
	if more && len(list) > 0 {
		x.linkNext(p, list[len(list)-1])
	}
	h.setMutable(x.w.Header(), cache.Hit)
	return x.writeJSON(repositoryList{list})
}
