package store

import (
	"errors"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/logkey"
)

const (
	// settleAfter is how long content gathers that is to settle together. A sync that does
	// not wait for more company than comes in a fifth of a second costs next to nothing.
	settleAfter = 200 * time.Millisecond
	// What may be unsettled before more of it waits: what a loss of power costs at most, but
	// for the last blob. Each file is open until it has settled.
	unsettledFiles = 256
	unsettledBytes = 256 << 20
)

// Admit waits while so much has not settled that no more of it should be given out before it
// is.
func (s *Store) Admit() {
	if s.muchUnsettled() {
		_ = s.settleIf(s.muchUnsettled) // was told of
	}
}

func (s *Store) muchUnsettled() bool {
	files, bytes := s.Disk.Unsettled()
	return files >= unsettledFiles || bytes > unsettledBytes
}

// settleSoon has settle in a moment what was taken in.
func (s *Store) settleSoon() {
	if !s.willSettle.CompareAndSwap(false, true) {
		return
	}
	started := s.start(func() { // ends with the settling
		select {
		case <-time.After(settleAfter):
		case <-s.ctx.Done():
		}
		s.willSettle.Store(false) // before it looks what there is
		_ = s.settle()            // was told of
	})
	if !started { // then Close does it
		s.willSettle.Store(false)
	}
}

// settle makes content survive a loss of power. What the disk has lost is forgotten.
func (s *Store) settle() error { return s.settleIf(func() bool { return true }) }

// settleIf is settle if it is due once those who came before have ended theirs: of many who wait
// for the same, the first sees to it.
func (s *Store) settleIf(due func() bool) error {
	s.settling.Lock()
	if !due() {
		s.settling.Unlock()
		return nil
	}
	files, _ := s.Disk.Unsettled()
	lost, err := s.Disk.Settle()
	s.settling.Unlock()
	for _, d := range lost {
		err = errors.Join(err, s.Gone(d))
	}
	if err != nil {
		s.Log.Error("content not kept", logkey.Count(len(lost)), logkey.Err(err))
	}
	if err != nil || files > 0 {
		s.Wrote(err)
	}
	return err
}

// Settle makes all that was kept and recorded so far survive a loss of power. Whoever reports
// that something is kept calls it before.
func (s *Store) Settle() error { return errors.Join(s.settle(), s.Index.Sync()) }

// Walk calls fn for all that is on the disk, see [disk.Store.Walk].
func (s *Store) Walk(fn func(d v1.Hash, size int64, modTime time.Time) error) error {
	_ = s.settle() // was told of
	return s.Disk.Walk(fn)
}
