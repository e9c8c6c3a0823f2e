package index

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/dgraph-io/badger/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"
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
		uses := txn.NewIterator(iterate([]byte{prefixAccess}))
		defer uses.Close()
		uses.Rewind()
		keys := iterate([]byte{prefixHolder})
		keys.PrefetchValues = false
		holders := txn.NewIterator(keys)
		defer holders.Close()
		holders.Rewind()
		return scan(txn, []byte{prefixBlob}, nil, func(key, v []byte) error {
			b, err := decodeBlob(v)
			if err != nil {
				return nil
			}
			d, _, err := cutDigest(key[1:])
			if err != nil {
				return nil
			}
			k := Known{Digest: d, BlobInfo: b, Used: b.Added, Manifest: seekManifest(holders, key[1:])}
			if u, ok := seekUse(uses, key[1:]); ok {
				k.Hint = u.hint
				if u.at.After(k.Used) {
					k.Used = u.at
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
func seekUse(uses *badger.Iterator, digest []byte) (use, bool) {
	for uses.Valid() && bytes.Compare(uses.Item().Key()[1:], digest) < 0 {
		uses.Next()
	}
	if !uses.Valid() || !bytes.Equal(uses.Item().Key()[1:], digest) {
		return use{}, false
	}
	var u use
	err := uses.Item().Value(func(v []byte) (err error) {
		u, err = decodeUse(v)
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

// use is the record of a last use: minutes since 1970 in four bytes, and a hint in one.
type use struct {
	at   time.Time
	hint uint8
}

func encodeUse(minutes uint32, hint uint8) []byte {
	return append(binary.BigEndian.AppendUint32(nil, minutes), hint)
}

func decodeUse(v []byte) (use, error) {
	if len(v) != 5 {
		return use{}, errRecord
	}
	return use{at: fromMinutes(binary.BigEndian.Uint32(v)), hint: v[4]}, nil
}

func decodeMinutes(v []byte) (time.Time, error) {
	u, err := decodeUse(v)
	return u.at, err
}
