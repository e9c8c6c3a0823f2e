package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	lru "github.com/hashicorp/golang-lru/v2/simplelru"

	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

// Tags returns all tags of repo, sorted. A list that is older than the tags' time to
// live is asked for again; while the upstream fails the last one is served.
func (c *Cache) Tags(ctx context.Context, repo Repo) (*Listing, error) {
	o, err := c.origin(repo)
	if err != nil {
		return nil, err
	}
	var tags []string
	if list, at, ok := c.known.tagLists.get(repo); ok && c.freshList(o, repo, at) {
		return &Listing{Tags: list, Result: Hit}, nil
	}
	res, at, err := c.listing(ctx, o, repo, document{
		kind: index.TagList,
		ask: func(ctx context.Context) (any, error) {
			tags, err := o.Upstream.Tags(ctx, repo.Name)
			slices.Sort(tags)
			return slices.Compact(tags), err
		},
	}, &tags)
	if err != nil {
		return nil, err
	}
	if res == Hit {
		c.known.tagLists.add(repo, tags, at)
	}
	return &Listing{Tags: tags, Result: res}, nil
}

// TagsPage returns one page of the tags of repo, as the upstream gives it for a query, for a client who
// cannot wait until all are known.
func (c *Cache) TagsPage(ctx context.Context, repo Repo, query string) (*Listing, error) {
	o, err := c.origin(repo)
	if err != nil {
		return nil, err
	}
	if o.offline() {
		return nil, offlineError(repo)
	}
	if _, refused := o.access.state(repo.Name); refused != nil {
		return nil, refused
	}
	if err := c.limits.Ask(ctx, repo.Upstream, repo.Name); err != nil {
		return nil, err
	}
	tags, next, err := o.Upstream.TagsPage(ctx, repo.Name, query)
	return &Listing{Tags: tags, Next: next, Result: Passed}, err
}

// freshList reports whether a list that was given at a time is served without asking.
func (c *Cache) freshList(o *origin, repo Repo, at time.Time) bool {
	proven, refused := o.access.state(repo.Name)
	return refused == nil && proven && !o.offline() && time.Since(at) < o.fresh.Of(repo.Name)
}

// tagLists are lists of tags that were decoded lately: a page of one is a few bytes, and to
// decode the whole for each would take a processor some 15 ms for 40,000 tags.
type tagLists struct {
	mu    sync.Mutex
	lists *lru.LRU[Repo, tagList] // guarded by mu
	tags  int                     // guarded by mu; in all of them
}

type tagList struct {
	tags []string
	at   time.Time
}

// tagListsMost bounds the tags of all lists in memory, at some 60 bytes each: 30 MB.
const tagListsMost = 500_000

func newTagLists() *tagLists {
	l := &tagLists{}
	l.lists, _ = lru.NewLRU[Repo, tagList](tagListsMost, func(_ Repo, old tagList) { l.tags -= len(old.tags) })
	return l
}

func (l *tagLists) get(repo Repo) (tags []string, at time.Time, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	list, ok := l.lists.Get(repo)
	return list.tags, list.at, ok
}

func (l *tagLists) drop(repo Repo) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lists.Remove(repo)
}

func (l *tagLists) add(repo Repo, tags []string, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lists.Remove(repo)
	l.lists.Add(repo, tagList{tags, at})
	for l.tags += len(tags); l.tags > tagListsMost && l.lists.Len() > 0; {
		l.lists.RemoveOldest()
	}
}

// Referrers returns the descriptors of the manifests of repo that refer to d, unfiltered,
// kept and refreshed like tags. An upstream that cannot say is an error, never "none".
func (c *Cache) Referrers(ctx context.Context, repo Repo, d v1.Hash) (*Referrers, error) {
	o, err := c.origin(repo)
	if err != nil {
		return nil, err
	}
	var manifests []json.RawMessage
	res, _, err := c.listing(ctx, o, repo, document{
		kind: index.ReferrerList,
		key:  d.String(),
		ref:  "@" + d.String(),
		ask: func(ctx context.Context) (any, error) {
			return o.Upstream.Referrers(ctx, repo.Name, d)
		},
	}, &manifests)
	if err != nil {
		return nil, err
	}
	return &Referrers{Manifests: manifests, Result: res}, nil
}

// document is a list that an upstream gives and that may change.
type document struct {
	kind index.DocKind
	key  string
	ref  string // for the rules of freshness
	ask  func(context.Context) (any, error)
}

// listing decodes into to what is kept of doc, fresh or, when the upstream fails, stale; at is when
// what was kept before came.
func (c *Cache) listing(ctx context.Context, o *origin, repo Repo, doc document, to any) (res Result, at time.Time, err error) {
	kept, at, ok, err := c.store.Index.Doc(repo, doc.kind, doc.key)
	if err != nil {
		return "", at, err
	}
	res, err = c.list(ctx, o, repo, doc, keptList{kept, at, ok}, to)
	return res, at, err
}

// keptList is what is kept of a document.
type keptList struct {
	doc []byte
	at  time.Time
	ok  bool // there is one
}

func (c *Cache) list(ctx context.Context, o *origin, repo Repo, doc document, old keptList, to any) (Result, error) {
	kept, at, ok := old.doc, old.at, old.ok
	proven, refused := o.access.state(repo.Name) // asking for the list is the proof
	if refused != nil && !o.offline() {
		return "", refused
	}
	if ok && (o.offline() || proven && time.Since(at) < o.fresh.Of(repo.Name+doc.ref)) {
		return Hit, c.decode(kept, to)
	}
	if o.offline() {
		return "", offlineError(repo)
	}
	if ok && proven && o.low() {
		return Stale, c.decode(kept, to)
	}
	wait := ctx
	if ok {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, o.confirmWithin(c.opts.RevalidateTimeout))
		defer cancel()
	}
	k := key{aTags, repo, doc.key}
	if doc.kind == index.ReferrerList {
		k.what = aReferrers
	}
	fresh, joined, err := c.calls.lists.Do(wait, k, func(ctx context.Context) ([]byte, error) {
		if err, ok := c.recall(k); ok {
			return nil, err
		}
		b, err := c.askList(ctx, repo, doc)
		c.remember(k, err)
		return b, err
	})
	if err = c.orAbsent(o, k, err); err != nil {
		if ok && ctx.Err() == nil && (errors.Is(err, context.DeadlineExceeded) || pull.Failing(err)) {
			c.log.Warn("stale list served", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name), logkey.Err(err))
			return Stale, c.decode(kept, to)
		}
		return "", err
	}
	if joined {
		return Joined, c.decode(fresh, to)
	}
	return Miss, c.decode(fresh, to)
}

// askList fetches a list and keeps it.
func (c *Cache) askList(ctx context.Context, repo Repo, doc document) ([]byte, error) {
	v, err := doc.ask(ctx)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, &pull.Error{Kind: pull.Invalid, Upstream: repo.Upstream, Op: "list " + repo.Name, Err: err}
	}
	err = c.store.Update(func(t *index.Batch) error {
		return t.PutDoc(repo, doc.kind, doc.key, b, time.Now())
	})
	if err != nil {
		c.log.Error("list not kept", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name), logkey.Err(err))
	}
	return b, nil
}

func (c *Cache) decode(b []byte, to any) error {
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("decode kept list: %w", err)
	}
	return nil
}

// Catalog returns the names of at most n repositories that have something kept, sorted, from
// the one after a name on, and whether there are more. Left out are those that are not to be
// listed, and those to which access is refused.
func (c *Cache) Catalog(ctx context.Context, after string, n int) (names []string, more bool, err error) {
	for {
		repos, err := c.store.Index.Repositories(after, n+1)
		if err != nil || len(repos) == 0 {
			return names, false, err
		}
		for _, r := range repos {
			o, ok := c.origins()[r.Upstream]
			if !ok || o.Unlisted {
				after = r.Upstream + "/\xff" // behind all of its names
				break
			}
			after = r.String()
			if _, refused := o.access.state(r.Name); refused != nil {
				continue
			}
			if len(names) == n {
				return names, true, nil
			}
			names = append(names, after)
		}
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
	}
}

// Lists reports whether clients may be told names of repositories and tags of an upstream.
func (c *Cache) Lists(upstream string) bool {
	o, ok := c.origins()[upstream]
	return ok && !o.Unlisted
}
