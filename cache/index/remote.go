package index

import (
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/row"
)

// Remote returns what is known about content in the bucket.
func (ix *Index) Remote(d v1.Hash) (Remote, bool, error) {
	key, err := row.DigestKey(row.PrefixRemote, d)
	return lookup(ix, "object", d, key, err, row.DecodeRemote)
}

// Upload returns the unfinished upload of d.
func (ix *Index) Upload(d v1.Hash) (Upload, bool, error) {
	key, err := row.DigestKey(row.PrefixUpload, d)
	return lookup(ix, "upload of", d, key, err, row.DecodeUpload)
}

// SizedRemote is a record of an object with its digest.
type SizedRemote struct {
	Digest v1.Hash
	Remote
}

// RemotesAfter is [Index.BlobsAfter] for objects in the bucket.
func (ix *Index) RemotesAfter(after v1.Hash, n int) ([]SizedRemote, error) {
	from := []byte{row.PrefixRemote}
	if after != (v1.Hash{}) {
		key, err := row.DigestKey(row.PrefixRemote, after)
		if err != nil {
			return nil, fmt.Errorf("list objects: %w", err)
		}
		from = append(key, 0)
	}
	var found []SizedRemote
	err := ix.db.View(func(txn *badger.Txn) error {
		return scan(txn, []byte{row.PrefixRemote}, from, func(key, v []byte) error {
			if len(found) >= n {
				return ErrStop
			}
			r, err := row.DecodeRemote(v)
			if err != nil {
				return nil
			}
			d, _, err := row.CutDigest(key[1:])
			if err != nil {
				return nil
			}
			found = append(found, SizedRemote{d, r})
			return nil
		})
	})
	return found, stopped(err)
}

// PutRemote records that the bucket has content. A last use that is recorded stays.
func (b *Batch) PutRemote(d v1.Hash, r Remote) error {
	key, err := row.DigestKey(row.PrefixRemote, d)
	if err != nil {
		return fmt.Errorf("record object: %w", err)
	}
	if r.Size < 0 {
		return fmt.Errorf("record object %s: size %d is negative", d, r.Size)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, _, err := read(w, key, row.DecodeRemote)
		if err != nil {
			return err
		}
		r := r
		if old.Used.After(r.Used) {
			r.Used = old.Used
		}
		return w.set(key, r.Encode())
	})
	return nil
}

// DeleteRemote forgets that the bucket has content.
func (b *Batch) DeleteRemote(d v1.Hash) error { return b.deleteKey(row.PrefixRemote, d) }

// PutUpload records an upload in parts that has begun.
func (b *Batch) PutUpload(d v1.Hash, u Upload) error {
	key, err := row.DigestKey(row.PrefixUpload, d)
	if err != nil {
		return fmt.Errorf("record upload: %w", err)
	}
	if u.ID == "" || len(u.ID) > row.MaxName || u.PartSize <= 0 {
		return fmt.Errorf("record upload of %s: %.80q with parts of %d bytes cannot be one", d, u.ID, u.PartSize)
	}
	b.steps = append(b.steps, func(w *writer) error { return w.set(key, u.Encode()) })
	return nil
}

// DeleteUpload forgets the upload of d.
func (b *Batch) DeleteUpload(d v1.Hash) error { return b.deleteKey(row.PrefixUpload, d) }

func (b *Batch) deleteKey(prefix byte, d v1.Hash) error {
	key, err := row.DigestKey(prefix, d)
	if err != nil {
		return fmt.Errorf("forget object: %w", err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		_, err := w.txn.Get(key)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		return errors.Join(err, w.delete(key))
	})
	return nil
}

// NoteUse writes the last use of content down beside its object, if the bucket has it:
// the times of use are forgotten with the files.
func (b *Batch) NoteUse(d v1.Hash, used time.Time) error {
	key, err := row.DigestKey(row.PrefixRemote, d)
	if err != nil {
		return fmt.Errorf("note use: %w", err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		r, known, err := read(w, key, row.DecodeRemote)
		if err != nil || !known || !used.After(r.Used) {
			return err
		}
		r.Used = used
		return w.set(key, r.Encode())
	})
	return nil
}
