package store

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

// look is a look at the store, once for all who want to know. Its zero value is ready for use.
type look struct {
	mu   sync.Mutex
	done chan struct{} // guarded by mu; closed when the look in progress is over; nil without one
	at   time.Time     // guarded by mu; of the last look
	err  error         // guarded by mu; what came of it
}

// Readable returns why the store cannot be read at all, so that the mirror is of no use, or
// nil. It takes at most two seconds, whatever the disk does. What can be read but not
// written is no reason: see [Store.Troubles].
func (s *Store) Readable() error {
	done, err := s.look()
	if done == nil {
		return err
	}
	select {
	case <-done:
		l := &s.health.look
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.err
	case <-time.After(readableWait):
		return errHangs
	}
}

// look returns what the last look at the store found, or the one that is in progress.
func (s *Store) look() (done chan struct{}, err error) {
	l := &s.health.look
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, ErrClosed
	}
	if l.done != nil {
		return l.done, nil
	}
	if time.Since(l.at) < readableFor {
		return nil, l.err
	}
	done = make(chan struct{})
	started := s.start(func() { // one at a time; it ends when the disk answers
		err := s.readSome()
		l.mu.Lock()
		defer l.mu.Unlock()
		l.err, l.at, l.done = err, time.Now(), nil
		close(done)
	})
	if !started {
		return nil, ErrClosed
	}
	l.done = done
	return done, nil
}

// readSome reads a little of everything.
func (s *Store) readSome() error {
	if err := s.Disk.Check(); err != nil {
		return err
	}
	if _, _, err := s.Index.Note("readable"); err != nil {
		return fmt.Errorf("read index: %w", err)
	}
	return nil
}
