package index

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/dgraph-io/badger/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/row"
)

// access gathers the times at which blobs were used, to the minute, until they are written.
type access struct {
	mu      sync.Mutex
	touched map[v1.Hash]uint32 // guarded by mu; minutes since 1970
	writing map[v1.Hash]uint32 // guarded by mu; being written; not changed
}

func (a *access) init() { a.touched = map[v1.Hash]uint32{} }

// Touch notes that a blob is used now. It does no I/O and is cheap enough for every hit.
func (ix *Index) Touch(d v1.Hash) {
	now := uint32(time.Now().Unix() / 60)
	ix.access.mu.Lock()
	ix.access.touched[d] = now
	ix.access.mu.Unlock()
}

// pending returns a time that is not written yet.
func (a *access) pending(d v1.Hash) (time.Time, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, ok := a.touched[d]
	if !ok {
		m, ok = a.writing[d]
	}
	return row.FromMinutes(m), ok
}

// Used returns the minute of a blob's last use, written or not.
func (ix *Index) Used(d v1.Hash) (time.Time, bool, error) {
	if at, ok := ix.access.pending(d); ok {
		return at, true, nil
	}
	key, err := row.DigestKey(row.PrefixAccess, d)
	return lookup(ix, "last use of", d, key, err, row.DecodeMinutes)
}

// flushAccess writes the gathered times. Those that cannot be written are kept for the
// next try. Only Run and Close call it.
func (ix *Index) flushAccess() error {
	a := &ix.access
	a.mu.Lock()
	batch := a.touched
	a.touched, a.writing = make(map[v1.Hash]uint32), batch
	a.mu.Unlock()
	err := ix.writeAccess(batch)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writing = nil
	if err == nil {
		return nil
	}
	maps.Copy(batch, a.touched) // later uses win
	a.touched = batch
	return fmt.Errorf("write access times: %w", err)
}

// accessBatch is how many access times are written at once: small next to what a
// transaction may hold, and quick, since updates wait.
const accessBatch = 500

func (ix *Index) writeAccess(times map[v1.Hash]uint32) error {
	for digests := range slices.Chunk(slices.Collect(maps.Keys(times)), accessBatch) {
		if err := ix.writeSomeAccess(digests, times); err != nil {
			return err
		}
	}
	return nil
}

// writeSomeAccess passes over blobs that are gone, so that no access time outlives its blob.
func (ix *Index) writeSomeAccess(digests []v1.Hash, times map[v1.Hash]uint32) error {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	return ix.change(accessBatch*128, func(txn *badger.Txn) error {
		for _, d := range digests {
			key, err := row.DigestKey(row.PrefixBlob, d)
			if err != nil {
				continue // not a digest: nothing is kept under it either
			}
			_, err = txn.Get(key)
			if errors.Is(err, badger.ErrKeyNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			key[0] = row.PrefixAccess
			if err := txn.Set(key, row.EncodeUse(times[d], ix.hintOf(d))); err != nil {
				return err
			}
		}
		return nil
	})
}

// hintOf returns what is to be remembered with the use of a blob.
func (ix *Index) hintOf(d v1.Hash) uint8 {
	if hint := ix.hint.Load(); hint != nil {
		return (*hint)(d)
	}
	return 0
}

// RememberHints makes the index call hint for a byte that is kept with the last use of a
// blob, see [Known]. hint must not call the index.
func (ix *Index) RememberHints(hint func(v1.Hash) uint8) { ix.hint.Store(&hint) }
