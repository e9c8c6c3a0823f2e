package fill

import (
	"context"
	"sync"
	"time"
)

// signal wakes those who wait for a fill to change. All its methods are called with the
// fill's lock held.
type signal struct {
	mu      *sync.Mutex   // the fill's
	next    chan struct{} // closed and replaced when something changes
	waiting int           // who waits on next
	last    time.Time     // when bytes were told of last
	timer   *time.Timer   // tells of a change that came too soon after the last
	armed   bool
}

func (s *signal) init(mu *sync.Mutex) { s.mu, s.next = mu, make(chan struct{}) }

// every bounds how often a crowd of readers is woken: a fast line would otherwise wake all
// of them for every few kilobytes.
func every(waiting int) time.Duration {
	return time.Millisecond * time.Duration(1+waiting/32)
}

// soon tells those who wait that bytes arrived: now, the first of them in any case, or a moment later.
func (s *signal) soon() {
	if s.waiting == 0 || s.armed {
		return
	}
	pause := every(s.waiting) - time.Since(s.last)
	if pause <= 0 {
		s.arrived()
		return
	}
	s.armed = true
	if s.timer == nil {
		s.timer = time.AfterFunc(pause, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.armed = false
			s.arrived()
		})
		return
	}
	s.timer.Reset(pause)
}

func (s *signal) arrived() {
	s.last = time.Now()
	s.all()
}

// all tells those who wait to look again, now.
func (s *signal) all() {
	close(s.next)
	s.next = make(chan struct{})
}

// wait sleeps, without the lock, until something changed or ctx is done.
func (s *signal) wait(ctx context.Context) error {
	changed := s.next
	s.waiting++
	s.mu.Unlock()
	var err error
	select {
	case <-changed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	s.waiting--
	return err
}

// stop ends the timer: nothing changes any more.
func (s *signal) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
}
