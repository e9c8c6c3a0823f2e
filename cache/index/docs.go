package index

import (
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"forebay/cache/index/row"
)

// Doc returns a document, such as a list of tags, and when the upstream gave it. The
// bytes are the caller's own.
func (ix *Index) Doc(r Repo, kind DocKind, key string) (b []byte, at time.Time, ok bool, err error) {
	k, err := row.DocKey(kind, r, key)
	if err != nil {
		return nil, time.Time{}, false, fmt.Errorf("read list of %s: %w", r, err)
	}
	err = ix.view(func(txn *badger.Txn) error {
		at, b, err = readDoc(txn, k)
		return err
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, time.Time{}, false, nil
	}
	if err != nil {
		return nil, time.Time{}, false, fmt.Errorf("read list of %s: %w", r, asDamage(err))
	}
	return b, at, true, nil
}

// PutDoc keeps a document in place of the one before. The error is [ErrTooBig] for one of
// more than 16 MiB, and from Update for one that does not compress to 2 MiB.
func (b *Batch) PutDoc(r Repo, kind DocKind, key string, doc []byte, at time.Time) error {
	k, err := row.DocKey(kind, r, key)
	if err != nil {
		return fmt.Errorf("keep list of %s: %w", r, err)
	}
	v, err := row.EncodeDoc(at, doc)
	if err != nil {
		return fmt.Errorf("keep list of %s: %w", r, err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		if err := deleteDoc(w, k); err != nil {
			return err
		}
		for i := 0; len(v) > 0; i++ {
			n := min(len(v), row.DocPart)
			if err := w.set(row.DocPartKey(k, i), v[:n]); err != nil {
				return err
			}
			v = v[n:]
		}
		return nil
	})
	return nil
}

// deleteDoc removes the parts that are there.
func deleteDoc(w *writer, first []byte) error {
	for i := range row.MaxDocParts {
		k := row.DocPartKey(first, i)
		_, err := w.txn.Get(k)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err == nil {
			err = w.delete(k)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readDoc puts the parts of a document together.
func readDoc(txn *badger.Txn, first []byte) (time.Time, []byte, error) {
	var v []byte
	for i := range row.MaxDocParts {
		item, err := txn.Get(row.DocPartKey(first, i))
		if i > 0 && errors.Is(err, badger.ErrKeyNotFound) {
			break
		}
		if err != nil {
			return time.Time{}, nil, err
		}
		if v, err = appendValue(v, item); err != nil {
			return time.Time{}, nil, err
		}
	}
	return row.DecodeDoc(v)
}

func appendValue(v []byte, item *badger.Item) ([]byte, error) {
	err := item.Value(func(part []byte) error {
		v = append(v, part...)
		return nil
	})
	return v, err
}
