package index

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/row"
)

// The readers below return whether there is a record. An error is [ErrDamaged] when the
// record cannot be read; callers may go on as if there was none.

// Blob returns what is known about a blob.
func (ix *Index) Blob(d v1.Hash) (BlobInfo, bool, error) {
	key, err := row.DigestKey(row.PrefixBlob, d)
	return lookup(ix, "blob record of", d, key, err, row.DecodeBlob)
}

// Link returns the link of a digest to a repository.
func (ix *Index) Link(r Repo, k Kind, d v1.Hash) (Link, bool, error) {
	key, err := row.LinkKey(r, k, d)
	return lookup(ix, "link of", d, key, err, row.DecodeLink)
}

// Tag returns what a tag points to.
func (ix *Index) Tag(r Repo, tag string) (Tag, bool, error) {
	key, err := row.TagKey(r, tag)
	return lookup(ix, "tag", tag, key, err, row.DecodeTag)
}

// lookup reads one record.
func lookup[T, N any](ix *Index, what string, name N, key []byte, err error, decode func([]byte) (T, error)) (T, bool, error) {
	var rec T
	if err != nil {
		return rec, false, fmt.Errorf("read %s %v: %w", what, name, err)
	}
	start := time.Now()
	err = ix.view(func(txn *badger.Txn) error {
		rec, err = getValue(txn, key, decode)
		return err
	})
	ix.reads.Since(start)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return rec, false, nil
	}
	if err != nil {
		var none T
		return none, false, fmt.Errorf("read %s %v: %w", what, name, asDamage(err))
	}
	return rec, true, nil
}

// asDamage marks what the database says as damage, unless it is merely closed.
func asDamage(err error) error {
	if errors.Is(err, badger.ErrDBClosed) || errors.Is(err, ErrDamaged) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

func damaged(what string, err error) error {
	return fmt.Errorf("read %s: %w: %w", what, ErrDamaged, err)
}

func getValue[T any](txn *badger.Txn, key []byte, decode func([]byte) (T, error)) (T, error) {
	var rec T
	item, err := txn.Get(key)
	if err != nil {
		return rec, err
	}
	err = item.Value(func(v []byte) error {
		rec, err = decode(v)
		return err
	})
	return rec, err
}

// The listings below call fn inside a read of the database: fn must not wait for the
// network, and may call the index. They stop at fn's first error and return it. Damaged
// records are passed over.

// Links calls fn for every digest that a repository holds as a kind.
func (ix *Index) Links(r Repo, k Kind, fn func(d v1.Hash, l Link) error) error {
	prefix, err := row.RepoKey(row.PrefixLink, r)
	if err != nil {
		return fmt.Errorf("list links of %s: %w", r, err)
	}
	prefix = append(prefix, byte(k))
	return ix.view(func(txn *badger.Txn) error {
		return scan(txn, prefix, nil, func(key, v []byte) error {
			d, _, err := row.CutDigest(key[len(prefix):])
			if err != nil {
				return nil
			}
			l, err := row.DecodeLink(v)
			if err != nil {
				return nil
			}
			return fn(d, l)
		})
	})
}

// Holders calls fn for every repository that holds a digest.
func (ix *Index) Holders(d v1.Hash, fn func(r Repo, k Kind) error) error {
	prefix, err := row.DigestKey(row.PrefixHolder, d)
	if err != nil {
		return fmt.Errorf("list holders: %w", err)
	}
	return ix.view(func(txn *badger.Txn) error {
		return scan(txn, prefix, nil, func(key, _ []byte) error {
			rest := key[len(prefix):]
			if len(rest) == 0 || !Kind(rest[0]).Valid() {
				return nil
			}
			r, _, err := row.CutRepo(rest[1:])
			if err != nil {
				return nil
			}
			return fn(r, Kind(rest[0]))
		})
	})
}

// Tags calls fn for every tag of a repository, in order.
func (ix *Index) Tags(r Repo, fn func(tag string, t Tag) error) error {
	prefix, err := row.RepoKey(row.PrefixTag, r)
	if err != nil {
		return fmt.Errorf("list tags of %s: %w", r, err)
	}
	return ix.view(func(txn *badger.Txn) error {
		return scan(txn, prefix, nil, func(key, v []byte) error {
			t, err := row.DecodeTag(v)
			if err != nil {
				return nil
			}
			return fn(string(key[len(prefix):]), t)
		})
	})
}

// Holds reports whether a repository has a link to anything.
func (ix *Index) Holds(r Repo) (bool, error) {
	key, err := row.RecordKey(r)
	rec, known, err := lookup(ix, "repository", r, key, err, row.DecodeRepo)
	return known && rec.Blobs+rec.Manifests > 0, err
}

// Repositories returns up to n repositories that hold at least one manifest, sorted as
// "upstream/name", beginning after the one that is spelled so. after may be anything.
func (ix *Index) Repositories(after string, n int) ([]Repo, error) {
	if n <= 0 {
		return nil, nil
	}
	var repos []Repo
	from := append([]byte{row.PrefixRepo}, after...)
	if after != "" {
		from = append(from, 0) // the first key after its own
	}
	err := ix.view(func(txn *badger.Txn) error {
		return scan(txn, []byte{row.PrefixRepo}, from, func(key, v []byte) error {
			rec, err := row.DecodeRepo(v)
			upstream, name, ok := strings.Cut(string(key[1:]), "/")
			if err != nil || rec.Manifests == 0 || !ok {
				return nil
			}
			repos = append(repos, Repo{Upstream: upstream, Name: name})
			if len(repos) == n {
				return errStop
			}
			return nil
		})
	})
	if err != nil && !errors.Is(err, errStop) {
		return nil, fmt.Errorf("list repositories: %w", err)
	}
	return repos, nil
}

// errStop ends a scan early.
var errStop = errors.New("stop")

func iterate(prefix []byte) badger.IteratorOptions {
	opts := badger.DefaultIteratorOptions
	opts.Prefix = prefix
	return opts
}

// scan calls fn for the records whose keys have the prefix, beginning with the key from.
// key and value are only good until fn returns.
func scan(txn *badger.Txn, prefix, from []byte, fn func(key, value []byte) error) error {
	it := txn.NewIterator(iterate(prefix))
	defer it.Close()
	if from == nil {
		from = prefix
	}
	for it.Seek(from); it.Valid(); it.Next() {
		item := it.Item()
		err := item.Value(func(v []byte) error { return fn(item.Key(), v) })
		if err != nil {
			return err
		}
	}
	return nil
}

// view runs fn in a read of the database. The database reads through memory that is mapped
// to files: a sector that the disk does not give, or a file that was cut, would end the
// process, and is an error here.
func (ix *Index) view(fn func(*badger.Txn) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recoverFault(&err)
	return ix.db.View(fn)
}

// recoverFault turns a fault of mapped memory into an error. Other panics go on.
func recoverFault(err *error) {
	r := recover()
	if r == nil {
		return
	}
	// The runtime's error of a fault has its address; no other runtime error has.
	fault, ok := r.(interface{ Addr() uintptr })
	if !ok {
		panic(r)
	}
	*err = fmt.Errorf("%w: fault at %#x: %w", ErrDamaged, fault.Addr(), syscall.EIO)
}
