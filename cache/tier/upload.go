package tier

import (
	"context"
	"errors"
	"io/fs"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/logkey"
)

const (
	// retryLeast and retryMost bound the pause before a failed upload is tried again.
	retryLeast = time.Second
	retryMost  = 10 * time.Minute
	// courtesy is how long an upload waits for running downloads to end: both share the line,
	// the disk and the processors, and clients wait only for downloads. With more than
	// courtesyMost uploads in the queue it does not wait.
	courtesy     = 3 * time.Second
	courtesyMost = 64
	courtesyTick = 20 * time.Millisecond
	// quiet is how long no download must have run, since the next layer of an image follows
	// at once.
	quiet = 200 * time.Millisecond
)

// uploads does one upload after the other until ctx is done.
func (t *Tier) uploads(ctx context.Context) {
	for {
		if !t.writes.wait(ctx) {
			return
		}
		u := t.queue.next(ctx)
		if u == nil {
			return
		}
		t.makeWay(ctx)
		wrong := t.wrong(u.digest)
		switch err := t.upload(ctx, u.digest); {
		case err == nil:
			t.queue.done(u)
			// The content may have come to the disk while a wrong object was removed.
			if size, here := t.size(u.digest); here && wrong && !t.wrong(u.digest) {
				t.Added(u.digest, size)
			}
		case ctx.Err() != nil:
			return
		default:
			t.failures.Add(1)
			pause := min(retryLeast<<min(u.tries, 20), retryMost)
			t.log.Warn("upload failed", logkey.Digest(u.digest), logkey.Bytes(u.size), logkey.RetryAfter(pause), logkey.Err(err))
			t.queue.again(u, time.Now().Add(pause))
		}
	}
}

// makeWay waits for downloads to end, for a while.
func (t *Tier) makeWay(ctx context.Context) {
	if n, _ := t.queue.length(); n > courtesyMost || !t.owner.Busy() {
		return
	}
	tick := time.NewTicker(courtesyTick)
	defer tick.Stop()
	last := time.Now() // when one was seen to run
	for until := last.Add(courtesy); time.Now().Before(until) && time.Since(last) < quiet; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if t.owner.Busy() {
			last = time.Now()
		}
	}
}

// upload puts one blob into the bucket and records that. nil also means that there is
// nothing to do any more.
func (t *Tier) upload(ctx context.Context, d v1.Hash) error {
	replace := t.wrong(d)
	if _, ok := t.Has(d); ok && !replace {
		return nil
	}
	file, size, err := t.disk.Blob(d)
	if errors.Is(err, fs.ErrNotExist) {
		if replace {
			return t.removeWrong(ctx, d)
		}
		return nil // evicted or purged
	}
	if err != nil {
		return err
	}
	defer file.Close()
	before, _, err := t.index.Upload(d)
	if err != nil {
		return err
	}
	start := time.Now()
	begun := before.ID != ""
	err = t.opts.Bucket.Put(ctx, d, size, file, PutOptions{
		Replace: replace, Resume: before,
		Begun: func(u index.Upload) error {
			begun = true
			return t.index.Update(func(b *index.Batch) error { return b.PutUpload(d, u) })
		},
	})
	if errors.Is(err, ErrDamaged) {
		t.owner.Damaged(d)
		return t.forgetUpload(d, begun)
	}
	t.told(ctx, &t.writes, err)
	if err != nil {
		return err
	}
	// The time is that of the upload's end, so that a listing that began before knows that
	// it may have missed the object.
	if err := errors.Join(t.known(Object{Digest: d, Size: size, Stamp: time.Now()}), t.forgetUpload(d, begun)); err != nil {
		return err
	}
	t.mu.Lock()
	delete(t.replace, d)
	t.mu.Unlock()
	t.uploaded.Add(1)
	t.sent.Add(size)
	t.log.Debug("blob uploaded", logkey.Digest(d), logkey.Bytes(size), logkey.Took(time.Since(start)))
	return nil
}

// removeWrong removes an object that nothing takes the place of.
func (t *Tier) removeWrong(ctx context.Context, d v1.Hash) error {
	err := t.opts.Bucket.Remove(ctx, []v1.Hash{d})
	t.told(ctx, &t.writes, err)
	if err != nil {
		return err
	}
	t.mu.Lock()
	delete(t.replace, d)
	t.mu.Unlock()
	return nil
}

func (t *Tier) forgetUpload(d v1.Hash, begun bool) error {
	if !begun {
		return nil
	}
	return t.index.Update(func(b *index.Batch) error { return b.DeleteUpload(d) })
}

// refill queues what is on the disk and not in the bucket: at the start, and whenever
// there was more than the queue has room for.
func (t *Tier) refill(ctx context.Context) {
	for ctx.Err() == nil && t.queue.lacks(ctx) {
		n, all := t.enqueue(ctx)
		if all {
			t.queue.complete()
		}
		if n > 0 {
			t.log.Info("uploads queued", logkey.Count(n))
			continue
		}
		if all {
			continue
		}
		select {
		case <-time.After(retryLeast):
		case <-ctx.Done():
		}
	}
}

// enqueue compares disk and bucket by the index. It returns how many it queued, and
// whether that was all of them.
func (t *Tier) enqueue(ctx context.Context) (n int, all bool) {
	var after v1.Hash
	for ctx.Err() == nil {
		some, err := t.index.BlobsAfter(after, page)
		if err != nil {
			t.log.Warn("uploads not queued", logkey.Err(err))
			return n, false
		}
		for _, b := range some {
			after = b.Digest
			if _, ok := t.Has(b.Digest); ok || t.expired(b) {
				continue
			}
			if !t.queue.add(b.Digest, b.Size, time.Now()) {
				return n, false
			}
			n++
		}
		if len(some) < page {
			return n, true
		}
	}
	return n, false
}

// expired reports whether content was not used for so long that it would be removed from
// the bucket at once.
func (t *Tier) expired(b index.Sized) bool {
	if !t.opts.Limited() || t.owner.Pinned(b.Digest) {
		return false
	}
	used, err := t.LastUse(b.Digest)
	return err == nil && time.Since(used) > t.bound()
}

// LastUse returns when content on the disk was used last, or when it came; zero when it is
// not there.
func (t *Tier) LastUse(d v1.Hash) (time.Time, error) {
	info, _, err := t.index.Blob(d)
	if err != nil {
		return time.Time{}, err
	}
	used, _, err := t.index.Used(d)
	if err != nil || used.Before(info.Added) {
		used = info.Added
	}
	return used, err
}
