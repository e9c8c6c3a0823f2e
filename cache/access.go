package cache

import (
	"context"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	lru "github.com/hashicorp/golang-lru/v2"

	"forebay/cache/index"
	"forebay/internal/flight"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

const (
	// accessEntries bounds the repositories whose access is remembered. One that was
	// forgotten is proven anew.
	accessEntries = 16384
	// accessAgain is when a refusal is looked at again, and when a proof that an outage
	// prevented is tried again. In between kept content is refused, or served.
	accessAgain = time.Minute
	// missingMost is how often in a row the registry may say that it has not got what is kept
	// here of a repository before that counts as a refusal. Registries that hide what may not
	// be read (Artifactory, GitLab, Gitea) never say more than that.
	missingMost = 3
)

// access remembers when the right to each repository of an upstream was last proven by
// its credentials, so that what is kept of one is not served for ever after they have
// lost it. After a start nothing is proven.
type access struct {
	ttl   time.Duration
	repos *lru.Cache[string, standing]

	proofs flight.Group[key, struct{}]
}

// standing is what is known of the right to a repository.
type standing struct {
	until   time.Time // when it is to be proven again
	refused error     // nil while it holds, or may
	missing int       // how often in a row the registry had not got what is kept here
}

// newAccess returns nil for a ttl of 0, with which every repository is good.
func (c *Cache) newAccess(ttl time.Duration) *access {
	if ttl <= 0 {
		return nil
	}
	repos, err := lru.New[string, standing](accessEntries)
	if err != nil {
		panic(err) // only for a size below one
	}
	return &access{ttl: ttl, repos: repos, proofs: callsOf[struct{}](c)}
}

// state reports whether kept content of a repository may be served without a proof, or
// with why it may not.
func (a *access) state(repo string) (proven bool, refused error) {
	if a == nil {
		return true, nil
	}
	s, ok := a.repos.Get(repo)
	if !ok || !time.Now().Before(s.until) {
		return false, nil
	}
	return s.refused == nil, s.refused
}

// known reports whether repo was proven or refused so lately that nobody need be asked.
func (a *access) known(repo string) bool {
	proven, refused := a.state(repo)
	return proven || refused != nil
}

// observe takes in how a request for something of a repository ended. Neither an outage nor
// that something does not exist says whether we may look.
func (a *access) observe(repo string, err error) {
	if a == nil {
		return
	}
	now := time.Now()
	switch {
	case err == nil:
		a.repos.Add(repo, standing{until: now.Add(a.ttl)})
	case refuses(err):
		a.repos.Add(repo, standing{until: now.Add(accessAgain), refused: err})
	}
}

// missed takes in that the registry has not got what is kept of a repository. Without
// credentials of ours it held nothing that others may not read.
func (a *access) missed(repo Repo, credentialed bool, err error) {
	now := time.Now()
	if !credentialed {
		a.repos.Add(repo.Name, standing{until: now.Add(a.ttl)})
		return
	}
	s, _ := a.repos.Get(repo.Name)
	s.missing++
	if s.until = now.Add(accessAgain); s.missing >= missingMost {
		s.refused = &pull.Error{Kind: pull.Denied, Upstream: repo.Upstream, Op: "prove access to " + repo.Name, Err: err,
			Message: "the registry says that what is kept of the repository is not there"}
	}
	a.repos.Add(repo.Name, s)
}

// refuses reports whether err refuses access. That of a HEAD alone may mean that the registry
// takes no HEADs.
func refuses(err error) bool {
	return err != nil && pull.KindOf(err) == pull.Denied && pull.DetailOf(err) != pull.HeadOnly
}

// admit proves by ask, a HEAD, that the right to repo still holds, once for all who wait.
// It returns why kept content must not be served. A failure of the upstream is no refusal.
func (c *Cache) admit(ctx context.Context, o *origin, repo Repo, ask func(context.Context) error) error {
	a := o.access
	wait, cancel := context.WithTimeout(ctx, o.confirmWithin(c.opts.RevalidateTimeout))
	defer cancel()
	_, _, err := a.proofs.Do(wait, key{repo: repo}, func(ctx context.Context) (struct{}, error) {
		if a.known(repo.Name) { // by one that ended since the caller looked
			return struct{}{}, nil
		}
		err := ask(ctx)
		if err != nil && pull.KindOf(err) == pull.NotFound {
			a.missed(repo, o.Credentialed, err)
		}
		return struct{}{}, err
	})
	proven, refused := a.state(repo.Name) // the answer was taken in, see [observed]
	switch {
	case refused != nil:
		c.log.Warn("access refused: what is kept is not served", logkey.Upstream(repo.Upstream),
			logkey.Repository(repo.Name), logkey.Err(refused))
		return refused
	case !proven && ctx.Err() == nil:
		c.log.Info("access not proven: the upstream fails", logkey.Upstream(repo.Upstream),
			logkey.Repository(repo.Name), logkey.Err(err))
		a.repos.Add(repo.Name, standing{until: time.Now().Add(accessAgain)})
	}
	return nil
}

// admitManifest is admit for the manifest d.
func (c *Cache) admitManifest(ctx context.Context, o *origin, repo Repo, d v1.Hash) error {
	if proven, refused := o.access.state(repo.Name); proven || refused != nil || o.offline() {
		return refused
	}
	return c.admit(ctx, o, repo, func(ctx context.Context) error {
		_, err := c.ask(ctx, o, repo, d.String())
		return err
	})
}

// admitBlob is admit for the blob d, if repo is known to hold it: else it is proven anyway.
func (c *Cache) admitBlob(ctx context.Context, o *origin, repo Repo, d v1.Hash) error {
	if proven, refused := o.access.state(repo.Name); proven || refused != nil || o.offline() {
		return refused
	}
	if !c.store.Linked(repo, index.Blob, d) {
		return nil
	}
	return c.admit(ctx, o, repo, func(ctx context.Context) error {
		_, err := o.Upstream.StatBlob(ctx, repo.Name, d)
		return err
	})
}
