package upstream

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"

	"forebay/internal/pull"
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
	a, err := r.tagsAsk(repo, tagsPage)
	if err != nil {
		return nil, err
	}
	tags := []string{}
	err = r.eachPage(ctx, a, tagPagesMax, tagBytesMax, func(p *page) error {
		more, err := r.readTags(a, p)
		tags = append(tags, more...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return tags, nil
}

// TagsPage returns the tags of repo that the registry gives for a query, and the query of the page
// after them; "" if there is none.
func (r *Registry) TagsPage(ctx context.Context, repo, query string) (tags []string, next string, err error) {
	a, err := r.tagsAsk(repo, query)
	if err != nil {
		return nil, "", err
	}
	p, err := r.fetch(ctx, a, tagBytesMax)
	if err != nil {
		return nil, "", err
	}
	if tags, err = r.readTags(a, p); err != nil {
		return nil, "", err
	}
	further, err := p.next(a)
	switch {
	case err != nil:
		return nil, "", r.broken(a, "%w", err).err
	case further == nil:
		return tags, "", nil
	case further.query == query:
		return nil, "", r.broken(a, "its pages lead in a circle").err
	}
	return tags, further.query, nil
}

func (r *Registry) tagsAsk(repo, query string) (*ask, error) {
	a := &ask{
		op: "list tags of " + repo, method: http.MethodGet, repo: repo,
		tail: "/tags/list", query: query, accept: "application/json",
	}
	if err := validRepo(repo); err != nil {
		return nil, r.broken(a, "%w", err).err
	}
	return a, nil
}

func (r *Registry) readTags(a *ask, p *page) ([]string, error) {
	var list struct {
		Tags   []string          `json:"tags"`
		Errors []json.RawMessage `json:"errors"` // which some send with 200
	}
	if err := json.Unmarshal(p.body, &list); err != nil || len(list.Errors) > 0 {
		return nil, r.broken(a, "the answer is no list of tags").err
	}
	return slices.DeleteFunc(list.Tags, func(tag string) bool { return !wire.ValidTag(tag) }), nil // no other could be pulled
}

// eachPage calls take for every page of a listing. Listings that do not end are an
// error, since a part must not look like the whole.
func (r *Registry) eachPage(ctx context.Context, a *ask, pagesMax, bytesMax int, take func(*page) error) error {
	seen := map[string]bool{}
	left := bytesMax
	for range pagesMax {
		p, err := r.fetch(ctx, a, left)
		if pull.KindOf(err) == pull.NotFound && len(seen) > 0 { // of a listing that is there
			return r.broken(a, "a further page of it is missing").err
		}
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
		seen[a.query] = true
		if seen[next.query] {
			return r.broken(a, "its pages lead in a circle").err
		}
		a = next
	}
	return r.broken(a, "more than %d pages", pagesMax).err
}
