package index

import (
	"context"
	"io"

	"github.com/dgraph-io/badger/v4"
)

// compactJournal rewrites the journal from the database if it has grown too far. Updates
// go on meanwhile.
func (ix *Index) compactJournal(ctx context.Context) error {
	if !ix.journal.wasteful(ix.totals.Load().journal) {
		return nil
	}
	ix.mu.Lock() // so that every change is either in the snapshot or in the tail
	txn := ix.db.NewTransaction(false)
	ix.journal.startRewrite()
	ix.mu.Unlock()
	defer txn.Discard()
	return ix.journal.rewrite(func(w io.Writer) error { return writeLive(ctx, txn, w) })
}

// writeLive writes a line for every link and tag. A record that cannot be read is an
// error: the old journal may still know it.
func writeLive(ctx context.Context, txn *badger.Txn, w io.Writer) error {
	err := scan(txn, []byte{prefixLink}, nil, func(key, v []byte) error {
		r, rest, err := cutRepo(key[1:])
		if err != nil || len(rest) == 0 {
			return damaged("link", errRecord)
		}
		d, _, err := cutDigest(rest[1:])
		if err != nil {
			return damaged("link", err)
		}
		l, err := decodeLink(v)
		if err != nil {
			return damaged("link", err)
		}
		if _, err := w.Write(linkLine(r, Kind(rest[0]), d, l)); err != nil {
			return err
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	return scan(txn, []byte{prefixTag}, nil, func(key, v []byte) error {
		r, tag, err := cutRepo(key[1:])
		if err != nil {
			return damaged("tag", err)
		}
		t, err := decodeTag(v)
		if err != nil {
			return damaged("tag", err)
		}
		if _, err := w.Write(tagLine(r, string(tag), t)); err != nil {
			return err
		}
		return ctx.Err()
	})
}
