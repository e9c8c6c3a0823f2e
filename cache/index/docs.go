package index

import (
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxDoc bounds a document. A tag list of 100,000 commit hashes has 4.5 MB.
	maxDoc = 16 << 20
	// docPart is the size of the pieces that a document is kept in: values below 1 MiB stay
	// out of Badger's value log, which would have to be collected.
	docPart = 256 << 10
	// maxDocParts bounds a document after compression, so that it fits into one transaction.
	maxDocParts = 8
)

// Doc returns a document, such as a list of tags, and when the upstream gave it. The
// bytes are the caller's own.
func (ix *Index) Doc(r Repo, kind DocKind, key string) (b []byte, at time.Time, ok bool, err error) {
	k, err := docKey(kind, r, key)
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
	k, err := docKey(kind, r, key)
	if err != nil {
		return fmt.Errorf("keep list of %s: %w", r, err)
	}
	v, err := encodeDoc(at, doc)
	if err != nil {
		return fmt.Errorf("keep list of %s: %w", r, err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		if err := deleteDoc(w, k); err != nil {
			return err
		}
		for i := 0; len(v) > 0; i++ {
			n := min(len(v), docPart)
			if err := w.set(docPartKey(k, i), v[:n]); err != nil {
				return err
			}
			v = v[n:]
		}
		return nil
	})
	return nil
}

// docPartKey returns a key of its own, since a transaction keeps it.
func docPartKey(first []byte, i int) []byte {
	k := append([]byte(nil), first...)
	k[len(k)-1] = byte(i)
	return k
}

// deleteDoc removes the parts that are there.
func deleteDoc(w *writer, first []byte) error {
	for i := range maxDocParts {
		k := docPartKey(first, i)
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
	for i := range maxDocParts {
		item, err := txn.Get(docPartKey(first, i))
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
	return decodeDoc(v)
}

func appendValue(v []byte, item *badger.Item) ([]byte, error) {
	err := item.Value(func(part []byte) error {
		v = append(v, part...)
		return nil
	})
	return v, err
}

// encodeDoc returns a record: its form, the time, the length, and the compressed bytes.
func encodeDoc(at time.Time, doc []byte) ([]byte, error) {
	if len(doc) > maxDoc {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrTooBig, len(doc), maxDoc)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	defer func() { _ = enc.Close() }() // EncodeAll leaves nothing to flush
	v := enc.EncodeAll(doc, newEncoder().time(at).int(int64(len(doc))))
	if len(v) > maxDocParts*docPart {
		return nil, fmt.Errorf("%w: %d bytes after compression are more than %d", ErrTooBig, len(v), maxDocParts*docPart)
	}
	return v, nil
}

func decodeDoc(v []byte) (time.Time, []byte, error) {
	d := newDecoder(v)
	at, size := d.time(), d.size()
	if d.failed || size > maxDoc {
		return time.Time{}, nil, errRecord
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxDoc))
	if err != nil {
		return time.Time{}, nil, err
	}
	defer dec.Close()
	b, err := dec.DecodeAll(d.b, make([]byte, 0, min(size, int64(len(d.b))*64)))
	if err != nil || int64(len(b)) != size {
		return time.Time{}, nil, fmt.Errorf("%w: %w", errRecord, errors.Join(err, binarySize(size, b)))
	}
	return at, b, nil
}

func binarySize(want int64, b []byte) error {
	if int64(len(b)) == want {
		return nil
	}
	return fmt.Errorf("%d bytes, want %d", len(b), want)
}
