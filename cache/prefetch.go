package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

// PrefetchRequest asks for one image, whole, before anybody pulls it.
type PrefetchRequest struct {
	Repo   Repo
	Tag    string  // what it is called; may be empty if there is a digest
	Digest v1.Hash // what to fetch; zero: what the tag points to
	Blob   bool    // Digest is a blob, not an image
	// Platforms are those that are fetched of an index, or "all" alone. Required but of a blob.
	Platforms []string
	Referrers bool // signatures, SBOMs and attestations too
	DryRun    bool // only tell what would be fetched, asking by HEAD alone
	// Wait is whether to wait for the registry's budget rather than fail: while it limits
	// us, and while no more than the reserve is left.
	Wait bool
	// Poll is how often the budget is looked at meanwhile, by a HEAD. 0 means a minute.
	Poll time.Duration
	// Counted, if not nil, is shared by dry runs whose sums are added up: what one of them
	// has counted is not counted by the others.
	Counted *sync.Map
}

// Prefetched says what a prefetch did or, of a dry run, would do.
type Prefetched struct {
	Digest v1.Hash `json:"digest,omitzero"` // of the index, manifest or blob
	// Pulls are the requests that registries count as pulls: a GET for each manifest.
	Pulls   int64 `json:"pulls"`
	Fetched int64 `json:"fetched"` // manifests and blobs
	Bytes   int64 `json:"bytes"`   // of them
	// KeptBytes are those of the image that were there already.
	KeptBytes int64 `json:"kept_bytes"`
	// More is, of a dry run, whether Bytes is not all: what a manifest names is not known
	// before the manifest is.
	More   bool          `json:"more,omitempty"`
	Failed []RepairFault `json:"failed,omitempty"` // what is still missing, at most 100
	// MovedTo is what the tag points to at the registry, when that is not Digest.
	MovedTo string `json:"moved_to,omitempty"`

	err error // the worst of the failures
}

// Err returns the worst of what went wrong: nil when all is there.
func (p *Prefetched) Err() error { return p.err }

// Prefetch fetches what is missing of an image. Unlike clients it keeps off the reserve of
// the budget: manifests are fetched one at a time per registry, each after a look at what
// is left. tell, if not nil, is called now and then. An error means that nothing could be
// done; what went wrong with parts of it is in the result. When ctx ends, downloads in
// progress go on.
func (c *Cache) Prefetch(ctx context.Context, q PrefetchRequest, tell func(Progress)) (*Prefetched, error) {
	o, err := c.origin(q.Repo)
	if err != nil {
		return nil, err
	}
	if err := checkPlatforms(q.Platforms); err != nil {
		return nil, err
	}
	if q.Poll <= 0 {
		q.Poll = time.Minute
	}
	if q.Counted == nil {
		q.Counted = &sync.Map{}
	}
	p := &prefetch{c: c, o: o, q: q, seen: map[v1.Hash]bool{}, slots: make(chan struct{}, repairAtOnce)}
	done := p.told.telling(tell)
	err = p.run(ctx)
	p.fills.Wait()
	done()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	if !q.DryRun {
		c.log.Info("image prefetched", logkey.Reference(refString(q.Repo, q.Tag, p.result.Digest)), logkey.Count(int(p.result.Fetched)),
			logkey.Bytes(p.result.Bytes), logkey.Err(p.result.err))
	}
	return &p.result, nil
}

// prefetch is one run of Prefetch.
type prefetch struct {
	c     *Cache
	o     *origin
	q     PrefetchRequest
	seen  map[v1.Hash]bool
	told  progress
	slots chan struct{}
	fills sync.WaitGroup

	mu     sync.Mutex
	result Prefetched // guarded by mu while fills run
}

func (p *prefetch) run(ctx context.Context) error {
	if p.q.Blob {
		p.result.Digest = p.q.Digest
		p.blob(ctx, Part{Digest: p.q.Digest, Size: -1})
		return nil
	}
	root, err := p.root(ctx)
	if err != nil {
		return err
	}
	p.result.Digest = root.Digest
	if err := p.image(ctx, descriptor{Digest: root.Digest.String(), Size: root.Size, MediaType: string(root.MediaType)}, true, 0); err != nil {
		return err
	}
	if p.q.Tag != "" && p.q.Digest != (v1.Hash{}) {
		p.bindTag(ctx)
	}
	return nil
}

// root finds out what to fetch, by HEAD.
func (p *prefetch) root(ctx context.Context) (v1.Descriptor, error) {
	ref := p.q.Tag
	if p.q.Digest != (v1.Hash{}) {
		if p.c.keeps(p.q.Repo, p.q.Digest) {
			size, _ := p.c.storedSize(p.q.Digest)
			return v1.Descriptor{Digest: p.q.Digest, Size: size}, nil
		}
		ref = p.q.Digest.String()
	}
	for {
		m, err := p.c.Manifest(ctx, p.q.Repo, ref, true)
		if err == nil {
			return m.Desc, nil
		}
		if err := p.pause(ctx, err); err != nil {
			return v1.Descriptor{}, err
		}
	}
}

// bindTag asks what the tag of a locked image points to, so that it can be pulled by its
// tag if that has not moved.
func (p *prefetch) bindTag(ctx context.Context) {
	m, err := p.c.Manifest(ctx, p.q.Repo, p.q.Tag, true)
	switch {
	case err != nil:
		p.failed(p.q.Digest, fmt.Errorf("what tag %s points to: %w", p.q.Tag, err))
	case m.Desc.Digest != p.q.Digest:
		p.result.MovedTo = m.Desc.Digest.String()
	}
}

// image fetches a manifest if it is missing, and goes on to what it names. An error is
// returned for the first of them only.
func (p *prefetch) image(ctx context.Context, desc descriptor, first bool, depth int) error {
	d, ok := desc.digest()
	if !ok || p.seen[d] || depth > imageDepth {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	p.seen[d] = true
	if err := p.manifest(ctx, d, desc.Size); err != nil {
		return p.missed(d, err, first)
	}
	doc, ok := p.c.doc(p.q.Repo, d)
	if !ok {
		if p.q.DryRun {
			p.unread(desc)
		}
		return nil
	}
	if first {
		if err := doc.has(p.q.Platforms); err != nil {
			p.failed(d, err) // the others of them are fetched
		}
	}
	for _, b := range doc.blobs() {
		p.blob(ctx, b)
	}
	p.children(ctx, doc, depth)
	if p.q.Referrers {
		p.referrers(ctx, d, depth)
	}
	return nil
}

// missed returns the error of a manifest that is the first of all, and books that of others.
func (p *prefetch) missed(d v1.Hash, err error, first bool) error {
	if first {
		return err
	}
	p.failed(d, err)
	return nil
}

// children fetches the images of an index that are asked for, and what BuildKit attested
// of them.
func (p *prefetch) children(ctx context.Context, doc *contentDoc, depth int) {
	chosen := map[string]bool{}
	for _, child := range doc.Manifests {
		if child.name() != attestation && wantedPlatform(p.q.Platforms, child.name()) {
			chosen[child.Digest] = true
			_ = p.image(ctx, child, false, depth+1)
		}
	}
	if !p.q.Referrers {
		return
	}
	for _, child := range doc.Manifests {
		if child.name() == attestation && chosen[child.Annotations["vnd.docker.reference.digest"]] {
			_ = p.image(ctx, child, false, depth+1)
		}
	}
}

// unread counts, in a dry run, what follows from a manifest that is not here: of an index
// at least a manifest for each platform.
func (p *prefetch) unread(desc descriptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result.More = true
	if isIndexType(desc.MediaType) {
		p.result.Pulls += int64(len(p.q.Platforms))
		p.result.Fetched += int64(len(p.q.Platforms))
	}
}

func isIndexType(mediaType string) bool {
	switch mediaType {
	case "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json":
		return true
	}
	return false
}

// referrers fetches what refers to a manifest: by the registry's list, and by the tags
// under which cosign keeps signatures.
func (p *prefetch) referrers(ctx context.Context, d v1.Hash, depth int) {
	if !p.q.DryRun {
		if _, err := p.c.Referrers(ctx, p.q.Repo, d); err != nil && pull.KindOf(err) != pull.NotFound && pull.KindOf(err) != pull.Unsupported {
			p.failed(d, fmt.Errorf("list of referrers: %w", err))
		}
		p.cosign(ctx, d)
	}
	for _, desc := range p.listedReferrers(d) {
		_ = p.image(ctx, desc, false, depth+1)
	}
}

// cosign looks for the tags of the older scheme of cosign, by HEAD.
func (p *prefetch) cosign(ctx context.Context, d v1.Hash) {
	for _, suffix := range []string{".sig", ".att", ".sbom"} {
		tag := d.Algorithm + "-" + d.Hex + suffix
		_, err := p.c.Manifest(ctx, p.q.Repo, tag, true)
		if err != nil && pull.KindOf(err) != pull.NotFound {
			p.failed(d, fmt.Errorf("tag %s: %w", tag, err))
		}
	}
}

// listedReferrers returns the referrers that are known, whether or not they are here.
func (p *prefetch) listedReferrers(d v1.Hash) []descriptor {
	return append(p.c.listedReferrers(p.q.Repo, d), p.c.knownReferrers(p.q.Repo, d)...)
}

// manifest fetches a manifest if it is missing.
func (p *prefetch) manifest(ctx context.Context, d v1.Hash, size int64) error {
	state, size := p.c.stateOf(p.q.Repo, index.Manifest, d, size)
	if state == Present {
		p.mu.Lock()
		p.result.KeptBytes += size
		p.mu.Unlock()
		return nil
	}
	if p.q.DryRun {
		p.count(d, state, size, true)
		return nil
	}
	p.told.itemsTotal.Add(1)
	p.told.bytesTotal.Add(max(size, 0))
	m, err := p.charged(ctx, d)
	p.told.items.Add(1)
	if err != nil {
		p.told.faults.Add(1)
		return err
	}
	p.told.bytes.Add(int64(len(m.Bytes)))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result.Fetched++
	if m.Result == Miss && state == Missing {
		p.result.Pulls++
		p.result.Bytes += int64(len(m.Bytes))
	}
	return nil
}

// count takes in, in a dry run, something that is missing.
func (p *prefetch) count(d v1.Hash, state State, size int64, manifest bool) {
	if _, twice := p.q.Counted.LoadOrStore(d, true); twice || state == Unlinked {
		return // one HEAD, and no bytes
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.result.Fetched++
	p.result.Bytes += max(size, 0)
	p.result.More = p.result.More || size < 0
	if manifest {
		p.result.Pulls++
	}
}

// errReserve is why a prefetch does not go on.
var errReserve = errors.New("only the reserve of the budget is left")

// charged fetches a manifest by a request that registries count. It has the registry for
// itself meanwhile: others would take from the reserve what each of them sees is left.
func (p *prefetch) charged(ctx context.Context, d v1.Hash) (*Manifest, error) {
	select {
	case p.o.paying <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.o.paying }()
	for {
		var err error
		if p.o.atReserve() && !p.c.possesses(d) {
			err = &pull.Error{Kind: pull.Limited, Upstream: p.q.Repo.Upstream, Op: "get manifest " + p.q.Repo.Name + "@" + d.String(), Err: errReserve}
		} else {
			var m *Manifest
			if m, err = p.c.Manifest(ctx, p.q.Repo, d.String(), false); err == nil {
				return m, nil
			}
		}
		if err := p.pause(ctx, err); err != nil {
			return nil, err
		}
		if p.o.atReserve() {
			// A free request, whose answer tells what is left now.
			_, err := p.o.Upstream.Resolve(ctx, p.q.Repo.Name, d.String())
			p.o.health.saw(err)
		}
	}
}

// pause waits after a refusal for the sake of a limit. It returns err when there is
// nothing to wait for.
func (p *prefetch) pause(ctx context.Context, err error) error {
	if !p.q.Wait || p.q.DryRun || pull.KindOf(err) != pull.Limited {
		return err
	}
	wait := p.q.Poll
	var limited *pull.Error
	if errors.As(err, &limited) && limited.RetryAfter > 0 {
		wait = min(wait, limited.RetryAfter)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// blob starts to fetch a blob if it is missing, as soon as there is a slot.
func (p *prefetch) blob(ctx context.Context, b Part) {
	if p.seen[b.Digest] || ctx.Err() != nil {
		return
	}
	p.seen[b.Digest] = true
	state, size := p.c.stateOf(p.q.Repo, index.Blob, b.Digest, b.Size)
	if state == Present {
		p.mu.Lock()
		p.result.KeptBytes += size
		p.mu.Unlock()
		return
	}
	if p.q.DryRun {
		p.count(b.Digest, state, size, false)
		return
	}
	p.told.itemsTotal.Add(1)
	if state == Missing {
		p.told.bytesTotal.Add(max(size, 0))
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	p.fills.Go(func() {
		defer func() { <-p.slots }()
		p.fetch(ctx, b.Digest)
	})
}

// fetch fetches one blob, again while its registry limits us if that is to be waited for.
func (p *prefetch) fetch(ctx context.Context, d v1.Hash) {
	var arrived int64
	for {
		result, err := p.c.fetchBlob(ctx, p.q.Repo, d, func(n int64) int64 {
			arrived += n
			return p.told.bytes.Add(n)
		})
		if err != nil && p.pause(ctx, err) == nil {
			continue
		}
		p.told.items.Add(1)
		if err != nil {
			p.told.faults.Add(1)
			p.failed(d, err)
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.result.Fetched++
		if result == Miss { // else it was counted by whoever began it
			p.result.Bytes += arrived
		}
		return
	}
}

func (p *prefetch) failed(d v1.Hash, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.result.Failed) < failuresMost {
		p.result.Failed = append(p.result.Failed, RepairFault{d, err.Error()})
	}
	// A limit passes by itself, so that anything else is worse.
	if p.result.err == nil || pull.KindOf(p.result.err) == pull.Limited {
		p.result.err = err
	}
}
