package image

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/wire"
)

// Query asks for a part of the images that are kept, in the order of their names:
// repository by repository, tags first, then manifests that no tag names.
type Query struct {
	// Repo limits the answer to one repository.
	Repo Repo
	// Match limits it to names that match: a pattern with *, ? and [sets] of
	// "docker.io/library/nginx:1.27", where docker.io/library/ may be left out. One without
	// a colon after its last slash is of repositories. "" matches all.
	Match string
	// Missing limits it to images that are incomplete.
	Missing bool
	// After is the name (see [Image.Name]) to go on after; "" begins at the start.
	After string
	Limit int // images at most, from 1 to 1000; 0 means 100
}

// Page is a part of the images.
type Page struct {
	Images []Image
	// Next is what to go on after; empty at the end. There may be more even if Images
	// is short or empty, since one answer looks at a bounded number of them.
	Next string
}

const (
	imagesUsual = 100
	imagesMost  = 1000
	// lookMost bounds the images that one answer looks into: some 20 ms of reading
	// small files that are in the page cache.
	lookMost = 2000
	// nameMost bounds the names that one answer passes over by their name alone.
	nameMost = 100_000
)

// List lists what is kept. It asks nobody and counts as no use.
func (i *Images) List(ctx context.Context, q Query) (*Page, error) {
	b := browse{ctx: ctx, images: i, query: q, page: &Page{Images: []Image{}}, limit: q.Limit}
	if b.limit == 0 {
		b.limit = imagesUsual
	}
	if b.limit < 0 || b.limit > imagesMost {
		return nil, fmt.Errorf("%w: %d images at once: use 1 to %d", store.ErrQuery, b.limit, imagesMost)
	}
	if q.Match != "" {
		match, err := wire.CompilePattern(q.Match)
		if err != nil {
			return nil, fmt.Errorf("%w: pattern %q: %w", store.ErrQuery, q.Match, err)
		}
		b.match, b.repoOnly = match, !strings.Contains(q.Match[strings.LastIndexByte(q.Match, '/')+1:], ":")
	}
	if err := b.run(); err != nil && !errors.Is(err, errFull) {
		return nil, err
	}
	return b.page, nil
}

// browse is one run of List.
type browse struct {
	ctx      context.Context // of the one call
	images   *Images
	query    Query
	match    *regexp.Regexp // nil matches all
	repoOnly bool
	limit    int
	looked   int
	named    int
	page     *Page
}

// errFull ends a browse whose page is full.
var errFull = errors.New("page is full")

func (b *browse) run() error {
	at, tag, digest, err := splitCursor(b.query.After)
	if err != nil {
		return err
	}
	if b.query.Repo != (Repo{}) {
		if b.query.After != "" && at != b.query.Repo {
			return fmt.Errorf("%w: %q is not of %s", store.ErrQuery, b.query.After, b.query.Repo)
		}
		return b.repository(b.query.Repo, tag, digest)
	}
	last := ""
	if b.query.After != "" {
		if err := b.repository(at, tag, digest); err != nil {
			return err
		}
		last = at.String()
	}
	for {
		repos, err := b.images.store.Index.ReposAfter(last, 100)
		if err != nil || len(repos) == 0 {
			return err
		}
		for _, r := range repos {
			if err := b.repository(r.Repo, "", v1.Hash{}); err != nil {
				return err
			}
		}
		last = repos[len(repos)-1].String()
	}
}

// splitCursor reads the name of an image.
func splitCursor(s string) (repo Repo, tag string, d v1.Hash, err error) {
	if s == "" {
		return repo, "", d, nil
	}
	name, hash, byDigest := strings.Cut(s, "@")
	if byDigest {
		if d, err = wire.ParseDigest(hash); err != nil {
			return repo, "", d, fmt.Errorf("%w: %w", store.ErrQuery, err)
		}
	} else if colon := strings.LastIndexByte(name, ':'); colon > strings.LastIndexByte(name, '/') {
		name, tag = name[:colon], name[colon+1:]
	}
	upstream, repository, ok := strings.Cut(name, "/")
	if !ok || upstream == "" || !wire.ValidRepository(repository) || !byDigest && !wire.ValidTag(tag) {
		return repo, "", d, fmt.Errorf("%w: after %.80q, which is no name from a list", store.ErrQuery, s)
	}
	return Repo{Upstream: upstream, Name: repository}, tag, d, nil
}

// repository lists one repository, its tags after one, or its untagged manifests after d.
func (b *browse) repository(repo Repo, afterTag string, after v1.Hash) error {
	if b.match != nil && b.repoOnly && !wire.MatchesName(b.match, repo.String()) {
		b.named++
		return b.ctx.Err()
	}
	if after == (v1.Hash{}) {
		if err := b.tags(repo, afterTag); err != nil {
			return err
		}
	}
	if b.match != nil && !b.repoOnly {
		return b.ctx.Err() // such a pattern is of tags
	}
	return b.untagged(repo, after)
}

// tagNames is how many tags are read at once, so that no read of the index stays open
// while files are looked at.
const tagNames = 500

func (b *browse) tags(repo Repo, after string) error {
	type bound struct {
		name string
		tag  index.Tag
	}
	for {
		var some []bound
		err := b.images.store.Index.TagsAfter(repo, after, func(name string, t index.Tag) error {
			some = append(some, bound{name, t})
			if len(some) == tagNames {
				return index.ErrStop
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, t := range some {
			if b.match != nil && !b.repoOnly && !wire.MatchesName(b.match, repo.String()+":"+t.name) {
				b.named++
				if b.named >= nameMost {
					b.page.Next = Name(repo, t.name, v1.Hash{})
					return errFull
				}
				continue
			}
			image := b.images.taggedImage(repo, t.name, t.tag, false)
			if err := b.take(image); err != nil {
				return err
			}
		}
		if len(some) < tagNames {
			return nil
		}
		after = some[len(some)-1].name
	}
}

// taggedImage is image with what is known of the tag.
func (i *Images) taggedImage(repo Repo, name string, t index.Tag, details bool) Image {
	one := i.image(repo, name, t.Desc.Digest, details)
	one.MediaType, one.CheckedAt, one.ChangedAt = string(t.Desc.MediaType), t.CheckedAt, t.ChangedAt
	return one
}

// take adds an image to the page, if it belongs there.
func (b *browse) take(i Image) error {
	b.looked++
	if !b.query.Missing || i.State == Incomplete {
		b.page.Images = append(b.page.Images, i)
	}
	if len(b.page.Images) == b.limit || b.looked >= lookMost {
		b.page.Next = i.Name()
		return errFull
	}
	return b.ctx.Err()
}

// untagged lists the manifests that neither a tag names nor an index that is kept.
func (b *browse) untagged(repo Repo, after v1.Hash) error {
	roots, err := b.images.untagged(b.ctx, repo)
	if err != nil {
		return err
	}
	for _, d := range roots {
		if after != (v1.Hash{}) && d.String() <= after.String() {
			continue
		}
		if err := b.take(b.images.image(repo, "", d, false)); err != nil {
			return err
		}
	}
	return nil
}

// untagged returns the manifests of a repository that are kept and that neither a tag
// nor a kept index names, sorted.
func (i *Images) untagged(ctx context.Context, repo Repo) ([]v1.Hash, error) {
	named := map[v1.Hash]bool{}
	err := i.store.Index.Tags(repo, func(_ string, t index.Tag) error {
		named[t.Desc.Digest] = true
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	var all, indexes []v1.Hash
	err = i.store.Index.Links(repo, index.Manifest, func(d v1.Hash, l index.Link) error {
		if types.MediaType(l.MediaType).IsIndex() {
			indexes = append(indexes, d)
		}
		if !named[d] {
			all = append(all, d)
		}
		return ctx.Err()
	})
	if err != nil {
		return nil, err
	}
	for _, d := range indexes {
		if doc, ok := i.store.Document(repo, d); ok {
			for _, child := range doc.Manifests {
				if h, ok := child.Hash(); ok {
					named[h] = true
				}
			}
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
	}
	all = slices.DeleteFunc(all, func(d v1.Hash) bool {
		if named[d] {
			return true
		}
		_, kept := i.store.Size(d)
		return !kept
	})
	slices.SortFunc(all, func(x, y v1.Hash) int { return strings.Compare(x.String(), y.String()) })
	return all, nil
}

// Inspect tells all that is known of an image: of a tag, or, without one, of a digest.
func (i *Images) Inspect(repo Repo, tag string, d v1.Hash) (*Image, error) {
	if err := i.check(repo); err != nil {
		return nil, err
	}
	if d != (v1.Hash{}) {
		if !i.store.Linked(repo, index.Manifest, d) {
			return nil, fmt.Errorf("%s@%s: %w", repo, d, store.ErrNotKept)
		}
		one := i.image(repo, "", d, true)
		return &one, nil
	}
	t, ok, err := i.store.Index.Tag(repo, tag)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%s:%s: %w", repo, tag, store.ErrNotKept)
	}
	one := i.taggedImage(repo, tag, t, true)
	return &one, nil
}

// RepositoryInfo says how much a repository holds.
type RepositoryInfo struct {
	Upstream   string `json:"upstream"`
	Repository string `json:"repository"`
	Tags       int64  `json:"tags"`
	Manifests  int64  `json:"manifests"` // that it is known to hold, kept or not
	Blobs      int64  `json:"blobs"`     // likewise
}

// RepositoryPage is a part of the repositories.
type RepositoryPage struct {
	Repositories []RepositoryInfo `json:"repositories"`
	Next         string           `json:"next,omitempty"` // what to go on after; empty at the end
}

// Repositories lists up to n repositories after one, in the order of their names.
func (i *Images) Repositories(after string, n int) (*RepositoryPage, error) {
	if n == 0 {
		n = imagesUsual
	}
	if n < 0 || n > imagesMost {
		return nil, fmt.Errorf("%w: %d repositories at once: use 1 to %d", store.ErrQuery, n, imagesMost)
	}
	repos, err := i.store.Index.ReposAfter(after, n+1)
	if err != nil {
		return nil, err
	}
	p := &RepositoryPage{Repositories: []RepositoryInfo{}}
	for i, r := range repos {
		if i == n {
			p.Next = repos[n-1].String()
			break
		}
		p.Repositories = append(p.Repositories, RepositoryInfo{r.Upstream, r.Name, r.Tags, r.Manifests, r.Blobs})
	}
	return p, nil
}

// TagBinding is what a tag pointed to for a while.
type TagBinding struct {
	Digest    wire.Digest `json:"digest"`
	FirstSeen time.Time   `json:"first_seen,omitzero"`
	LastSeen  time.Time   `json:"last_seen,omitzero"` // when the upstream confirmed it last
	Kept      bool        `json:"kept"`               // its manifest is still here
}

// History returns what a tag pointed to, the latest first.
func (i *Images) History(repo Repo, tag string) ([]TagBinding, error) {
	if err := i.check(repo); err != nil {
		return nil, err
	}
	t, ok, err := i.store.Index.Tag(repo, tag)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%s:%s: %w", repo, tag, store.ErrNotKept)
	}
	list := []TagBinding{{Digest: wire.Digest{Hash: t.Desc.Digest}, FirstSeen: t.ChangedAt, LastSeen: t.CheckedAt, Kept: i.store.Serves(repo, t.Desc.Digest)}}
	for _, b := range t.History {
		list = append(list, TagBinding{Digest: wire.Digest{Hash: b.Digest}, FirstSeen: b.FirstSeen, LastSeen: b.LastSeen, Kept: i.store.Serves(repo, b.Digest)})
	}
	return list, nil
}
