package cache

import (
	"context"
	"errors"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/allowance"
	"forebay/internal/logkey"
	"forebay/internal/manifest"
	"forebay/internal/pull"
	"forebay/internal/sums"
	"forebay/internal/wire"
)

// resolved is what a tag or digest was found to point to.
type resolved struct {
	desc  v1.Descriptor
	bytes []byte // when the upstream refused HEAD and had to be asked for the whole
	stale bool   // the upstream is another mirror, which could not confirm it
}

// Manifest returns the manifest that ref, a tag or a digest, names in repo. With headOnly
// its bytes may be missing. Errors are of kind [pull.Kind].
func (c *Cache) Manifest(ctx context.Context, repo Repo, ref string, headOnly bool) (*Manifest, error) {
	o, err := c.origin(repo)
	if err != nil {
		return nil, err
	}
	if d, err := wire.ParseDigest(ref); err == nil {
		if p := c.policy.Load(); p != nil && (*p).Version() != 0 && pull.Client(ctx) != "" { // what the mirror does for itself is no answer
			if err := (*p).Digest(ctx, repo, d); err != nil {
				return nil, err
			}
		}
		return c.byDigest(ctx, o, repo, d, headOnly)
	}
	return c.byTag(ctx, o, repo, ref, headOnly)
}

// with returns a copy of m that says how it was had.
func (m *Manifest) with(r Result) *Manifest {
	n := *m
	n.Result = r
	return &n
}

// unconfirmed returns a copy of m that says that its tag could not be confirmed, by the
// mirror that was asked. How long ago it should have been is not known.
func (m *Manifest) unconfirmed() *Manifest {
	n := m.with(Stale)
	n.StaleFor = time.Second
	return n
}

// ask resolves ref by HEAD, or by GET where HEAD does not work or cannot be believed.
func (c *Cache) ask(ctx context.Context, o *origin, repo Repo, ref string) (resolved, error) {
	desc, err := o.Upstream.Resolve(ctx, repo.Name, ref)
	if err == nil {
		c.refuseLarge(ctx, repo, desc)
	}
	if pull.KindOf(err) != pull.Unsupported && pull.DetailOf(err) != pull.HeadOnly {
		return resolved{desc: desc}, err
	}
	desc, b, err := c.getManifest(ctx, o, repo, ref)
	return resolved{desc: desc, bytes: b}, err
}

// spend takes a pull from what the client may have. The last of a registry's are for repositories
// of which something has come here.
func (c *Cache) spend(ctx context.Context, o *origin, repo Repo) error {
	if pull.Client(ctx) != "" && o.atLastShare() {
		if pulled, err := c.store.Index.Holds(repo); !pulled && err == nil {
			return allowance.Refused(repo.Upstream, repo.Name, allowance.ByReserve, "what is left of its limit is for repositories that were pulled before", time.Minute)
		}
	}
	return c.limits.Spend(ctx, repo.Upstream, repo.Name)
}

// getManifest asks the upstream for a manifest.
func (c *Cache) getManifest(ctx context.Context, o *origin, repo Repo, ref string) (v1.Descriptor, []byte, error) {
	desc, b, err := o.Upstream.Manifest(ctx, repo.Name, ref)
	if errors.Is(err, pull.ErrDigest) {
		d, _ := wire.ParseDigest(ref) // none of a tag
		c.mismatched(repo, d, err)
	}
	c.remember(refKey(ctx, repo, ref), err)
	return desc, b, err
}

func (c *Cache) byDigest(ctx context.Context, o *origin, repo Repo, d v1.Hash, headOnly bool) (*Manifest, error) {
	m, linked := c.keptManifest(repo, d)
	if m != nil {
		if err := c.admitManifest(ctx, o, repo, d); err != nil {
			return nil, err
		}
		return m, nil
	}
	if _, stored := c.store.BucketSize(d); o.offline() && !(stored && linked) {
		return nil, c.offlineMiss(ctx, repo, "", d, false)
	}
	k := refKey(ctx, repo, d.String())
	if err, ok := c.recall(k); ok {
		return nil, err
	}
	// What is being fetched for this very repository needs no proof.
	if headOnly || !linked && c.keptWithin(o, repo, d) && !c.calls.manifests.Running(k) {
		if desc, ok := c.said(repo, d); ok && headOnly {
			if err := c.admitManifest(ctx, o, repo, d); err != nil {
				return nil, err
			}
			return &Manifest{Desc: desc, Result: Hit}, nil
		}
		if err := c.limits.Ask(ctx, repo.Upstream, repo.Name); err != nil {
			return nil, err
		}
		// A HEAD is free: it proves the right, and moves no bytes.
		wait, cancel := c.patience(ctx, o, k)
		defer cancel()
		m, joined, err := c.calls.manifests.Do(wait, key{aHead, repo, d.String() + pull.Accept(ctx)}, func(ctx context.Context) (*Manifest, error) {
			return c.prove(ctx, o, repo, d)
		})
		if desc, told := c.told(repo, d); err != nil && headOnly && told && pull.Failing(err) && pull.DetailOf(err) == pull.NoDetail {
			return &Manifest{Desc: desc, Result: Stale}, nil // what a digest names does not change
		}
		if err != nil || headOnly || m.Bytes != nil {
			return joinedIf(m, joined), c.orAbsent(o, k, err)
		}
	}
	if _, stored := c.store.BucketSize(d); !(stored && linked) && !c.calls.manifests.Running(k) {
		if err := c.spend(ctx, o, repo); err != nil {
			return nil, err
		}
	}
	wait, cancel := c.patience(ctx, o, k)
	defer cancel()
	m, joined, err := c.calls.manifests.Do(wait, k, func(ctx context.Context) (*Manifest, error) {
		return c.fetchManifest(ctx, o, repo, d)
	})
	return joinedIf(m, joined), c.orAbsent(o, k, err)
}

func joinedIf(m *Manifest, joined bool) *Manifest {
	if m == nil || !joined || m.Result != Miss {
		return m
	}
	return m.with(Joined)
}

// prove asks whether repo holds the manifest d, and links it.
func (c *Cache) prove(ctx context.Context, o *origin, repo Repo, d v1.Hash) (*Manifest, error) {
	if m, _ := c.keptManifest(repo, d); m != nil {
		return m, nil // since the caller looked
	}
	r, err := c.ask(ctx, o, repo, d.String())
	k := refKey(ctx, repo, d.String())
	if refused, ok := c.recall(k); err == nil && ok {
		err = refused // a HEAD must not name what a GET will not get
	}
	c.remember(k, err)
	if err != nil {
		return nil, err
	}
	if r.desc.Digest != d {
		return nil, &pull.Error{Kind: pull.Invalid, Upstream: repo.Upstream, Op: "head manifest " + repo.Name + "@" + d.String(),
			Message: "answer names another digest"}
	}
	if r.bytes != nil {
		return c.keepManifest(repo, r.desc, r.bytes)
	}
	if c.claim(o, repo, store.ManifestLink(r.desc)) {
		if m, _ := c.keptManifest(repo, d); m != nil {
			return m, nil
		}
	}
	return &Manifest{Desc: r.desc, Result: Miss}, nil
}

func (c *Cache) fetchManifest(ctx context.Context, o *origin, repo Repo, d v1.Hash) (*Manifest, error) {
	if m, _ := c.keptManifest(repo, d); m != nil {
		return m, nil // since the caller looked
	}
	if m := c.bucketManifest(ctx, o, repo, d); m != nil {
		return m, nil
	}
	if o.offline() {
		return nil, offlineError(repo)
	}
	desc, b, err := c.getManifest(ctx, o, repo, d.String())
	if err != nil {
		if pull.Failing(err) && pull.DetailOf(err) != pull.Refused {
			c.known.unfetched.Add(key{aRef, repo, d.String()}, err)
		}
		return nil, err
	}
	c.ForgetUnfetched(repo, d)
	if desc.Digest != d {
		return nil, &pull.Error{Kind: pull.Invalid, Upstream: repo.Upstream, Op: "get manifest " + repo.Name + "@" + d.String(),
			Err: sums.ErrMismatch}
	}
	return c.keepManifest(repo, desc, b)
}

// keepManifest verifies, stores and links a manifest. A disk that refuses does not keep
// the client from its manifest.
func (c *Cache) keepManifest(repo Repo, desc v1.Descriptor, b []byte) (*Manifest, error) {
	if err := sums.Check(desc.Digest, b); err != nil {
		c.mismatched(repo, desc.Digest, err)
		return nil, &pull.Error{Kind: pull.Invalid, Upstream: repo.Upstream, Op: "get manifest " + repo.Name + "@" + desc.Digest.String(), Err: err}
	}
	kept, err := c.store.PutManifest(repo, desc, b)
	if err != nil {
		c.log.Error("manifest not kept", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name),
			logkey.Digest(desc.Digest), logkey.Err(err))
		return answer(kept, Passed), nil
	}
	c.images.Pins.Kept(desc.Digest, b)
	c.record(repo, desc.Digest)
	return answer(kept, Miss), nil
}

// answer is a kept manifest, and how it was had.
func answer(m *store.Manifest, r Result) *Manifest {
	return &Manifest{Desc: m.Desc, Bytes: m.Bytes, Result: r}
}

// keptManifest returns the manifest d when repo holds it and it is kept. linked tells
// whether repo holds it, kept or not.
func (c *Cache) keptManifest(repo Repo, d v1.Hash) (m *Manifest, linked bool) {
	kept, linked := c.store.Manifest(repo, d)
	if kept == nil {
		return nil, linked
	}
	return answer(kept, Hit), true
}

// bucketManifest returns a manifest that repo holds and the bucket has, nil when it has
// not. It is on the disk then.
func (c *Cache) bucketManifest(ctx context.Context, o *origin, repo Repo, d v1.Hash) *Manifest {
	if _, ok := c.store.BucketSize(d); !ok {
		return nil
	}
	right, _ := c.right(o, repo, index.Manifest, d)
	desc, ok := c.said(repo, d)
	if !right || !ok {
		return nil
	}
	b, err := c.store.Bucket.Get(ctx, d, manifest.MaxBytes)
	if err != nil {
		c.log.Debug("manifest not read from the bucket", logkey.Digest(d), logkey.Err(err))
		return nil
	}
	if err := sums.Check(d, b); err != nil {
		c.store.Bucket.Distrust(d)
		return nil
	}
	m, err := c.keepManifest(repo, desc, b)
	if err != nil {
		return nil
	}
	return m.with(Hit)
}

// Troubled reports whether a fill of repo failed for good a short while ago, so that a
// client that cannot fall back for a blob should not begin with a manifest.
func (c *Cache) Troubled(repo Repo) bool {
	_, ok := c.known.trouble.Get(repo)
	return ok
}

// Servable reports whether a client that has m will get its blobs: all of them are kept
// and linked, or the upstream is not known to fail. Of an index only the children tell.
func (c *Cache) Servable(_ context.Context, repo Repo, m *Manifest) bool {
	o, err := c.origin(repo)
	if err != nil || !o.health.Failing() {
		return err == nil
	}
	doc, ok := manifest.Parse(m.Bytes)
	if !ok {
		return false
	}
	for _, p := range doc.Blobs() {
		if len(p.URLs) > 0 {
			continue // clients that we care for here take it from elsewhere
		}
		if _, ok := c.store.Size(p.Digest); !ok || !c.store.Linked(repo, index.Blob, p.Digest) {
			return false
		}
	}
	return true
}
