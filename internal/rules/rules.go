// Package rules is the policy of a mirror at work: the rules of its configuration with what
// operators decided, what is known of digests, and the rulings that come of both.
//
// It promises one ruling for a binding of a tag, made again only when the policy changes or the
// ruling says so, and that what operators decided survives a restart and a rebuild of the index.
// Warning: making a ruling may take a request to a registry or to a judge; serving one takes none.
package rules

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	lru "github.com/hashicorp/golang-lru/v2"
	"go.uber.org/zap"

	"forebay/cache"
	"forebay/cache/event"
	"forebay/cache/image"
	"forebay/cache/index"
	"forebay/cache/policy"
	"forebay/cache/store"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

// Repo names a repository of an upstream.
type Repo = cache.Repo

// Configured is a rule of the configuration with where the rest of it comes from.
type Configured struct {
	policy.Rule

	DenyFrom, AllowFrom []string // files and URLs with further terms
	Judge               Judge    // of a rule that has one
}

// Options configures [Rules]. Cache is required.
type Options struct {
	Cache *cache.Cache
	// Client asks judges and fetches lists. It must bound where it connects to.
	Client *http.Client
	// Updated returns since when a registry says that a tag has a digest, as [policy.Known] has it. nil: none says.
	Updated func(ctx context.Context, repo Repo, tag string, d v1.Hash) (time.Time, error)
	// Signed says whether a digest has a signature that a rule accepts. nil: none has.
	Signed func(ctx context.Context, repo Repo, d v1.Hash, rule string) policy.Answer
	Log    *zap.Logger
}

const (
	factsMost   = 8192 // digests of which facts are remembered; each takes some 300 bytes
	rulingsMost = 8192 // requests by digest of which the ruling is remembered
	answersMost = 4096 // digests that answer in place of others, and are held
	// openForUsual is how long ago a registry may have confirmed a tag that counts as having its digest
	// still; what nobody has looked at for longer may have moved.
	openForUsual = 36 * time.Hour
	// soon is when a ruling is made again that could be another if the tag were confirmed.
	soon = time.Minute
)

// Rules rule on tags and digests. It is a [cache.Policy]. Its methods may be called concurrently.
type Rules struct {
	opts   Options
	cache  *cache.Cache
	store  *store.Store
	images *image.Images
	log    *zap.Logger

	current atomic.Pointer[policy.Policy] // never nil

	openFor, confirmAfter time.Duration

	mu         sync.Mutex           // held while the policy is put together anew
	configured []Configured         // guarded by mu
	lists      map[string]*termList // guarded by mu; by source
	version    uint64               // guarded by mu

	facts   *lru.Cache[v1.Hash, policy.Facts]
	digests *lru.Cache[subject, *cache.Ruling]
	within  *lru.Cache[subject, v1.Hash]   // what a digest belongs to, for which it was given last
	answers *lru.Cache[subject, time.Time] // what answers in place of something else, since when
	told    *lru.Cache[string, struct{}]   // what waits, and was told of
	waiting *lru.Cache[string, struct{}]   // tags that do not answer with what they point to
	judged  *lru.Cache[string, policy.Answer]
	signed  *lru.Cache[ruled, policy.Answer] // what was found when signatures were looked at last
	stale   chan struct{}                    // has one when pins are to be gathered
	counts  Counts
}

// subject is a digest of a repository.
type subject struct {
	repo Repo
	d    v1.Hash
}

// ruled is what a rule has looked at.
type ruled struct {
	subject
	rule string
}

// Counts are what was ruled since the start.
type Counts struct {
	Kept     atomic.Int64 // rulings by which the tag answers with what it points to
	Replaced atomic.Int64 // by which another digest answers
	Refused  atomic.Int64 // by which none does, or a digest is not given
	Observed atomic.Int64 // that would be others if all rules were enforced
	Judged   atomic.Int64 // requests to judges
	Failed   atomic.Int64 // of those, the ones without an answer
}

// New returns the rules of a mirror, in which its cache's clients are served from now on. It reads
// what operators decided.
func New(o Options, configured []Configured) (*Rules, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	r := &Rules{opts: o, cache: o.Cache, store: o.Cache.Store(), images: o.Cache.Images(), log: o.Log, lists: map[string]*termList{}, stale: make(chan struct{}, 1), openFor: openForUsual, confirmAfter: confirmAfterUsual}
	r.facts, _ = lru.New[v1.Hash, policy.Facts](factsMost)
	r.digests, _ = lru.New[subject, *cache.Ruling](rulingsMost)
	r.within, _ = lru.New[subject, v1.Hash](rulingsMost)
	r.answers, _ = lru.New[subject, time.Time](answersMost)
	r.told, _ = lru.New[string, struct{}](rulingsMost)
	r.waiting, _ = lru.New[string, struct{}](rulingsMost)
	r.judged, _ = lru.New[string, policy.Answer](rulingsMost)
	r.signed, _ = lru.New[ruled, policy.Answer](rulingsMost)
	r.current.Store(&policy.Policy{})
	if err := r.Configure(configured); err != nil {
		return nil, err
	}
	r.images.Pins.Derive(r.holds)
	r.cache.SetPolicy(r)
	return r, nil
}

// Configure gives the mirror other rules.
func (r *Rules) Configure(configured []Configured) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.configured = configured
	for _, c := range configured {
		for _, from := range slices.Concat(c.DenyFrom, c.AllowFrom) {
			if r.lists[from] == nil {
				r.lists[from] = r.openList(from)
			}
		}
	}
	r.judged.Purge()
	return r.renew()
}

// renew puts the policy together anew. r.mu is held.
func (r *Rules) renew() error {
	p := policy.Policy{Promotions: map[string]policy.Promotion{}}
	for _, c := range r.configured {
		rule := c.Rule
		for _, from := range c.DenyFrom {
			rule.Deny = slices.Concat(rule.Deny, r.lists[from].terms)
		}
		for _, from := range c.AllowFrom {
			rule.Allow = slices.Concat(rule.Allow, r.lists[from].terms)
		}
		if len(c.AllowFrom) > 0 && len(rule.Allow) == 0 {
			rule.Allow = policy.Nothing() // a list that could not be read yet allows nothing
		}
		p.Rules = append(p.Rules, rule)
	}
	if err := r.decided(&p); err != nil {
		return fmt.Errorf("read what operators decided: %w", err)
	}
	if len(p.Rules)+len(p.Freezes)+len(p.Promotions) > 0 {
		r.version++
		p.Version = r.version
	}
	r.digests.Purge()
	r.current.Store(&p)
	return nil
}

// Version is that of the policy; 0 while there is none.
func (r *Rules) Version() uint64 { return r.current.Load().Version }

// Concerns reports whether a rule is about a tag.
func (r *Rules) Concerns(repo Repo, tag string) bool {
	p := r.current.Load()
	return p.Version != 0 && p.Concerns(repo.String(), tag)
}

// Counts returns what was ruled.
func (r *Rules) Counts() *Counts { return &r.counts }

// Waiting is how many tags that were asked for do not answer with what they point to.
func (r *Rules) Waiting() int { return r.waiting.Len() }

// bindings are what a tag has had, the latest first. Of what nobody has looked at lately it is not
// said that it is so still.
func (r *Rules) bindings(repo Repo, tag string, t index.Tag) []policy.Binding {
	stored, known, err := r.store.Index.Tag(repo, tag)
	if err != nil {
		r.store.Unknown(err)
	}
	switch {
	case !known || err != nil:
		t.History = nil
	case stored.Desc.Digest == t.Desc.Digest:
		t.History = stored.History
	default: // the move could not be recorded
		was := index.Binding{Digest: stored.Desc.Digest, FirstSeen: stored.ChangedAt, LastSeen: stored.CheckedAt}
		t.History = append([]index.Binding{was}, stored.History...)
	}
	return r.had(repo, t)
}

// had are the bindings of a record.
func (r *Rules) had(repo Repo, t index.Tag) []policy.Binding {
	now := policy.Binding{Digest: t.Desc.Digest, Since: t.ChangedAt}
	if r.cache.MayAsk(repo) && time.Since(t.CheckedAt) > r.openFor {
		now.Until = t.CheckedAt
	}
	all := []policy.Binding{now}
	for _, b := range t.History {
		all = append(all, policy.Binding{Digest: b.Digest, Since: b.FirstSeen, Until: b.LastSeen})
	}
	return all
}

// Verdict returns what the policy says of a tag as it is known, with what it has had.
func (r *Rules) Verdict(ctx context.Context, repo Repo, tag string, t index.Tag) (policy.Verdict, []policy.Binding) {
	return r.verdict(ctx, r.current.Load(), repo, tag, t)
}

func (r *Rules) verdict(ctx context.Context, p *policy.Policy, repo Repo, tag string, t index.Tag) (policy.Verdict, []policy.Binding) {
	bindings := r.bindings(repo, tag, t)
	v := p.Tag(repo.String(), tag, bindings, &known{r, ctx, repo, tag}, time.Now())
	if !bindings[0].Until.IsZero() && v.Digest != bindings[0].Digest {
		if again := time.Now().Add(soon); v.Until.IsZero() || again.Before(v.Until) {
			v.Until = again // the tag may be confirmed at any time
		}
	}
	return v, bindings
}

// Tag makes the ruling on a tag.
func (r *Rules) Tag(ctx context.Context, repo Repo, tag string, t index.Tag) *cache.Ruling {
	p := r.current.Load()
	if !p.Concerns(repo.String(), tag) {
		return &cache.Ruling{Version: p.Version, Digest: t.Desc.Digest}
	}
	v, bindings := r.verdict(ctx, p, repo, tag, t)
	out := &cache.Ruling{Version: p.Version, Ruled: true, Digest: v.Digest, Until: v.Until, Passing: !bindings[0].Until.IsZero()}
	for _, b := range bindings {
		if b.Digest == v.Digest {
			out.Since = b.Since
			break
		}
	}
	if v.Would != nil {
		r.counts.Observed.Add(1)
	}
	switch v.Digest {
	case t.Desc.Digest:
		r.counts.Kept.Add(1)
	case v1.Hash{}:
		r.counts.Refused.Add(1)
		out.Err = refusal(repo, tag, v.Refused())
	default:
		r.counts.Replaced.Add(1)
		r.hold(repo, v.Digest)
	}
	name := image.Name(repo, tag, v1.Hash{})
	if v.Digest == t.Desc.Digest {
		r.waiting.Remove(name)
	} else if len(v.Passed) > 0 {
		r.waiting.Add(name, struct{}{})
		r.tell(repo, tag, v.Passed[0], v.Digest)
	}
	return out
}

// tell tells once that a digest waits or is refused.
func (r *Rules) tell(repo Repo, tag string, passed policy.Passed, answers v1.Hash) {
	if known, _ := r.told.ContainsOrAdd(repo.String()+":"+tag+"@"+passed.Digest.String()+" "+passed.Rule, struct{}{}); known {
		return
	}
	kind := event.Waiting
	if passed.Due.IsZero() {
		kind = event.Refused
	}
	e := event.Of(kind, repo, passed.Digest)
	e.Tag, e.Was, e.Detail = tag, answers, passed.Rule+": "+passed.Why
	r.store.Tell(e)
	r.log.Info("tag does not answer with what it points to", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name), logkey.Reference(tag),
		logkey.Digest(passed.Digest), zap.String("answers", answers.String()), zap.String("rule", passed.Rule), zap.String("why", passed.Why))
}

// refusal is the error of what must not be given.
func refusal(repo Repo, tag string, p policy.Passed) error {
	way := "nobody overrules that: the rule itself has to allow it, see docs/policies.md"
	if p.Overrule {
		way = "promote it with: forebay tag promote " + image.Name(repo, tag, v1.Hash{})
	}
	if !p.Due.IsZero() {
		way = "it will answer from " + p.Due.UTC().Format(time.RFC3339) + "; " + way
	}
	return &pull.Error{Kind: pull.Denied, Detail: pull.ByPolicy, Code: p.Rule, Upstream: repo.Upstream, Op: "get manifest " + image.Name(repo, tag, p.Digest),
		Message: fmt.Sprintf("policy %s: %s: %s (%s)", p.Rule, image.Name(repo, tag, p.Digest), p.Why, way)}
}

// digestAgain is when a ruling on a digest is made again: tags of its repository may have moved.
const digestAgain = 10 * time.Minute

// Digest returns why a digest is not given to a client that asks for it.
func (r *Rules) Digest(ctx context.Context, repo Repo, d v1.Hash) error {
	p := r.current.Load()
	if !p.ByDigest() {
		return nil
	}
	s := subject{repo, d}
	ruling, known := r.digests.Get(s)
	if !known || ruling.Version != p.Version || !time.Now().Before(ruling.Until) {
		var err error
		if ruling, err = r.cache.Rule(ctx, repo, d.String(), func(ctx context.Context) *cache.Ruling { return r.digest(ctx, p, s) }); err != nil {
			return err
		}
	}
	return ruling.Err
}

// digest makes the ruling on a digest.
func (r *Rules) digest(ctx context.Context, p *policy.Policy, s subject) *cache.Ruling {
	var tags []policy.Named
	err := r.store.Index.Tags(s.repo, func(tag string, t index.Tag) error {
		if p.Concerns(s.repo.String(), tag) {
			tags = append(tags, policy.Named{Tag: tag, Bindings: r.had(s.repo, t)})
		}
		return ctx.Err()
	})
	if err != nil {
		r.store.Unknown(err)
	}
	refused, until := p.Digest(s.repo.String(), s.d, tags, &known{r, ctx, s.repo, ""}, time.Now())
	out := &cache.Ruling{Version: p.Version, Ruled: true, Until: time.Now().Add(digestAgain)}
	if !until.IsZero() && until.Before(out.Until) {
		out.Until = until
	}
	if refused != nil {
		r.counts.Refused.Add(1)
		out.Err = refusal(s.repo, "", *refused)
		out.Until = time.Now().Add(soon / 6) // a tag may come to have it at any moment
	}
	r.digests.Add(s, out)
	return out
}

// hold keeps what answers in place of something else from being evicted: it may be nowhere else.
func (r *Rules) hold(repo Repo, d v1.Hash) {
	if known, _ := r.answers.ContainsOrAdd(subject{repo, d}, time.Now()); !known {
		r.gather()
	}
}

// gather has the pins gathered anew, soon.
func (r *Rules) gather() {
	select {
	case r.stale <- struct{}{}:
	default:
	}
}

// holds are what is kept whole: what answers in place of something else, and what snapshots name.
func (r *Rules) holds() []index.Pin {
	all := r.snapshotPins()
	for _, s := range r.answers.Keys() {
		since, _ := r.answers.Peek(s)
		all = append(all, index.Pin{Repo: s.repo, Ref: s.d.String(), At: since})
	}
	return all
}

const (
	// lookEvery is how often lists are read again and tags are looked for that nobody has looked at.
	lookEvery = time.Minute
	// confirmAfterUsual is how long nobody may look at a tag that ages; see openForUsual.
	confirmAfterUsual = 20 * time.Hour
	// confirmsMost bounds the HEADs of one round, each of which costs no pull.
	confirmsMost = 100
	gatherEvery  = 5 * time.Second
)

// Run reads lists again, looks at tags that age and has what answers held, until ctx is done.
func (r *Rules) Run(ctx context.Context) {
	look, gather := time.NewTicker(lookEvery), time.NewTicker(gatherEvery)
	defer look.Stop()
	defer gather.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			r.Look()
			r.readLists(ctx)
			r.confirm(ctx)
		case <-gather.C:
			select {
			case <-r.stale:
				r.images.Pins.List()
			default:
			}
		}
	}
}

// confirm looks at tags that age and that nobody has looked at for a day, so that what a tag had
// for a while is known to be so.
func (r *Rules) confirm(ctx context.Context) {
	p := r.current.Load()
	if !p.Ages() {
		return
	}
	n := 0
	err := r.store.Index.EachTag(func(repo Repo, tag string, t index.Tag) error {
		switch {
		case n >= confirmsMost:
			return index.ErrStop
		case time.Since(t.CheckedAt) < r.confirmAfter || !p.Concerns(repo.String(), tag) || !r.cache.MayAsk(repo):
			return nil
		}
		n++
		if _, err := r.cache.Confirm(ctx, repo, tag); err != nil && ctx.Err() == nil {
			r.log.Debug("tag that ages not confirmed", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name), logkey.Reference(tag), logkey.Err(err))
		}
		return ctx.Err()
	})
	if err != nil && ctx.Err() == nil {
		r.log.Warn("tags that age cannot be listed", logkey.Err(err))
	}
}
