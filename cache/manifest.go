package cache

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"forebay/cache/evict"
	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// manifestMax bounds a manifest: every registry caps them at 4 MiB (facts of distribution
// and Docker Hub); larger ones never get into the store.
const manifestMax = 4 << 20

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
		return c.byDigest(ctx, o, repo, d, headOnly)
	}
	return c.byTag(ctx, o, repo, ref, headOnly)
}

func (c *Cache) origin(repo Repo) (*origin, error) {
	o, ok := c.upstreams[repo.Upstream]
	if !ok {
		return nil, &pull.Error{Kind: pull.NotFound, Upstream: repo.Upstream, Op: "route", Message: "registry is not configured"}
	}
	return o, nil
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

// ask resolves ref by HEAD, or by GET where HEAD does not work.
func (c *Cache) ask(ctx context.Context, o *origin, repo Repo, ref string) (resolved, error) {
	desc, err := o.Upstream.Resolve(ctx, repo.Name, ref)
	if err == nil {
		o.health.heads.Store(true)
		return resolved{desc: desc}, nil
	}
	switch pull.KindOf(err) {
	case pull.Unsupported:
	case pull.NotFound:
		// A registry whose HEAD never worked may say 404 to all of them.
		if o.health.heads.Load() {
			return resolved{}, err
		}
	default:
		return resolved{}, err
	}
	desc, b, err := c.getManifest(ctx, o, repo, ref)
	return resolved{desc: desc, bytes: b}, err
}

// getManifest asks the upstream for a manifest.
func (c *Cache) getManifest(ctx context.Context, o *origin, repo Repo, ref string) (v1.Descriptor, []byte, error) {
	desc, b, err := o.Upstream.Manifest(ctx, repo.Name, ref)
	if errors.Is(err, pull.ErrDigest) {
		d, _ := wire.ParseDigest(ref) // none of a tag
		c.mismatched(repo, d, err)
	}
	return desc, b, err
}

func (c *Cache) byDigest(ctx context.Context, o *origin, repo Repo, d v1.Hash, headOnly bool) (*Manifest, error) {
	m, linked, err := c.linkedManifest(repo, d)
	if m != nil && err == nil {
		err = c.admitManifest(ctx, o, repo, d)
	}
	if err != nil {
		return nil, err
	}
	if m != nil {
		return m, nil
	}
	if _, stored := c.inBucket(d); o.Offline && !(stored && linked) {
		return nil, c.offlineMiss(ctx, repo, "", d, false)
	}
	key := repo.String() + "\x00" + d.String()
	if err, ok := c.recall(key); ok {
		return nil, err
	}
	// What is being fetched for this very repository needs no proof.
	if headOnly || !linked && c.possesses(d) && !c.manifests.running(key) {
		if desc, ok := c.linkDesc(repo, d); ok && headOnly {
			if err := c.admitManifest(ctx, o, repo, d); err != nil {
				return nil, err
			}
			return &Manifest{Desc: desc, Result: Hit}, nil
		}
		// A HEAD is free: it proves the link, and moves no bytes.
		m, joined, err := c.manifests.do(ctx, "head\x00"+key, func(ctx context.Context) (*Manifest, error) {
			return c.prove(ctx, o, repo, d, key)
		})
		if err != nil || headOnly || m.Bytes != nil {
			return joinedIf(m, joined), err
		}
	}
	m, joined, err := c.manifests.do(ctx, key, func(ctx context.Context) (*Manifest, error) {
		return c.fetchManifest(ctx, o, repo, d, key)
	})
	return joinedIf(m, joined), err
}

// linkDesc returns what is known of a manifest that repo holds, kept or not.
func (c *Cache) linkDesc(repo Repo, d v1.Hash) (v1.Descriptor, bool) {
	l, ok, err := c.index.Link(repo, index.Manifest, d)
	if err != nil || !ok || l.MediaType == "" || l.Size < 0 {
		return v1.Descriptor{}, false
	}
	return v1.Descriptor{MediaType: types.MediaType(l.MediaType), Size: l.Size, Digest: d}, true
}

func joinedIf(m *Manifest, joined bool) *Manifest {
	if m == nil || !joined || m.Result != Miss {
		return m
	}
	return m.with(Joined)
}

// prove asks whether repo holds the manifest d, and links it.
func (c *Cache) prove(ctx context.Context, o *origin, repo Repo, d v1.Hash, key string) (*Manifest, error) {
	if m, _, err := c.linkedManifest(repo, d); m != nil || err != nil {
		return m, err // since the caller looked
	}
	r, err := c.ask(ctx, o, repo, d.String())
	o.health.saw(err)
	if err != nil {
		c.remember(key, err)
		return nil, err
	}
	if r.desc.Digest != d {
		return nil, &pull.Error{Kind: pull.Invalid, Upstream: repo.Upstream, Op: "head manifest " + repo.Name + "@" + d.String(),
			Message: "answer names another digest"}
	}
	if r.bytes != nil {
		return c.keepManifest(repo, r.desc, r.bytes)
	}
	if err := c.linkManifest(repo, r.desc); err != nil {
		return nil, err
	}
	if m, _, err := c.linkedManifest(repo, d); m != nil || err != nil {
		return m, err
	}
	return &Manifest{Desc: r.desc, Result: Miss}, nil
}

func (c *Cache) fetchManifest(ctx context.Context, o *origin, repo Repo, d v1.Hash, key string) (*Manifest, error) {
	if m, _, err := c.linkedManifest(repo, d); m != nil || err != nil {
		return m, err // since the caller looked
	}
	if m := c.bucketManifest(ctx, repo, d); m != nil {
		return m, nil
	}
	if o.Offline {
		return nil, offlineError(repo)
	}
	desc, b, err := c.getManifest(ctx, o, repo, d.String())
	o.health.saw(err)
	if err != nil {
		c.remember(key, err)
		if pull.Failing(err) {
			c.unfetched.add(d, err)
		}
		return nil, err
	}
	c.unfetched.remove(d)
	if desc.Digest != d {
		return nil, &pull.Error{Kind: pull.Invalid, Upstream: repo.Upstream, Op: "get manifest " + repo.Name + "@" + d.String(),
			Err: errMismatch}
	}
	return c.keepManifest(repo, desc, b)
}

// keepManifest verifies, stores and links a manifest. A disk that refuses does not keep
// the client from its manifest.
func (c *Cache) keepManifest(repo Repo, desc v1.Descriptor, b []byte) (*Manifest, error) {
	if err := matches(desc.Digest, b); err != nil {
		c.mismatched(repo, desc.Digest, err)
		return nil, &pull.Error{Kind: pull.Invalid, Upstream: repo.Upstream, Op: "get manifest " + repo.Name + "@" + desc.Digest.String(), Err: err}
	}
	desc.Size = int64(len(b))
	m := &Manifest{Desc: desc, Bytes: b, Result: Miss, refs: c.readRefs(b), used: new(atomic.Int64)}
	err := c.disk.Put(desc.Digest, b)
	c.storeUsed(&c.writes, err)
	if err == nil {
		c.space.add(desc.Digest, desc.Size, evict.Manifest)
		err = c.record(func(b *index.Batch) error {
			return errors.Join(b.PutBlob(desc.Digest, index.BlobInfo{Size: desc.Size, Added: time.Now()}),
				b.PutLink(repo, index.Manifest, desc.Digest, linkOf(desc)))
		})
	}
	if err != nil {
		c.log.Error("manifest not kept", logkey.Upstream(repo.Upstream), logkey.Repository(repo.Name),
			logkey.Digest(desc.Digest), logkey.Err(err))
		c.heat(repo, m) // memory is no worse a place while the disk fails
		return m.with(Passed), nil
	}
	c.upload(desc.Digest, desc.Size)
	c.pinKept(desc.Digest, b)
	c.heat(repo, m)
	return m, nil
}

// heat keeps a small manifest in memory.
func (c *Cache) heat(repo Repo, m *Manifest) {
	if len(m.Bytes) <= hotManifest {
		c.hot.Add(hotKey(repo, m.Desc.Digest), m.with(Hit))
	}
}

func hotKey(repo Repo, d v1.Hash) string {
	return repo.Upstream + "\x00" + repo.Name + "\x00" + d.Algorithm + d.Hex
}

// linkedManifest returns the manifest d when repo holds it and it is kept. linked tells
// whether repo holds it, kept or not.
func (c *Cache) linkedManifest(repo Repo, d v1.Hash) (m *Manifest, linked bool, err error) {
	if m, ok := c.hot.Get(hotKey(repo, d)); ok {
		c.useManifest(m)
		return m, true, nil
	}
	link, linked, err := c.index.Link(repo, index.Manifest, d)
	if err != nil {
		c.unread(err)
		linked = false
	}
	if !linked {
		return nil, false, nil
	}
	b, err := c.readKept(d, manifestMax)
	if err != nil {
		c.unreadable(d, err)
		return nil, true, nil
	}
	c.storeUsed(&c.reads, nil)
	if err := matches(d, b); err != nil {
		c.event(eventOf(EventVerificationFailed, repo, d).because(err))
		c.condemnKept(d, err)
		return nil, true, nil
	}
	m = &Manifest{Desc: v1.Descriptor{MediaType: types.MediaType(link.MediaType), Digest: d, Size: int64(len(b))},
		Bytes: b, Result: Hit, refs: c.readRefs(b), used: new(atomic.Int64)}
	c.useManifest(m)
	c.heat(repo, m)
	return m, true, nil
}

// matches reports how b differs from the digest d.
func matches(d v1.Hash, b []byte) error {
	h, err := newHash(d)
	if err != nil {
		return err
	}
	h.Write(b)
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != d.Hex {
		return fmt.Errorf("%w: got %s:%s", errMismatch, d.Algorithm, got)
	}
	return nil
}

// recall returns a negative answer that is remembered.
func (c *Cache) recall(key string) (error, bool) {
	if c.absent == nil {
		return nil, false
	}
	return c.absent.get(key)
}

// remember keeps an absence in mind. Failures and refusals are never remembered as absence.
func (c *Cache) remember(key string, err error) {
	if c.absent != nil && pull.KindOf(err) == pull.NotFound {
		c.absent.add(key, err)
	}
}
