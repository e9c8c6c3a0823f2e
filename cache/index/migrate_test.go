package index

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/durable"
	"forebay/cache/index/row"
)

// writeFirstSchema makes an index as the first version of the program left it.
func writeFirstSchema(t *testing.T, f folder, blobs int) {
	t.Helper()
	ix, err := Open(f.options())
	if err != nil {
		t.Fatal(err)
	}
	update(t, ix, putLink(nginx, Blob, digest("0"), 1), putTag(nginx, "1", digest("0"), 1))
	for n := range blobs {
		update(t, ix, putBlob(digest(fmt.Sprint(n)), int64(n)))
	}
	err = ix.db.Update(func(txn *badger.Txn) error {
		for n := range blobs {
			key, err := row.DigestKey(row.PrefixAccess, digest(fmt.Sprint(n)))
			if err != nil {
				return err
			}
			if err := txn.Set(key, binary.BigEndian.AppendUint32(nil, uint32(1000+n))); err != nil {
				return err
			}
		}
		return txn.Set(row.VersionKey, row.EncodeVersion(1))
	})
	if err := errors.Join(err, ix.Close()); err != nil {
		t.Fatal(err)
	}
}

func checkMigrated(t *testing.T, ix *Index, blobs int) {
	t.Helper()
	n := 0
	err := ix.Known(func(k Known) error {
		n++
		return nil
	})
	if err != nil || n != blobs {
		t.Errorf("Known: %d blobs, %v, want %d", n, err, blobs)
	}
	for n := range blobs {
		at, ok, err := ix.Used(digest(fmt.Sprint(n)))
		if err != nil || !ok || !at.Equal(row.FromMinutes(uint32(1000+n))) {
			t.Fatalf("Used of blob %d = %s, %t, %v", n, at, ok, err)
		}
	}
	if _, ok, err := ix.Tag(nginx, "1"); !ok || err != nil {
		t.Errorf("Tag: %t, %v", ok, err)
	}
	var v int64
	err = ix.view(func(txn *badger.Txn) (err error) {
		v, err = getValue(txn, row.VersionKey, row.DecodeVersion)
		return err
	})
	if err != nil || v != schemaVersion {
		t.Errorf("schema is %d, %v, want %d", v, err, schemaVersion)
	}
}

func TestOlderIndexIsMigrated(t *testing.T) {
	const blobs = 2500 // more than two batches
	f := newFolder(t)
	writeFirstSchema(t, f, blobs)
	for range 2 {
		ix := f.open(t)
		checkMigrated(t, ix, blobs)
		if err := ix.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMigrationThatIsCutGoesOn(t *testing.T) {
	const blobs = 2500
	f := newFolder(t)
	writeFirstSchema(t, f, blobs)
	for cut := 0; ; cut++ {
		o, n := f.options(), 0
		o.Fault = func(step Step, _ string) error {
			if step != durable.StepCommit {
				return nil
			}
			if n++; n > 1 { // each start gets one batch further
				return syscall.EIO
			}
			return nil
		}
		ix, err := Open(o)
		if err == nil {
			checkMigrated(t, ix, blobs)
			if err := ix.Close(); err != nil {
				t.Error(err)
			}
			if cut < 3 {
				t.Errorf("it was cut %d times, want 3 batches and the version", cut)
			}
			return
		}
		if !errors.Is(err, syscall.EIO) || errors.Is(err, ErrDamaged) {
			t.Fatalf("cut %d: Open: %v", cut, err)
		}
		if cut > 10 {
			t.Fatal("it never ends")
		}
	}
}

func TestKillWithinAMigration(t *testing.T) {
	const blobs = 1500
	f := newFolder(t)
	writeFirstSchema(t, f, blobs)
	var crash folder
	o, n := f.options(), 0
	o.Fault = func(step Step, _ string) error {
		if n++; step == durable.StepCommit && crash == (folder{}) && n > 2 {
			crash = snapshot(t, f) // what a kill leaves at this moment
		}
		return nil
	}
	ix, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := ix.Close(); err != nil {
		t.Fatal(err)
	}
	if crash == (folder{}) {
		t.Fatal("the migration has no second step")
	}
	ix, err = OpenOrRebuild(context.Background(), crash.options(), func(func(v1.Hash, int64, time.Time) error) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	checkMigrated(t, ix, blobs)
	if err := ix.Close(); err != nil {
		t.Error(err)
	}
}
