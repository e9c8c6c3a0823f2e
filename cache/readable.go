package cache

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// readableFor is how long it is believed that the store can be read.
	readableFor = time.Second
	// readableWait is how long a look at the store may take: a network file system that
	// hangs does so for minutes.
	readableWait = 2 * time.Second
)

// errHangs: the store was looked at, and nothing came of it yet.
var errHangs = errors.New("the storage folder does not answer")

// looking looks at the store, once for all who want to know. Its zero value is ready for use.
type looking struct {
	mu   sync.Mutex
	done chan struct{} // guarded by mu; closed when the look in progress is over; nil without one
	at   time.Time     // guarded by mu; of the last look
	err  error         // guarded by mu; what came of it
}

// Readable returns why the store cannot be read at all, so that the mirror is of no use, or
// nil. It takes at most two seconds, whatever the disk does. What can be read but not
// written is no reason: see [Cache.Troubles].
func (c *Cache) Readable() error {
	done, err := c.look()
	if done == nil {
		return err
	}
	timer := time.NewTimer(readableWait)
	defer timer.Stop()
	select {
	case <-done:
		c.looked.mu.Lock()
		defer c.looked.mu.Unlock()
		return c.looked.err
	case <-timer.C:
		return errHangs
	}
}

// look returns what the last look at the store found, or the one that is in progress.
func (c *Cache) look() (done chan struct{}, err error) {
	l := &c.looked
	c.mu.Lock() // so that nothing is started once Close waits
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return nil, errClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.done == nil {
		if time.Since(l.at) < readableFor {
			return nil, l.err
		}
		done := make(chan struct{})
		l.done = done
		c.wg.Go(func() { // one at a time; it ends when the disk answers
			err := c.readStore()
			l.mu.Lock()
			defer l.mu.Unlock()
			l.err, l.at, l.done = err, time.Now(), nil
			close(done)
		})
	}
	return l.done, nil
}

// readStore reads a little of everything.
func (c *Cache) readStore() error {
	if err := c.disk.Check(); err != nil {
		return err
	}
	if _, _, err := c.index.Note(scrubNote); err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	return nil
}
