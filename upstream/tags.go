package upstream

import (
	"context"
	"encoding/json"
	"net/http"

	"forebay/internal/wire"
)

const (
	// tagsPage is the page size that is asked for. Registries cap it, and Docker Hub
	// ignores it.
	tagsPage = "n=1000"
	// Bounds of a whole listing. Some images have 50,000 tags of 40 bytes.
	tagPagesMax = 1000
	tagBytesMax = 64 << 20
)

// Tags returns all tags of repo in the registry's order, from all pages.
func (r *Registry) Tags(ctx context.Context, repo string) ([]string, error) {
	a := &ask{
		op: "list tags of " + repo, method: http.MethodGet, repo: repo,
		tail: "/tags/list", query: tagsPage, accept: "application/json",
	}
	if err := validRepo(repo); err != nil {
		return nil, r.broken(a, "%w", err).err
	}
	tags := []string{}
	err := r.eachPage(ctx, a, tagPagesMax, tagBytesMax, func(p *page) error {
		var list struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(p.body, &list); err != nil {
			return r.broken(a, "the answer is no list of tags").err
		}
		for _, tag := range list.Tags {
			if wire.ValidTag(tag) { // nothing else could be pulled
				tags = append(tags, tag)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return tags, nil
}

// eachPage calls take for every page of a listing. Listings that do not end are an
// error, since a part must not look like the whole.
func (r *Registry) eachPage(ctx context.Context, a *ask, pagesMax, bytesMax int, take func(*page) error) error {
	seen := map[string]bool{}
	left := bytesMax
	for range pagesMax {
		p, err := r.fetch(ctx, a, left)
		if err != nil {
			return err
		}
		if err := take(p); err != nil {
			return err
		}
		left -= len(p.body)
		next, err := p.next(a)
		if err != nil {
			return r.broken(a, "%w", err).err
		}
		if next == nil {
			return nil
		}
		seen[p.url.String()] = true
		if seen[next.page.String()] {
			return r.broken(a, "its pages lead in a circle").err
		}
		a = next
	}
	return r.broken(a, "more than %d pages", pagesMax).err
}
