package upkeep

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/image"
	"forebay/cache/index"
	"forebay/cache/store"
	"forebay/internal/logkey"
	"forebay/internal/manifest"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// fetchedAtOnce bounds the blobs that one run fetches at the same time, so that clients
// come first; each may use several connections.
const fetchedAtOnce = 3

// Request asks for one image, whole, before anybody pulls it.
type Request struct {
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

// Prefetched says what was fetched or, in a dry run, would be.
type Prefetched struct {
	Digest wire.Digest `json:"digest,omitzero"` // of the index, manifest or blob
	// Pulls are the requests that registries count as pulls: a GET for each manifest.
	Pulls   int64 `json:"pulls"`
	Fetched int64 `json:"fetched"` // manifests and blobs
	Bytes   int64 `json:"bytes"`   // of them
	// KeptBytes are those of the image that were there already.
	KeptBytes int64 `json:"kept_bytes"`
	// More is, of a dry run, whether Bytes is not all: what a manifest names is not known
	// before the manifest is.
	More   bool    `json:"more,omitempty"`
	Failed []Fault `json:"failed,omitempty"` // what is still missing, at most 100
	// MovedTo is what the tag points to at the registry, when that is not Digest.
	MovedTo string `json:"moved_to,omitempty"`

	err error // the worst of the failures
}

// Err returns the worst of what went wrong: nil when all is there.
func (f *Prefetched) Err() error { return f.err }

// Prefetch fetches what is missing of an image. Unlike clients it keeps off the reserve of
// the budget: manifests are fetched one at a time per registry, each after a look at what
// is left. tell, if not nil, is called now and then. An error means that nothing could be
// done; what went wrong with parts of it is in the result. When ctx ends, downloads in
// progress go on.
func (k *Keeper) Prefetch(ctx context.Context, q Request, tell func(Progress)) (*Prefetched, error) {
	if err := k.Cache.Configured(q.Repo); err != nil {
		return nil, err
	}
	if err := image.CheckPlatforms(q.Platforms); err != nil {
		return nil, err
	}
	if q.Poll <= 0 {
		q.Poll = time.Minute
	}
	if q.Counted == nil {
		q.Counted = &sync.Map{}
	}
	f := k.newFetching(q, sparing)
	done := f.progress.report(tell)
	err := f.prefetch(ctx)
	f.settle()
	done()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	if !q.DryRun {
		k.log.Info("image prefetched", logkey.Reference(image.Name(q.Repo, q.Tag, f.result.Digest.Hash)), logkey.Count(int(f.result.Fetched)),
			logkey.Bytes(f.result.Bytes), logkey.Err(f.result.err))
	}
	return &f.result, nil
}

// Repaired says what a repair did.
type Repaired struct {
	Fetched int64              `json:"fetched"` // things that were missing
	Bytes   int64              `json:"bytes"`
	Failed  []Fault            `json:"failed"` // what is still missing, at most 100
	State   image.Completeness `json:"state"`
}

// Repair fetches what is missing of an image: of a tag, or of a digest if the tag is
// empty. With platforms those are completed; without, those that somebody pulled, or
// that a pin names. It returns when all is there or has failed; tell, if not nil, is
// called now and then. When ctx ends, downloads in progress go on.
func (k *Keeper) Repair(ctx context.Context, repo Repo, tag string, d v1.Hash, platforms []string, tell func(Progress)) (*Repaired, error) {
	if err := image.CheckPlatforms(platforms); err != nil {
		return nil, err
	}
	f := k.newFetching(Request{Repo: repo, Tag: tag, Digest: d, Platforms: platforms}, inFull)
	root, err := f.get(ctx)
	if err != nil {
		return nil, err
	}
	if len(platforms) == 0 {
		if pin, ok, err := k.Images.Pins.Record(repo, f.ref()); ok && err == nil {
			f.q.Platforms = pin.Platforms
		}
	}
	done := f.progress.report(tell)
	err = f.walk(ctx, root)
	f.settle()
	done()
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	result := Repaired{Fetched: f.progress.items.Load() - f.progress.faults.Load(), Bytes: f.progress.bytes.Load(), Failed: f.result.Failed}
	if result.Failed == nil {
		result.Failed = []Fault{}
	}
	result.State = k.Images.Of(repo, tag, root.Digest).State
	k.log.Info("image repaired", logkey.Reference(image.Name(repo, tag, d)), logkey.Count(int(result.Fetched)), logkey.Bytes(result.Bytes))
	return &result, nil
}

// manner is how an image is fetched.
type manner uint8

const (
	// sparing keeps off the reserve of the registry's budget, and asks it for referrers
	// if they are wanted.
	sparing manner = iota
	// inFull spends what is needed, and takes along the referrers that are known.
	inFull
)

// fetching is one run that fetches what is missing of an image.
type fetching struct {
	k        *Keeper
	q        Request
	manner   manner
	taken    map[string]bool // digests of children that are fetched
	found    bool            // an image of an index is among them
	lacks    error           // what an index within the index has not got
	progress progress
	slots    chan struct{}
	blobs    sync.WaitGroup // that are being fetched

	mu     sync.Mutex
	result Prefetched // guarded by mu while blobs are fetched
}

func (k *Keeper) newFetching(q Request, m manner) *fetching {
	return &fetching{k: k, q: q, manner: m, taken: map[string]bool{}, slots: make(chan struct{}, fetchedAtOnce)}
}

// ref is the tag, or the digest if there is none.
func (f *fetching) ref() string {
	if f.q.Tag != "" {
		return f.q.Tag
	}
	return f.q.Digest.String()
}

// get fetches the root of the image, and returns why it has not got the platforms.
func (f *fetching) get(ctx context.Context) (v1.Descriptor, error) {
	m, err := f.k.Cache.Manifest(ctx, f.q.Repo, f.ref(), false)
	if err != nil {
		return v1.Descriptor{}, err
	}
	if doc, ok := manifest.Parse(m.Bytes); ok {
		if err := doc.Has(f.q.Platforms); err != nil {
			return v1.Descriptor{}, fmt.Errorf("%w: %w", store.ErrQuery, err)
		}
	}
	return m.Desc, nil
}

// learn makes sure that the manifests of an image are kept: its own, and those of the
// platforms, each of which must be there.
func (f *fetching) learn(ctx context.Context) error {
	root, err := f.get(ctx)
	if err != nil {
		return err
	}
	return manifest.Walk{
		Manifest: func(n manifest.Node) (*manifest.Document, error) {
			m, err := f.k.Cache.Manifest(ctx, f.q.Repo, n.Digest.String(), false)
			if err != nil {
				return nil, err
			}
			doc, ok := manifest.Parse(m.Bytes)
			if !ok && n.Depth == 0 {
				return nil, fmt.Errorf("manifest %s cannot be read", n.Digest)
			}
			return doc, nil
		},
		Platforms: f.q.Platforms,
		Child:     func(_ manifest.Descriptor, wanted bool) (bool, error) { return wanted, nil },
	}.Run(manifest.Describe(root))
}

// prefetch fetches a blob, or an image whose root is found out by HEAD.
func (f *fetching) prefetch(ctx context.Context) error {
	if f.q.Blob {
		f.result.Digest = wire.Digest{Hash: f.q.Digest}
		return f.blob(ctx, manifest.Blob{Digest: f.q.Digest, Size: -1})
	}
	root, err := f.head(ctx)
	if err != nil {
		return err
	}
	f.result.Digest = wire.Digest{Hash: root.Digest}
	if err := f.walk(ctx, root); err != nil {
		return err
	}
	if f.q.Tag != "" && f.q.Digest != (v1.Hash{}) {
		f.bindTag(ctx)
	}
	return nil
}

// head finds out what to fetch, by HEAD.
func (f *fetching) head(ctx context.Context) (v1.Descriptor, error) {
	ref := f.q.Tag
	if f.q.Digest != (v1.Hash{}) {
		if f.k.Store.Serves(f.q.Repo, f.q.Digest) {
			size, _ := f.k.Store.Size(f.q.Digest)
			return v1.Descriptor{Digest: f.q.Digest, Size: size}, nil
		}
		ref = f.q.Digest.String()
	}
	for {
		m, err := f.k.Cache.Manifest(ctx, f.q.Repo, ref, true)
		if err == nil {
			return m.Desc, nil
		}
		if err := f.pause(ctx, err); err != nil {
			return v1.Descriptor{}, err
		}
	}
}

// bindTag asks what the tag of a locked image points to, so that it can be pulled by its
// tag if that has not moved.
func (f *fetching) bindTag(ctx context.Context) {
	m, err := f.k.Cache.Manifest(ctx, f.q.Repo, f.q.Tag, true)
	switch {
	case err != nil:
		f.failed(f.q.Digest, fmt.Errorf("what tag %s points to: %w", f.q.Tag, err))
	case m.Desc.Digest != f.q.Digest:
		f.result.MovedTo = m.Desc.Digest.String()
	}
}

// walk fetches what is missing of the image root. Its blobs may still be on their way then.
func (f *fetching) walk(ctx context.Context, root v1.Descriptor) error {
	w := manifest.Walk{
		Manifest:  func(n manifest.Node) (*manifest.Document, error) { return f.manifest(ctx, n) },
		Blob:      func(_ manifest.Node, b manifest.Blob) error { return f.blob(ctx, b) },
		Platforms: f.q.Platforms,
		Child:     f.child,
	}
	switch {
	case f.manner == inFull:
		w.Referrers = func(n manifest.Node) ([]manifest.Descriptor, error) { return f.k.Images.Known(f.q.Repo, n.Digest), nil }
	case f.q.Referrers:
		w.Referrers = func(n manifest.Node) ([]manifest.Descriptor, error) { return f.referrers(ctx, n.Digest), nil }
	}
	if err := w.Run(manifest.Describe(root)); err != nil {
		return err
	}
	if !f.found && f.lacks != nil {
		f.failed(root.Digest, f.lacks)
	}
	return nil
}

// manifest fetches a manifest if it is missing. An error is returned for the root only:
// others are booked.
func (f *fetching) manifest(ctx context.Context, n manifest.Node) (*manifest.Document, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := f.fetchManifest(ctx, n); err != nil {
		if n.Depth == 0 && f.manner == sparing {
			return nil, err
		}
		f.failed(n.Digest, err)
	}
	doc, ok := f.k.Store.Document(f.q.Repo, n.Digest)
	if !ok {
		if f.q.DryRun {
			f.unread(n)
		}
		return nil, nil
	}
	if err := doc.Has(f.q.Platforms); err != nil {
		err = fmt.Errorf("%w: %w", store.ErrQuery, err)
		if n.Depth == 0 {
			f.failed(n.Digest, err) // the others of them are fetched
		} else {
			f.lacks = err
		}
	}
	return doc, nil
}

// child chooses the images of an index that are asked for, and what BuildKit attested of them.
func (f *fetching) child(child manifest.Descriptor, wanted bool) (bool, error) {
	wanted = f.k.Images.Wants(f.q.Repo, f.q.Platforms, child, wanted)
	if child.Name() == manifest.Attestation && f.manner == sparing {
		wanted = f.q.Referrers && f.taken[child.Attests()]
	}
	f.taken[child.Digest] = f.taken[child.Digest] || wanted
	f.found = f.found || wanted && child.Name() != manifest.Attestation && !manifest.IsIndexType(child.MediaType)
	return wanted, nil
}

// unread counts, in a dry run, what follows from a manifest that is not here: of an index
// at least a manifest for each platform.
func (f *fetching) unread(n manifest.Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.result.More = true
	if manifest.IsIndexType(n.MediaType) {
		f.result.Pulls += int64(len(f.q.Platforms))
		f.result.Fetched += int64(len(f.q.Platforms))
	}
}

// referrers finds what refers to a manifest: by the registry's list, and by the tags under
// which cosign keeps signatures. Whether it is here does not matter.
func (f *fetching) referrers(ctx context.Context, d v1.Hash) []manifest.Descriptor {
	if !f.q.DryRun {
		if _, err := f.k.Cache.Referrers(ctx, f.q.Repo, d); err != nil && pull.KindOf(err) != pull.NotFound && pull.KindOf(err) != pull.Unsupported {
			f.failed(d, fmt.Errorf("list of referrers: %w", err))
		}
		for _, suffix := range image.ReferrerSuffixes()[1:] { // by HEAD; the first is the list's own
			tag := d.Algorithm + "-" + d.Hex + suffix
			if _, err := f.k.Cache.Manifest(ctx, f.q.Repo, tag, true); err != nil && pull.KindOf(err) != pull.NotFound {
				f.failed(d, fmt.Errorf("tag %s: %w", tag, err))
			}
		}
	}
	listed, _ := f.k.Images.Listed(f.q.Repo, d) // what cannot be read is noted by Known
	return append(listed, f.k.Images.Known(f.q.Repo, d)...)
}

// fetchManifest fetches a manifest if it is missing.
func (f *fetching) fetchManifest(ctx context.Context, n manifest.Node) error {
	state, size := f.k.Images.StateOf(f.q.Repo, index.Manifest, n.Digest, n.Size)
	if state == image.Present {
		f.keeps(size)
		return nil
	}
	if f.q.DryRun {
		f.count(n.Digest, state, size, true)
		return nil
	}
	f.progress.itemsTotal.Add(1)
	f.progress.bytesTotal.Add(max(size, 0))
	var m *cache.Manifest
	var err error
	if f.manner == sparing {
		m, err = f.k.Cache.ManifestAboveReserve(ctx, f.q.Repo, n.Digest, f.pause)
	} else {
		m, err = f.k.Cache.Manifest(ctx, f.q.Repo, n.Digest.String(), false)
	}
	f.progress.items.Add(1)
	if err != nil {
		f.progress.faults.Add(1)
		return err
	}
	f.progress.bytes.Add(int64(len(m.Bytes)))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.result.Fetched++
	if m.Result == cache.Miss && state == image.Missing {
		f.result.Pulls++
		f.result.Bytes += int64(len(m.Bytes))
	}
	return nil
}

func (f *fetching) keeps(size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.result.KeptBytes += size
}

// count takes in, in a dry run, something that is missing.
func (f *fetching) count(d v1.Hash, state image.State, size int64, manifest bool) {
	if _, twice := f.q.Counted.LoadOrStore(d, true); twice || state == image.Unlinked {
		return // one HEAD, and no bytes
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.result.Fetched++
	f.result.Bytes += max(size, 0)
	f.result.More = f.result.More || size < 0
	if manifest {
		f.result.Pulls++
	}
}

// pause waits after a refusal for the sake of a limit. It returns err when there is
// nothing to wait for.
func (f *fetching) pause(ctx context.Context, err error) error {
	if !f.q.Wait || f.q.DryRun || pull.KindOf(err) != pull.Limited {
		return err
	}
	wait := f.q.Poll
	var limited *pull.Error
	if errors.As(err, &limited) && limited.RetryAfter > 0 {
		wait = min(wait, limited.RetryAfter)
	}
	select {
	case <-time.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// blob starts to fetch a blob if it is missing, as soon as there is a slot. The error is
// that of ctx.
func (f *fetching) blob(ctx context.Context, b manifest.Blob) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	state, size := f.k.Images.StateOf(f.q.Repo, index.Blob, b.Digest, b.Size)
	if state == image.Present {
		f.keeps(size)
		return nil
	}
	if f.q.DryRun {
		f.count(b.Digest, state, size, false)
		return nil
	}
	f.progress.itemsTotal.Add(1)
	if state == image.Missing {
		f.progress.bytesTotal.Add(max(size, 0))
	}
	select {
	case f.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.blobs.Go(func() {
		defer func() { <-f.slots }()
		f.fetchBlob(ctx, b)
	})
	return nil
}

// fetchBlob fetches one blob, again while its registry limits us if that is to be waited for.
func (f *fetching) fetchBlob(ctx context.Context, b manifest.Blob) {
	d, arrived := b.Digest, int64(0)
	for {
		result, err := f.k.Cache.FetchBlob(ctx, f.q.Repo, d, func(n int64) {
			arrived += n
			f.progress.bytes.Add(n)
		})
		if err != nil && f.pause(ctx, err) == nil {
			continue
		}
		f.progress.items.Add(1)
		if err != nil {
			f.progress.faults.Add(1)
			if len(b.URLs) > 0 && pull.KindOf(err) == pull.NotFound {
				err = fmt.Errorf("a layer that clients may have from elsewhere: %w", err)
			}
			f.failed(d, err)
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.result.Fetched++
		if result == cache.Miss { // else it was counted by whoever began it
			f.result.Bytes += arrived
		}
		return
	}
}

// settle waits for the blobs, and until all is on the disk.
func (f *fetching) settle() {
	f.blobs.Wait()
	if f.q.DryRun {
		return
	}
	if err := f.k.Store.Settle(); err != nil {
		f.failed(f.q.Digest, err)
	}
}

func (f *fetching) failed(d v1.Hash, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.result.Failed) < failuresMost {
		f.result.Failed = append(f.result.Failed, Fault{wire.Digest{Hash: d}, err.Error()})
	}
	// A limit passes by itself, so that anything else is worse.
	if f.result.err == nil || pull.KindOf(f.result.err) == pull.Limited {
		f.result.err = err
	}
}
