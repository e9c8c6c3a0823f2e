package index

import (
	"errors"
	"fmt"
	"strings"

	"github.com/dgraph-io/badger/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/row"
)

// ErrStop ends a listing early; the listing then returns nil.
var ErrStop = errors.New("listing ended by its caller")

// TagsAfter calls fn for the tags of a repository that sort after one, in order; after ""
// it calls it for all. It is a listing as described in read.go, but [ErrStop] ends it well.
func (ix *Index) TagsAfter(r Repo, after string, fn func(tag string, t Tag) error) error {
	prefix, err := row.RepoKey(row.PrefixTag, r)
	if err != nil {
		return fmt.Errorf("list tags of %s: %w", r, err)
	}
	from := append([]byte(nil), prefix...)
	if after != "" {
		from = append(append(from, after...), 0) // the first key after its own
	}
	return stopped(ix.view(func(txn *badger.Txn) error {
		return scan(txn, prefix, from, func(key, v []byte) error {
			t, err := row.DecodeTag(v)
			if err != nil {
				return nil
			}
			return fn(string(key[len(prefix):]), t)
		})
	}))
}

func stopped(err error) error {
	if errors.Is(err, ErrStop) {
		return nil
	}
	return err
}

// Sized is a blob record with its digest.
type Sized struct {
	Digest v1.Hash
	BlobInfo
}

// BlobsAfter returns up to n blobs whose digests come after one, in the order of the
// index, which begins after the zero digest and never changes.
func (ix *Index) BlobsAfter(after v1.Hash, n int) ([]Sized, error) {
	from := []byte{row.PrefixBlob}
	if after != (v1.Hash{}) {
		key, err := row.DigestKey(row.PrefixBlob, after)
		if err != nil {
			return nil, fmt.Errorf("list blobs: %w", err)
		}
		from = append(key, 0)
	}
	var blobs []Sized
	err := ix.view(func(txn *badger.Txn) error {
		return scan(txn, []byte{row.PrefixBlob}, from, func(key, v []byte) error {
			if len(blobs) >= n {
				return ErrStop
			}
			b, err := row.DecodeBlob(v)
			if err != nil {
				return nil
			}
			d, _, err := row.CutDigest(key[1:])
			if err != nil {
				return nil
			}
			blobs = append(blobs, Sized{d, b})
			return nil
		})
	})
	return blobs, stopped(err)
}

// RepoCounts says how much a repository holds.
type RepoCounts struct {
	Repo
	Manifests, Blobs, Tags int64 // links and tags
}

// ReposAfter is Repositories with counts, and with those repositories that hold no manifest.
func (ix *Index) ReposAfter(after string, n int) ([]RepoCounts, error) {
	from := append([]byte{row.PrefixRepo}, after...)
	if after != "" {
		from = append(from, 0)
	}
	var repos []RepoCounts
	err := ix.view(func(txn *badger.Txn) error {
		return scan(txn, []byte{row.PrefixRepo}, from, func(key, v []byte) error {
			if len(repos) >= n {
				return ErrStop
			}
			rec, err := row.DecodeRepo(v)
			upstream, name, ok := strings.Cut(string(key[1:]), "/")
			if err != nil || !ok {
				return nil
			}
			repos = append(repos, RepoCounts{
				Repo: Repo{Upstream: upstream, Name: name}, Manifests: rec.Manifests, Blobs: rec.Blobs, Tags: rec.Tags,
			})
			return nil
		})
	})
	return repos, stopped(err)
}

// EachTag calls fn for every tag of all repositories, by name, outside of reads of the database: it may take its
// time. [ErrStop] ends it well.
func (ix *Index) EachTag(fn func(r Repo, tag string, t Tag) error) error {
	const some = 500
	last := ""
	for {
		repos, err := ix.ReposAfter(last, some)
		if err != nil || len(repos) == 0 {
			return err
		}
		for _, r := range repos {
			if err := ix.eachTagOf(r.Repo, some, fn); err != nil {
				return stopped(err)
			}
		}
		last = repos[len(repos)-1].String()
	}
}

// eachTagOf is EachTag of one repository, some at a time. It returns the error of fn as it is.
func (ix *Index) eachTagOf(r Repo, some int, fn func(r Repo, tag string, t Tag) error) error {
	type named struct {
		tag string
		t   Tag
	}
	after := ""
	for {
		var all []named
		err := ix.TagsAfter(r, after, func(tag string, t Tag) error {
			if all = append(all, named{tag, t}); len(all) == some {
				return ErrStop
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, one := range all {
			if err := fn(r, one.tag, one.t); err != nil {
				return err
			}
		}
		if len(all) < some {
			return nil
		}
		after = all[len(all)-1].tag
	}
}

// Held reports whether any repository holds a digest.
func (ix *Index) Held(d v1.Hash) (bool, error) {
	held := false
	err := ix.Holders(d, func(Repo, Kind) error {
		held = true
		return ErrStop
	})
	return held, stopped(err)
}

// DeleteBlobIfGone forgets a blob unless the store has it when the change is made: a fill may
// have committed it again since its file was removed.
func (b *Batch) DeleteBlobIfGone(d v1.Hash, store Store) error { return b.deleteUnless(d, store) }
