package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/event"
	"forebay/cache/health"
	"forebay/cache/policy"
	"forebay/cache/vanished"
	"forebay/internal/allowance"
	"forebay/internal/lane"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// origin is an upstream with what the cache learned of it.
type origin struct {
	UpstreamOptions // its Upstream is an [observed]

	fresh  policy.Freshness
	lane   *lane.Lane // of fills
	health *health.Upstream
	access *access // nil without AccessTTL
	// spending is held by the prefetch that is about to spend a pull.
	spending chan struct{}
	drill    *atomic.Int64 // until when no upstream is asked, since an outage is rehearsed; nanoseconds since 1970
}

// offline reports whether the upstream must not be asked.
func (o *origin) offline() bool { return o.Offline || o.drilled() }

func (o *origin) drilled() bool {
	until := o.drill.Load()
	return until != 0 && time.Now().UnixNano() < until
}

// Rehearsal returns until when an outage is rehearsed; a time that is past for none.
func (c *Cache) Rehearsal() time.Time { return time.Unix(0, c.drill.Load()) }

// Rehearse has no upstream asked until then, as if all were away; a time that is past ends that. It
// ends with the process, too. What is being fetched goes on.
func (c *Cache) Rehearse(until time.Time) { c.drill.Store(until.UnixNano()) }

// origins returns all upstreams by name. The map is never changed, but replaced.
func (c *Cache) origins() map[string]*origin { return *c.upstreams.Load() }

// Clients returns what clients may still ask for.
func (c *Cache) Clients() *allowance.Clients { return c.limits }

// Configure gives the upstreams other settings, and clients other limits. What is in progress goes
// on by those from before, and of an upstream whose Upstream is another what was learned of its
// rights is forgotten. What is kept of one that is no more is not served. It must not be called concurrently.
func (c *Cache) Configure(upstreams map[string]UpstreamOptions, limits allowance.Limits) error {
	next := make(map[string]*origin, len(upstreams))
	for name, u := range upstreams {
		o, err := c.newOrigin(name, u)
		if err != nil {
			return fmt.Errorf("upstream %s: %w", name, err)
		}
		if was := c.origins()[name]; was != nil {
			o.health = was.health
			if was.Upstream.(observed).Upstream == u.Upstream && was.AccessTTL == u.AccessTTL {
				o.access = was.access
			}
		}
		next[name] = o
	}
	c.upstreams.Store(&next)
	c.limits.Set(limits)
	return nil
}

func (c *Cache) newOrigin(name string, u UpstreamOptions) (*origin, error) {
	if u.Trust == "" {
		u.Trust = name
	}
	if u.Parallel <= 0 {
		u.Parallel = 4
	}
	if u.MaxConnections <= 0 {
		u.MaxConnections = 32
	}
	fresh, err := policy.NewFreshness(u.TagTTL, u.TagRules)
	if err != nil {
		return nil, err
	}
	o := &origin{UpstreamOptions: u, fresh: fresh, lane: lane.New(u.MaxConnections), access: c.newAccess(u.AccessTTL), spending: make(chan struct{}, 1), drill: &c.drill}
	o.health = &health.Upstream{Tell: func(e event.Event) {
		e.Upstream = name
		c.store.Tell(e)
	}}
	o.Upstream = observed{u.Upstream, c, name, o}
	return o, nil
}

// origin returns the upstream of a repository.
func (c *Cache) origin(repo Repo) (*origin, error) {
	o, ok := c.origins()[repo.Upstream]
	if !ok {
		return nil, &pull.Error{Kind: pull.NotFound, Upstream: repo.Upstream, Op: "route", Message: "registry is not configured"}
	}
	return o, nil
}

// low reports whether the upstream should be spared.
func (o *origin) low() bool { return !o.offline() && o.Upstream.Low() }

// atReserve reports whether what nobody has asked for yet should wait.
func (o *origin) atReserve() bool { return !o.offline() && o.Upstream.AtReserve() }

// atLastShare reports whether what is left is for repositories that are known here.
func (o *origin) atLastShare() bool { return !o.offline() && o.Upstream.AtLastShare() }

// offlineError is the answer of an upstream that must not be asked.
func offlineError(repo Repo) error {
	return &pull.Error{Kind: pull.NotFound, Upstream: repo.Upstream, Op: "ask for " + repo.Name, Err: pull.ErrOffline}
}

// whenFailing is how long a client waits for a confirmation while the upstream fails: one
// has waited the full time for nothing a moment ago.
const whenFailing = 300 * time.Millisecond

// confirmWithin returns how long a client waits that may be served what is known.
func (o *origin) confirmWithin(usual time.Duration) time.Duration {
	if o.health.Failing() {
		return min(usual, whenFailing)
	}
	return usual
}

// observed is an upstream of which each answer is observed: how the registry does, and
// whether we may read the repository.
type observed struct {
	Upstream
	c    *Cache
	name string
	o    *origin
}

// observe takes in how a request for something of repo ended, and returns its error: what is denied of
// a repository that was everybody's and is gone was not found. One that its caller ended says nothing.
func (n observed) observe(ctx context.Context, repo, what string, err error) error {
	if ctx.Err() == nil {
		n.o.health.Observe(repo, what, err)
	}
	if ctx.Err() == nil && n.o.OnGone == Keep {
		at := Repo{Upstream: n.name, Name: repo}
		a := vanished.Answer{Repo: at, Err: err, Public: !n.o.Credentialed}
		if _, bad := wire.ParseDigest(what); bad != nil && what != "tags" {
			a.Tag = what
			a.Known = func() bool { t, err := n.c.tag(at, what); return err == nil && t != nil && t.recorded }
		}
		err = n.c.gone.Observe(a, time.Now())
	}
	n.o.access.observe(repo, err)
	return err
}

func (n observed) Resolve(ctx context.Context, repo, ref string) (v1.Descriptor, error) {
	desc, err := n.Upstream.Resolve(ctx, repo, ref)
	return desc, n.observe(ctx, repo, ref, err)
}

func (n observed) Manifest(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error) {
	desc, b, err := n.Upstream.Manifest(ctx, repo, ref)
	return desc, b, n.observe(ctx, repo, ref, err)
}

func (n observed) StatBlob(ctx context.Context, repo string, d v1.Hash) (int64, error) {
	size, err := n.Upstream.StatBlob(ctx, repo, d)
	return size, n.observe(ctx, repo, d.String(), err)
}

func (n observed) OpenBlob(ctx context.Context, repo string, d v1.Hash, off, end int64) (*pull.Body, error) {
	b, err := n.Upstream.OpenBlob(ctx, repo, d, off, end)
	return b, n.observe(ctx, repo, d.String(), err)
}

func (n observed) Tags(ctx context.Context, repo string) ([]string, error) {
	tags, err := n.Upstream.Tags(ctx, repo)
	return tags, n.observe(ctx, repo, "tags", err)
}

func (n observed) TagsPage(ctx context.Context, repo, query string) ([]string, string, error) {
	tags, next, err := n.Upstream.TagsPage(ctx, repo, query)
	return tags, next, n.observe(ctx, repo, "tags", err)
}

func (n observed) Referrers(ctx context.Context, repo string, d v1.Hash) ([]json.RawMessage, error) {
	list, err := n.Upstream.Referrers(ctx, repo, d)
	return list, n.observe(ctx, repo, d.String(), err)
}
