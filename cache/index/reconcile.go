package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Store is the blob store that an index is about.
type Store interface {
	// Walk calls fn for every committed blob and stops at its first error.
	Walk(fn func(d v1.Hash, size int64, modTime time.Time) error) error
	// Stat returns the size of a committed blob, or [fs.ErrNotExist].
	Stat(d v1.Hash) (int64, error)
}

// reconcileBatch is how many records are compared at once. Updates wait meanwhile.
const reconcileBatch = 200

// Reconcile makes the blob records agree with the store: a file without a record, which
// nothing would ever evict, gets one, and a record without a file is dropped. It is due
// after a crash (see Unclean) and may run while the index and the store are in use.
func (ix *Index) Reconcile(ctx context.Context, store Store) (added, dropped int, err error) {
	ix.lags.Store(false) // what is lost from now on is for the next
	added, err = ix.adopt(ctx, store)
	if err == nil {
		dropped, err = ix.drop(ctx, store)
	}
	if err != nil {
		ix.Lag()
		return added, dropped, fmt.Errorf("reconcile index with store: %w", err)
	}
	return added, dropped, nil
}

// adopt records the files that have no record of their size.
func (ix *Index) adopt(ctx context.Context, store Store) (n int, err error) {
	found := map[v1.Hash]BlobInfo{}
	flush := func() error {
		defer clear(found)
		return errors.Join(ctx.Err(), ix.Update(func(b *Batch) error {
			for d, info := range found {
				if err := b.PutBlob(d, info); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	err = store.Walk(func(d v1.Hash, size int64, modTime time.Time) error {
		info, known, err := ix.Blob(d)
		if err == nil && known && info.Size == size {
			return ctx.Err()
		}
		n++
		found[d] = BlobInfo{Size: size, Added: modTime}
		if len(found) < reconcileBatch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	return n, err
}

// drop forgets the records that have no file.
func (ix *Index) drop(ctx context.Context, store Store) (n int, err error) {
	var gone []v1.Hash
	flush := func() error {
		defer func() { gone = gone[:0] }()
		return errors.Join(ctx.Err(), ix.Update(func(b *Batch) error {
			for _, d := range gone {
				if err := b.deleteUnless(d, store); err != nil {
					return err
				}
			}
			return nil
		}))
	}
	err = ix.Blobs(func(d v1.Hash, _ BlobInfo, _ time.Time) error {
		if _, err := store.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			return ctx.Err()
		}
		n++
		if gone = append(gone, d); len(gone) < reconcileBatch {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	return n, err
}

// deleteUnless forgets a blob unless it is in the store when the change is made: a fill
// may have committed it again, and its record would come before this.
func (b *Batch) deleteUnless(d v1.Hash, store Store) error {
	inner := Batch{}
	if err := inner.DeleteBlob(d); err != nil {
		return err
	}
	b.steps = append(b.steps, func(w *writer) error {
		if _, err := store.Stat(d); !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, step := range inner.steps {
			if err := step(w); err != nil {
				return err
			}
		}
		return nil
	})
	return nil
}
