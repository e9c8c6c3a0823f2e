package cache

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/logkey"
	"forebay/internal/pull"
)

// Progress says how far something that takes its time has come.
type Progress struct {
	Items      int64 `json:"items"`       // done
	ItemsTotal int64 `json:"items_total"` // to do, as far as is known; 0 while it is not
	Bytes      int64 `json:"bytes"`       // done
	BytesTotal int64 `json:"bytes_total"` // likewise
	Faults     int64 `json:"faults"`      // of the items done, those that went wrong
}

// progress is a Progress that grows. Its zero value is ready for use.
type progress struct {
	items, itemsTotal, bytes, bytesTotal, faults atomic.Int64
}

func (p *progress) read() Progress {
	return Progress{p.items.Load(), p.itemsTotal.Load(), p.bytes.Load(), p.bytesTotal.Load(), p.faults.Load()}
}

// progressEvery is how often progress is told.
const progressEvery = 250 * time.Millisecond

// telling calls tell with the progress now and then until done is called.
func (p *progress) telling(tell func(Progress)) (done func()) {
	if tell == nil {
		return func() {}
	}
	stop := make(chan struct{})
	var told sync.WaitGroup
	told.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				tell(p.read())
			case <-stop:
				tell(p.read())
				return
			}
		}
	})
	return func() {
		close(stop)
		told.Wait()
	}
}

// repairAtOnce bounds the blobs that a repair fetches at the same time, so that clients
// come first; each may use several connections.
const repairAtOnce = 3

// Repaired says what a repair did.
type Repaired struct {
	Fetched int64         `json:"fetched"` // things that were missing
	Bytes   int64         `json:"bytes"`
	Failed  []RepairFault `json:"failed"` // what is still missing, at most 100
	State   Completeness  `json:"state"`
}

// RepairFault is something that could not be fetched.
type RepairFault struct {
	Digest v1.Hash `json:"digest"`
	Error  string  `json:"error"`
}

// failuresMost bounds how many failures are told one by one.
const failuresMost = 100

// Repair fetches what is missing of an image: of a tag, or of a digest if the tag is
// empty. With platforms those are completed; without, those that somebody pulled, or
// that a pin names. It returns when all is there or has failed; tell, if not nil, is
// called now and then. When ctx ends, fills in progress go on.
func (c *Cache) Repair(ctx context.Context, repo Repo, tag string, d v1.Hash, platforms []string, tell func(Progress)) (*Repaired, error) {
	if err := checkPlatforms(platforms); err != nil {
		return nil, err
	}
	ref := tag
	if ref == "" {
		ref = d.String()
	}
	m, err := c.Manifest(ctx, repo, ref, false)
	if err != nil {
		return nil, err
	}
	if doc, ok := parseDoc(m.Bytes); ok {
		if err := doc.has(platforms); err != nil {
			return nil, err
		}
	}
	if len(platforms) == 0 {
		if pin, ok, err := c.pinRecord(repo, ref); ok && err == nil {
			platforms = pin.Platforms
		}
	}
	r := &repair{c: c, repo: repo, platforms: platforms, seen: map[v1.Hash]bool{}, slots: make(chan struct{}, repairAtOnce)}
	done := r.told.telling(tell)
	r.manifest(ctx, descriptor{Digest: m.Desc.Digest.String(), Size: m.Desc.Size}, 0)
	r.fills.Wait()
	done()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	result := Repaired{Fetched: r.told.items.Load() - r.told.faults.Load(), Bytes: r.told.bytes.Load(), Failed: r.failed}
	if result.Failed == nil {
		result.Failed = []RepairFault{}
	}
	result.State = c.image(repo, tag, m.Desc.Digest, false).State
	c.log.Info("image repaired", logkey.Reference(refString(repo, tag, d)), logkey.Count(int(result.Fetched)), logkey.Bytes(result.Bytes))
	return &result, nil
}

// repair is one run of Repair.
type repair struct {
	c         *Cache
	repo      Repo
	platforms []string
	seen      map[v1.Hash]bool
	told      progress
	slots     chan struct{}
	fills     sync.WaitGroup

	mu     sync.Mutex
	failed []RepairFault // guarded by mu
}

// manifest fetches a manifest if it is missing, and goes on to what it names.
func (r *repair) manifest(ctx context.Context, desc descriptor, depth int) {
	d, ok := desc.digest()
	if !ok || r.seen[d] || depth > imageDepth || ctx.Err() != nil {
		return
	}
	r.seen[d] = true
	if state, size := r.c.stateOf(r.repo, index.Manifest, d, desc.Size); state != Present {
		r.told.itemsTotal.Add(1)
		r.told.bytesTotal.Add(max(size, 0))
		m, err := r.c.Manifest(ctx, r.repo, d.String(), false)
		if err == nil {
			r.told.bytes.Add(int64(len(m.Bytes)))
		}
		r.ended(d, err)
	}
	doc, ok := r.c.doc(r.repo, d)
	if !ok {
		return
	}
	for _, b := range doc.blobs() {
		r.blob(ctx, b)
	}
	wants := measuring{g: &gathering{c: r.c}, repo: r.repo, platforms: r.platforms}
	for _, child := range doc.Manifests {
		if wants.wants(child) {
			r.manifest(ctx, child, depth+1)
		}
	}
	for _, ref := range r.c.knownReferrers(r.repo, d) {
		r.manifest(ctx, ref, depth+1)
	}
}

// ended counts something that was fetched, or could not be.
func (r *repair) ended(d v1.Hash, err error) {
	r.told.items.Add(1)
	if err == nil {
		return
	}
	r.told.faults.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failed) < failuresMost {
		r.failed = append(r.failed, RepairFault{d, err.Error()})
	}
}

// blob starts to fetch a blob if it is missing, as soon as there is a slot.
func (r *repair) blob(ctx context.Context, b Part) {
	if r.seen[b.Digest] {
		return
	}
	r.seen[b.Digest] = true
	state, size := r.c.stateOf(r.repo, index.Blob, b.Digest, b.Size)
	if state == Present {
		return
	}
	r.told.itemsTotal.Add(1)
	if state == Missing {
		r.told.bytesTotal.Add(max(size, 0))
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	r.fills.Go(func() {
		defer func() { <-r.slots }()
		_, err := r.c.fetchBlob(ctx, r.repo, b.Digest, r.told.bytes.Add)
		r.ended(b.Digest, err)
	})
}

// fetchBlob makes sure that a blob is kept and linked. arrived is told of the bytes of it
// that come. The result is Joined when the fill had been begun for another.
func (c *Cache) fetchBlob(ctx context.Context, repo Repo, d v1.Hash, arrived func(int64) int64) (Result, error) {
	b, err := c.Blob(ctx, repo, d)
	if err != nil {
		return "", err
	}
	defer func() { _ = b.Close() }() // only read from
	if b.file != nil {
		return b.Result, nil
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	var told int64
	for {
		over := false
		select {
		case <-b.fill.done:
			over = true
		case <-ctx.Done():
			return "", ctx.Err()
		case <-tick.C:
		}
		have, err := b.fill.arrived()
		if b.Result != Hit { // then it is only being verified
			arrived(have - told)
			told = have
		}
		if !over {
			continue
		}
		if errors.Is(err, errStorage) {
			return "", fmt.Errorf("blob %s does not fit into the store: %w", d, err)
		}
		return b.Result, err
	}
}

// arrived returns how many bytes of a fill are there, and how it ended if it has.
func (f *fill) arrived() (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var n int64
	for _, span := range f.have {
		n += span[1] - span[0]
	}
	return n, f.err
}

// Refreshed says what a refresh found.
type Refreshed struct {
	Digest v1.Hash `json:"digest"` // what the tag points to now
	// Before is what it pointed to before; empty when it was not known.
	Before    string    `json:"before,omitempty"`
	Moved     bool      `json:"moved"`
	Kept      bool      `json:"kept"` // the manifest it points to now is here
	CheckedAt time.Time `json:"checked_at"`
}

// Refresh asks the upstream what a tag points to, however fresh it is and whatever was
// answered before. If it moved, the new manifest is fetched; its layers are when somebody
// pulls them. The tag stays as it is when the upstream fails.
func (c *Cache) Refresh(ctx context.Context, repo Repo, tag string) (*Refreshed, error) {
	o, err := c.origin(repo)
	if err != nil {
		return nil, err
	}
	if o.Offline {
		return nil, offlineError(repo)
	}
	before, err := c.tag(repo, tag)
	if err != nil {
		return nil, err
	}
	if c.absent != nil {
		c.absent.remove(repo.String() + "\x00" + tag)
	}
	found, _, err := c.resolve(ctx, o, repo, tag, time.Now())
	if err != nil {
		return nil, err
	}
	r := &Refreshed{Digest: found.desc.Digest, Moved: before == nil, CheckedAt: time.Now()}
	if before != nil {
		r.Before = before.Desc.Digest.String()
		r.Moved = before.Desc.Digest != found.desc.Digest
	}
	if r.Moved {
		// A tag must not be left pointing to what cannot be served.
		if _, err := c.byDigest(ctx, o, repo, found.desc.Digest, false); err != nil && pull.KindOf(err) != pull.NotFound {
			return nil, err
		}
	}
	r.Kept = c.keeps(repo, found.desc.Digest)
	return r, nil
}
