package tier

import (
	"container/heap"
	"context"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// queueMost bounds the queue. Uploads that find no room are found again later by comparing
// disk and bucket, see Tier.refill.
const queueMost = 10000

// queue is what is to be uploaded, in the order in which it is due.
type queue struct {
	mu      *sync.Mutex
	items   items               // guarded by mu
	known   map[v1.Hash]*upload // guarded by mu; waiting or running
	bytes   int64               // guarded by mu; of known
	missed  bool                // guarded by mu; there may be more, see Tier.refill
	changed chan struct{}       // closed and replaced when something is due earlier
}

// upload is one entry of the queue.
type upload struct {
	digest v1.Hash
	size   int64
	due    time.Time
	tries  int // that failed
}

func newQueue() queue {
	return queue{mu: new(sync.Mutex), known: map[v1.Hash]*upload{}, missed: true, changed: make(chan struct{})}
}

// add queues d unless it is there. It reports whether there was room.
func (q *queue) add(d v1.Hash, size int64, due time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.known[d] != nil {
		return true
	}
	if len(q.known) >= queueMost {
		q.missed = true
		return false
	}
	u := &upload{digest: d, size: size, due: due}
	q.known[d] = u
	q.bytes += size
	heap.Push(&q.items, u)
	q.wake()
	return true
}

// wake tells those who wait to look again. q.mu is held.
func (q *queue) wake() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// next waits for the first upload that is due and takes it; its taker calls done or again.
// nil when ctx is done.
func (q *queue) next(ctx context.Context) *upload {
	for {
		q.mu.Lock()
		wait := time.Hour
		if len(q.items) > 0 {
			if wait = time.Until(q.items[0].due); wait <= 0 {
				u := heap.Pop(&q.items).(*upload)
				q.mu.Unlock()
				return u
			}
		}
		changed := q.changed
		q.mu.Unlock()
		select {
		case <-changed:
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
	}
}

// done forgets an upload that was taken.
func (q *queue) done(u *upload) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.known, u.digest)
	q.bytes -= u.size
	if len(q.known) == 0 && q.missed {
		q.wake()
	}
}

// again puts an upload back that failed.
func (q *queue) again(u *upload, due time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	u.tries++
	u.due = due
	heap.Push(&q.items, u)
	q.wake()
}

// hurry makes all that failed due now.
func (q *queue) hurry(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, u := range q.items {
		if u.due.After(now) {
			u.due = now
		}
	}
	heap.Init(&q.items)
	q.wake()
}

// has reports whether d waits or is being uploaded, and whether there may be more than the
// queue knows.
func (q *queue) has(d v1.Hash) (waits, missed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.known[d] != nil, q.missed
}

// length returns how many wait or run, and their bytes.
func (q *queue) length() (n int, bytes int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.known), q.bytes
}

// complete says that disk and bucket were compared and everything found room in the queue.
func (q *queue) complete() {
	q.mu.Lock()
	q.missed = false
	q.mu.Unlock()
}

// lacks waits until the queue is empty although there may be more to upload.
func (q *queue) lacks(ctx context.Context) bool {
	for {
		q.mu.Lock()
		if q.missed && len(q.known) == 0 {
			q.mu.Unlock()
			return true
		}
		changed := q.changed
		q.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// items is a heap by due time.
type items []*upload

func (s items) Len() int           { return len(s) }
func (s items) Less(i, j int) bool { return s[i].due.Before(s[j].due) }
func (s items) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *items) Push(x any)        { *s = append(*s, x.(*upload)) }

func (s *items) Pop() any {
	old := *s
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*s = old[:len(old)-1]
	return last
}
