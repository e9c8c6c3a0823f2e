package index

import (
	"context"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"forebay/cache/index/row"
)

// purgeBatch is how many records of a repository are deleted at once.
const purgeBatch = 500

// DropRepo forgets all links, tags and documents of a repository. It is done in several
// updates, so that a crash may leave a part; doing it again finishes it. Tags go before
// the links that they depend on.
func (ix *Index) DropRepo(ctx context.Context, r Repo) error {
	for _, gather := range []func(Repo, *Batch) (int, error){ix.someTags, ix.someLinks, ix.someDocs} {
		for {
			n := 0
			err := ix.Update(func(b *Batch) (err error) {
				n, err = gather(r, b)
				return err
			})
			if err == nil && n > 0 {
				err = ctx.Err()
			}
			if err != nil {
				return fmt.Errorf("drop repository %s: %w", r, err)
			}
			if n < purgeBatch {
				break
			}
		}
	}
	return nil
}

func (ix *Index) someTags(r Repo, b *Batch) (int, error) {
	prefix, err := row.RepoKey(row.PrefixTag, r)
	if err != nil {
		return 0, err
	}
	return ix.some(prefix, func(key []byte) error { return b.DeleteTag(r, string(key)) })
}

func (ix *Index) someLinks(r Repo, b *Batch) (int, error) {
	prefix, err := row.RepoKey(row.PrefixLink, r)
	if err != nil {
		return 0, err
	}
	return ix.some(prefix, func(key []byte) error {
		if len(key) == 0 {
			return row.ErrRecord
		}
		d, _, err := row.CutDigest(key[1:])
		if err != nil {
			return err
		}
		return b.DeleteLink(r, Kind(key[0]), d)
	})
}

// someDocs deletes by key, part by part: what counts documents is their keys alone.
func (ix *Index) someDocs(r Repo, b *Batch) (int, error) {
	n := 0
	for _, kind := range []DocKind{TagList, ReferrerList} {
		prefix, err := row.DocPrefix(kind, r)
		if err != nil {
			return n, err
		}
		found, err := ix.some(prefix, func(key []byte) error {
			key = append(append([]byte(nil), prefix...), key...)
			b.steps = append(b.steps, func(w *writer) error { return w.delete(key) })
			return nil
		})
		if n += found; err != nil {
			return n, err
		}
	}
	return n, nil
}

// some calls fn for up to purgeBatch keys with a prefix, which is cut off, and returns how many.
func (ix *Index) some(prefix []byte, fn func(key []byte) error) (n int, err error) {
	err = ix.view(func(txn *badger.Txn) error {
		opts := iterate(prefix)
		opts.PrefetchValues = false
		it := txn.NewIterator(opts)
		defer it.Close()
		for it.Rewind(); it.Valid() && n < purgeBatch; it.Next() {
			n++
			if err := fn(it.Item().Key()[len(prefix):]); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}
