package hubtest

import (
	"cmp"
	"encoding/json"
	"hash/fnv"
	"net/http"
	"slices"
	"strings"
	"time"
)

// repositories serves what is below a namespace: its repositories, one of them, the
// tags of one, one tag.
func (q hubAPIQuery) repositories(namespace string, rest []string) *Reply {
	if len(rest) == 0 {
		return q.page(q.listed(func(name string) bool { return strings.HasPrefix(name, namespace+"/") }))
	}
	name := namespace + "/" + rest[0]
	if !q.mayRead(name) {
		return objectNotFound() // and not 403: it must not tell what exists
	}
	switch {
	case len(rest) == 1:
		return jsonReply(http.StatusOK, q.repoObject(name))
	case rest[1] != "tags" || len(rest) > 3:
		return objectNotFound()
	case q.opts().HubAPI.NeedToken && q.user == nil:
		return hubAPIError(http.StatusUnauthorized, "Authentication credentials were not provided.")
	case len(rest) == 2:
		return q.page(q.tagObjects(name))
	}
	if tag, ok := q.tagObject(name, rest[2]); ok {
		return jsonReply(http.StatusOK, tag)
	}
	return jsonReply(http.StatusNotFound, map[string]any{"message": "tag '" + rest[2] + "' not found", "errinfo": map[string]string{"tag": rest[2]}})
}

func (q hubAPIQuery) mayRead(name string) bool {
	q.mu.RLock()
	defer q.mu.RUnlock()
	r := q.repos[name]
	return r != nil && (!r.opts.Private || q.user != nil && q.user.mayRead(name))
}

// listed returns the objects of the repositories that match and may be read, by name.
func (q hubAPIQuery) listed(match func(name string) bool) []any {
	q.mu.RLock()
	var names []string
	for name := range q.repos {
		if match(name) {
			names = append(names, name)
		}
	}
	q.mu.RUnlock()
	slices.Sort(names)
	var all []any
	for _, name := range names {
		if q.mayRead(name) {
			all = append(all, q.repoObject(name))
		}
	}
	return all
}

// repoObject has the fields of an object that was captured in 2025.
func (q hubAPIQuery) repoObject(name string) map[string]any {
	q.mu.RLock()
	defer q.mu.RUnlock()
	private := false
	var updated time.Time
	if r := q.repos[name]; r != nil {
		private = r.opts.Private
		for _, list := range r.changes {
			for _, c := range list {
				if c.at.After(updated) {
					updated = c.at
				}
			}
		}
	}
	namespace, short, _ := strings.Cut(name, "/")
	return map[string]any{
		"name": short, "namespace": namespace, "repository_type": "image", "status": 1, "status_description": "active",
		"description": "A repository of the test hub", "is_private": private, "star_count": 0, "pull_count": q.numberOf(name),
		"last_updated": stamp(updated), "last_modified": stamp(updated), "date_registered": stamp(updated), "affiliation": "",
		"media_types": []string{OCIIndex}, "content_types": []string{"image"}, "categories": []any{},
		"immutable_tags_settings": map[string]any{"enabled": false, "rules": []string{".*"}},
	}
}

// stamp writes a time as the API does, in UTC with microseconds.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000000Z")
}

func (q hubAPIQuery) numberOf(name string) uint32 {
	f := fnv.New32a()
	_, _ = f.Write([]byte(name)) // a hash takes everything
	return f.Sum32() >> 8
}

func (q hubAPIQuery) account(name string) *Reply {
	q.mu.RLock()
	u := q.users[name]
	q.mu.RUnlock()
	if u == nil {
		return objectNotFound()
	}
	return jsonReply(http.StatusOK, map[string]any{
		"id": "0123456789abcdef", "uuid": "01234567-89ab-cdef-0123-456789abcdef", "username": name, "full_name": "", "location": "",
		"company": "", "profile_url": "", "date_joined": stamp(q.fixed.Now()), "gravatar_url": "", "gravatar_email": "", "type": "User",
	})
}

func (q hubAPIQuery) search() *Reply {
	text := q.query.Get("query")
	var hits []any
	for _, o := range q.listed(func(name string) bool { return strings.Contains(name, text) }) {
		repo := o.(map[string]any)
		namespace, short := repo["namespace"].(string), repo["name"].(string)
		hit := map[string]any{
			"repo_name": namespace + "/" + short, "short_description": repo["description"], "star_count": 0,
			"pull_count": repo["pull_count"], "repo_owner": "", "is_automated": false, "is_official": namespace == "library",
		}
		if namespace == "library" {
			hit["repo_name"] = short
		}
		hits = append(hits, hit)
	}
	return q.page(hits)
}

// tagAt is a tag as it was at a time.
type tagAt struct {
	name   string
	digest string
	since  time.Time
}

// tagsAt returns the tags of a repository as they were Lag ago.
func (q hubAPIQuery) tagsAt(repo string) []tagAt {
	when := q.Now().Add(-q.opts().HubAPI.Lag)
	q.mu.RLock()
	defer q.mu.RUnlock()
	r := q.repos[repo]
	if r == nil {
		return nil
	}
	var all []tagAt
	for name, changes := range r.changes {
		t := tagAt{name: name}
		for _, c := range changes {
			if !c.at.After(when) {
				t.digest, t.since = c.digest, c.at
			}
		}
		if t.digest != "" {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b tagAt) int { return strings.Compare(a.name, b.name) })
	return all
}

func (q hubAPIQuery) tagObject(repo, name string) (any, bool) {
	for _, t := range q.tagsAt(repo) {
		if t.name == name {
			return q.objectOf(repo, t), true
		}
	}
	return nil, false
}

// tagObjects returns all tags that match ?name=, latest first (?ordering=name: by name).
func (q hubAPIQuery) tagObjects(repo string) []any {
	tags := slices.DeleteFunc(q.tagsAt(repo), func(t tagAt) bool { return !strings.Contains(t.name, q.query.Get("name")) })
	if q.query.Get("ordering") != "name" {
		slices.SortStableFunc(tags, func(a, b tagAt) int { return b.since.Compare(a.since) })
	}
	all := make([]any, len(tags))
	for i, t := range tags {
		all[i] = q.objectOf(repo, t)
	}
	return all
}

func (q hubAPIQuery) objectOf(repo string, t tagAt) any {
	q.mu.RLock()
	defer q.mu.RUnlock()
	var m storedBytes
	if r := q.repos[repo]; r != nil {
		m = r.manifests[t.digest]
	}
	o := map[string]any{
		"creator": 7, "id": q.numberOf(repo + ":" + t.name), "last_updated": stamp(t.since), "last_updater": 7,
		"last_updater_username": "doijanky", "name": t.name, "repository": q.numberOf(repo), "v2": true,
		"tag_status": "active", "tag_last_pulled": nil, "tag_last_pushed": stamp(t.since),
		"media_type": m.mediaType, "content_type": "image",
	}
	if !q.opts().HubAPI.NoDigest {
		o["digest"] = t.digest
	}
	images, size := q.imageObjects(repo, t, m)
	o["images"], o["full_size"] = images, size
	return o
}

// imageObjects returns one object for each platform, and the size of the first. Hub.mu is held.
func (q hubAPIQuery) imageObjects(repo string, t tagAt, m storedBytes) (images []any, first int64) {
	var doc struct {
		Manifests []Descriptor
		Layers    []Descriptor
	}
	if json.Unmarshal(m.raw, &doc) != nil {
		return []any{}, 0
	}
	if len(doc.Manifests) == 0 {
		doc.Manifests = []Descriptor{{Digest: t.digest, Platform: &Platform{Architecture: "amd64", OS: "linux"}}}
	}
	for _, d := range doc.Manifests {
		var child struct{ Layers []Descriptor }
		if raw := q.repos[repo].manifests[d.Digest].raw; json.Unmarshal(raw, &child) != nil {
			child.Layers = nil
		}
		var size int64
		for _, l := range child.Layers {
			size += l.Size
		}
		p := cmp.Or(d.Platform, &Platform{Architecture: "unknown", OS: "unknown"})
		var variant any
		if p.Variant != "" {
			variant = p.Variant
		}
		images = append(images, map[string]any{
			"architecture": p.Architecture, "features": "", "variant": variant, "digest": d.Digest, "os": p.OS, "os_features": "",
			"os_version": nil, "size": size, "status": "active", "last_pulled": nil, "last_pushed": stamp(t.since),
		})
		if len(images) == 1 {
			first = size
		}
	}
	return images, first
}
