package index

import (
	"bytes"
	"time"

	"github.com/dgraph-io/badger/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/row"
)

// Known is what is known of one blob, for who decides what to evict.
type Known struct {
	Digest v1.Hash
	BlobInfo
	Used     time.Time // minute of the last use, or of its arrival if it was not used since
	Hint     uint8     // what was said by RememberHints when its use was written last; 0 before
	Manifest bool      // some repository holds it as a manifest
}

// Known calls fn for every blob, in the order of their digests.
func (ix *Index) Known(fn func(Known) error) error {
	return ix.view(func(txn *badger.Txn) error {
		uses := txn.NewIterator(iterate([]byte{row.PrefixAccess}))
		defer uses.Close()
		uses.Rewind()
		keys := iterate([]byte{row.PrefixHolder})
		keys.PrefetchValues = false
		holders := txn.NewIterator(keys)
		defer holders.Close()
		holders.Rewind()
		return scan(txn, []byte{row.PrefixBlob}, nil, func(key, v []byte) error {
			b, err := row.DecodeBlob(v)
			if err != nil {
				return nil
			}
			d, _, err := row.CutDigest(key[1:])
			if err != nil {
				return nil
			}
			k := Known{Digest: d, BlobInfo: b, Used: b.Added, Manifest: seekManifest(holders, key[1:])}
			if u, ok := seekUse(uses, key[1:]); ok {
				k.Hint = u.Hint
				if u.At.After(k.Used) {
					k.Used = u.At
				}
			}
			if at, ok := ix.access.pending(d); ok && at.After(k.Used) {
				k.Used = at
			}
			return fn(k)
		})
	})
}

// Blobs calls fn for every blob with the minute of its last use, or of its arrival if it
// was not used since.
func (ix *Index) Blobs(fn func(d v1.Hash, b BlobInfo, used time.Time) error) error {
	return ix.Known(func(k Known) error { return fn(k.Digest, k.BlobInfo, k.Used) })
}

// seekUse moves the iterator of uses, which are in the order of the blobs, to a digest.
func seekUse(uses *badger.Iterator, digest []byte) (row.Use, bool) {
	for uses.Valid() && bytes.Compare(uses.Item().Key()[1:], digest) < 0 {
		uses.Next()
	}
	if !uses.Valid() || !bytes.Equal(uses.Item().Key()[1:], digest) {
		return row.Use{}, false
	}
	var u row.Use
	err := uses.Item().Value(func(v []byte) (err error) {
		u, err = row.DecodeUse(v)
		return err
	})
	return u, err == nil
}

// seekManifest moves the iterator of holders to a digest, and reports whether one of them
// holds it as a manifest.
func seekManifest(holders *badger.Iterator, digest []byte) bool {
	for ; holders.Valid(); holders.Next() {
		key := holders.Item().Key()[1:]
		n := min(len(key), len(digest))
		switch c := bytes.Compare(key[:n], digest); {
		case c > 0:
			return false
		case c == 0 && len(key) > n && Kind(key[n]) == Manifest:
			return true
		}
	}
	return false
}
