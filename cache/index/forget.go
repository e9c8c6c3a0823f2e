package index

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/row"
)

// Forgotten counts what [Index.ForgetAbsent] removed, or would.
type Forgotten struct {
	Links, Tags int64
}

// forgetBatch is how many records are looked at in one read, and changed in one update.
const forgetBatch = 500

// ForgetAbsent removes links and tags that are older than a time and whose content has no
// record, so that the index does not grow for ever with what was evicted long ago. The next
// request for such content goes to the upstream anyway, which proves the link again. The age
// of a tag counts from its last confirmation. What keep reports stays. With dryRun nothing
// is removed, only counted.
func (ix *Index) ForgetAbsent(ctx context.Context, before time.Time, keep func(v1.Hash) bool, dryRun bool) (f Forgotten, err error) {
	links := func(key, _ []byte, txn *badger.Txn, b *Batch) (int64, error) {
		d, rest, err := row.CutDigest(key[1:])
		if err != nil || len(rest) == 0 || keep(d) {
			return 0, nil // not one of ours
		}
		r, _, err := row.CutRepo(rest[1:])
		if err != nil {
			return 0, nil // not one of ours
		}
		at, err := row.LinkKey(r, Kind(rest[0]), d)
		if err != nil {
			return 0, nil // not one of ours
		}
		l, err := getValue(txn, at, row.DecodeLink)
		if err != nil || !l.At.Before(before) || has(txn, d) {
			return 0, nil // damaged, or too young
		}
		return 1, b.ifAbsent(d, func(b *Batch) error { return b.DeleteLink(r, Kind(rest[0]), d) })
	}
	tags := func(key, v []byte, txn *badger.Txn, b *Batch) (int64, error) {
		r, tag, err := row.CutRepo(key[1:])
		if err != nil {
			return 0, nil // not one of ours
		}
		t, err := row.DecodeTag(v)
		if err != nil || !t.CheckedAt.Before(before) || keep(t.Desc.Digest) || has(txn, t.Desc.Digest) {
			return 0, nil // damaged, or too young
		}
		for _, old := range t.History { // a former binding may stand in while the upstream fails
			if has(txn, old.Digest) {
				return 0, nil
			}
		}
		return 1, b.ifAbsent(t.Desc.Digest, func(b *Batch) error { return b.DeleteTag(r, string(tag)) })
	}
	if f.Tags, err = ix.forget(ctx, row.PrefixTag, tags, dryRun); err == nil {
		f.Links, err = ix.forget(ctx, row.PrefixHolder, links, dryRun)
	}
	if err != nil {
		return f, fmt.Errorf("forget what is long gone: %w", err)
	}
	return f, nil
}

// forget goes through the records with a prefix, a batch at a time. Between two the
// database is not held.
func (ix *Index) forget(ctx context.Context, prefix byte, judge func(key, v []byte, txn *badger.Txn, b *Batch) (int64, error), dryRun bool) (n int64, err error) {
	after := []byte{prefix}
	for more := true; more; {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		var gone Batch
		var some int64
		more = false
		err := ix.view(func(txn *badger.Txn) error {
			it := txn.NewIterator(iterate([]byte{prefix}))
			defer it.Close()
			seen := 0
			for it.Seek(after); it.Valid(); it.Next() {
				key := it.Item().KeyCopy(nil)
				if bytes.Equal(key, after) {
					continue
				}
				if seen++; seen > forgetBatch {
					more = true
					return nil
				}
				after = key
				err := it.Item().Value(func(v []byte) error {
					m, err := judge(key, v, txn, &gone)
					some += m
					return err
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil && !dryRun && some > 0 {
			err = ix.Update(func(b *Batch) error {
				*b = gone
				return nil
			})
		}
		if err != nil {
			return n, err
		}
		n += some
	}
	return n, nil
}

// ifAbsent makes the changes that fn gathers if d has no record when they are made: a fill
// may have brought it since.
func (b *Batch) ifAbsent(d v1.Hash, fn func(*Batch) error) error {
	var inner Batch
	if err := fn(&inner); err != nil {
		return err
	}
	b.steps = append(b.steps, func(w *writer) error {
		if has(w.txn, d) {
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

// has reports whether a blob has a record, also if the record cannot be read.
func has(txn *badger.Txn, d v1.Hash) bool {
	key, err := row.DigestKey(row.PrefixBlob, d)
	if err != nil {
		return true
	}
	_, err = txn.Get(key)
	return !errors.Is(err, badger.ErrKeyNotFound)
}
