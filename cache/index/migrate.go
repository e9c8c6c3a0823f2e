package index

import (
	"bytes"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"
	"go.uber.org/zap"

	"forebay/cache/index/durable"
	"forebay/cache/index/row"
	"forebay/internal/logkey"
)

// schemaVersion is the version of keys and records. A database with a newer one is
// refused, one with an older one is migrated when it is opened.
//
//	1  the first
//	2  the record of a last use has a hint
const schemaVersion = 2

// migrateBatch is how many records are changed in one transaction of a migration.
const migrateBatch = 1000

// migrations[i] brings a database from version i+1 to version i+2. The version is raised at
// its end. If it is interrupted it runs again from its beginning, so that it must pass over
// what it has changed already.
func migrations() []func(*Index) error {
	return []func(*Index) error{(*Index).addHints}
}

// migrate brings a database of an older version up to this one.
func (ix *Index) migrate(from int64) error {
	if from < 1 {
		return fmt.Errorf("%w: it has schema %d", ErrDamaged, from)
	}
	start := time.Now()
	for v := from; v < schemaVersion; v++ {
		if err := migrations()[v-1](ix); err != nil {
			return fmt.Errorf("migrate from schema %d to %d: %w", v, v+1, err)
		}
		if err := ix.changeAtOnce(func(txn *badger.Txn) error { return txn.Set(row.VersionKey, row.EncodeVersion(v+1)) }); err != nil {
			return fmt.Errorf("migrate from schema %d to %d: %w", v, v+1, err)
		}
		// It must be on the disk before the next one relies on it.
		if err := ix.db.Sync(); err != nil {
			return fmt.Errorf("migrate from schema %d to %d: %w", v, v+1, err)
		}
	}
	ix.log.Info("index migrated", zap.Int64("from", from), zap.Int64("to", schemaVersion), logkey.Took(time.Since(start)))
	return nil
}

func (ix *Index) changeAtOnce(fn func(*badger.Txn) error) error {
	if err := ix.fault.Before(durable.StepCommit, ix.dir); err != nil {
		return err
	}
	return ix.change(migrateBatch*256, fn)
}

// addHints gives the records of last uses, four bytes until then, one for a hint.
func (ix *Index) addHints() error {
	return ix.rewrite(row.PrefixAccess, func(v []byte) ([]byte, bool) {
		return append(bytes.Clone(v), 0), len(v) == 4
	})
}

// rewrite changes the records with a prefix for which change says so, a batch at a time.
func (ix *Index) rewrite(prefix byte, change func(v []byte) ([]byte, bool)) error {
	after := []byte{prefix}
	for more := true; more; {
		more = false
		type record struct{ key, value []byte }
		var changed []record
		err := ix.view(func(txn *badger.Txn) error {
			it := txn.NewIterator(iterate([]byte{prefix}))
			defer it.Close()
			for it.Seek(after); it.Valid(); it.Next() {
				if len(changed) == migrateBatch {
					more = true
					return nil
				}
				key := it.Item().KeyCopy(nil)
				after = key
				err := it.Item().Value(func(v []byte) error {
					if value, ok := change(v); ok {
						changed = append(changed, record{key, value})
					}
					return nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil && len(changed) > 0 {
			err = ix.changeAtOnce(func(txn *badger.Txn) error {
				for _, r := range changed {
					if err := txn.Set(r.key, r.value); err != nil {
						return err
					}
				}
				return nil
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}
