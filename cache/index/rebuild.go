package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/index/journal"
	"forebay/internal/logkey"
)

// WalkFunc calls its argument for every committed blob of a store and stops at the first
// error: the Walk method of a store.
type WalkFunc func(func(d v1.Hash, size int64, modTime time.Time) error) error

// Progress counts what a rebuild has done so far, or in the end.
type Progress struct {
	Blobs int64 // found on the disk
	Bytes int64 // their sizes
	// Objects are those found in the bucket.
	Objects     int64
	ObjectBytes int64
	Lines       int64 // sound lines of the journal
	Bad         int64 // lines that could not be read
	Gone        int64 // links and tags that were not restored, as their content is not there
}

// rebuildBatch is how many changes of a rebuild are made at once.
const rebuildBatch = 2000

// OpenOrRebuild opens the index and rebuilds it first if it is damaged or missing. It is
// what a server calls at its start. While another process holds the index, or when a
// newer program wrote it, it returns the error of [Open].
func OpenOrRebuild(ctx context.Context, o Options, walk WalkFunc) (*Index, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	log := o.Log
	ix, err := Open(o)
	if err == nil && ix.Totals() != (Totals{}) {
		return ix, nil
	}
	if err == nil {
		empty, walkErr := nothingStored(walk)
		if empty {
			return ix, nil
		}
		// The store has content and the index knows none: both index and journal were lost.
		if err := errors.Join(walkErr, ix.Close()); err != nil {
			return nil, err
		}
		err = fmt.Errorf("%w: it is empty and the store is not", ErrDamaged)
	}
	if !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	log.Warn("index is rebuilt", logkey.Path(o.Dir), logkey.Err(err))
	start := time.Now()
	done, err := Rebuild(ctx, o, walk, nil)
	if err != nil {
		return nil, err
	}
	log.Info("index rebuilt", logkey.Took(time.Since(start)), zap.Int64("blobs", done.Blobs), logkey.Bytes(done.Bytes),
		zap.Int64("lines", done.Lines), zap.Int64("bad_lines", done.Bad), zap.Int64("gone", done.Gone))
	return Open(o)
}

// nothingStored reports whether a store has no blob.
func nothingStored(walk WalkFunc) (bool, error) {
	err := walk(func(v1.Hash, int64, time.Time) error { return errStop })
	if errors.Is(err, errStop) {
		return false, nil
	}
	return err == nil, err
}

// Rebuild makes the index anew from the store and the journal, and replaces the one in
// dir when it is whole; until then dir is not touched. Links, tags with their histories, pins
// and decisions come from the journal; links whose content is not in the store are not restored, nor
// are tags of which nothing is left there. Listings and access times are lost. The caller must hold the store's lock, and no Index of
// dir may be open. progress may be nil; it is called now and then.
func Rebuild(ctx context.Context, o Options, walk WalkFunc, progress func(Progress)) (Progress, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	b := &rebuild{ctx: ctx, progress: progress, bucket: o.Bucket, keepGone: o.KeepGone, gone: map[goneTag]bool{}}
	err := b.run(o, walk)
	if err != nil {
		return b.done, fmt.Errorf("rebuild index %q: %w", o.Dir, err)
	}
	return b.done, nil
}

// rebuild is one run of Rebuild.
type rebuild struct {
	ctx      context.Context // of the one call that the rebuild lives for
	ix       *Index
	progress func(Progress)
	bucket   WalkFunc // nil when there is none
	keepGone bool
	done     Progress
	gone     map[goneTag]bool // tags whose content is not there
	batch    Batch
}

func (b *rebuild) run(o Options, walk WalkFunc) error {
	fresh := o
	fresh.Dir = o.Dir + newSuffix
	if err := o.Fault.RemoveAll(fresh.Dir); err != nil {
		return err
	}
	ix, err := openDatabase(fresh)
	if err != nil {
		return err
	}
	b.ix = ix
	err = b.fill(o.Journal, walk)
	if err = errors.Join(err, ix.Close()); err != nil {
		return errors.Join(err, os.RemoveAll(fresh.Dir))
	}
	return replaceFolder(o, fresh.Dir)
}

func (b *rebuild) fill(path string, walk WalkFunc) error {
	err := walk(func(d v1.Hash, size int64, modTime time.Time) error {
		b.done.Blobs++
		b.done.Bytes += size
		return errors.Join(b.batch.PutBlob(d, BlobInfo{Size: size, Added: modTime}), b.step())
	})
	if err == nil && b.bucket != nil {
		err = b.bucket(func(d v1.Hash, size int64, stamp time.Time) error {
			b.done.Objects++
			b.done.ObjectBytes += size
			return errors.Join(b.batch.PutRemote(d, Remote{Size: size, Stamp: stamp}), b.step())
		})
	}
	if err != nil {
		return err
	}
	if err := b.flush(); err != nil {
		return err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	bad, err := journal.Read(f, func(e journal.Entry) error {
		b.done.Lines++
		return errors.Join(b.apply(e), b.step())
	})
	b.done.Bad = int64(bad)
	return errors.Join(err, b.flush(), b.dropGone(), b.flush())
}

// goneTag is a tag whose content is not there.
type goneTag struct {
	repo Repo
	tag  string
}

// apply makes the change of a journal line. A link whose content is gone is not restored, nor is a
// tag of which nothing is left, which only the end tells.
func (b *rebuild) apply(e journal.Entry) error {
	if e.Pin.Ref != "" || e.Decision.Name != "" || e.Was.Digest != (v1.Hash{}) {
		return change(e, &b.batch)
	}
	there := true
	if !e.Remove {
		var err error
		if there, err = b.there(e.Desc.Digest); err != nil {
			return err
		}
	}
	switch one := (goneTag{e.Repo, e.Tag}); {
	case e.Tag != "" && there:
		delete(b.gone, one)
	case e.Tag != "":
		b.gone[one] = true
	case !there:
		b.done.Gone++
		e.Remove = !b.keepGone
	}
	return change(e, &b.batch)
}

// dropGone removes the tags that point to what is not there, and did so before. One that has former
// content is kept with all that is known of it, since a rule may say that the former answers; it
// points to what it did: an old binding must not become the current one.
func (b *rebuild) dropGone() error {
	for one := range b.gone {
		b.done.Gone++
		t, _, err := b.ix.Tag(one.repo, one.tag)
		left := b.keepGone
		for _, was := range t.History {
			if left || err != nil {
				break
			}
			left, err = b.there(was.Digest)
		}
		if err != nil {
			return err
		}
		if !left {
			if err := errors.Join(b.batch.DeleteTag(one.repo, one.tag), b.step()); err != nil {
				return err
			}
		}
	}
	return nil
}

// there reports whether content was found.
func (b *rebuild) there(d v1.Hash) (bool, error) {
	_, there, err := b.ix.Blob(d)
	if there || err != nil || b.bucket == nil {
		return there, err
	}
	_, there, err = b.ix.Remote(d)
	return there, err
}

// step makes the gathered changes when there are enough.
func (b *rebuild) step() error {
	if len(b.batch.steps) < rebuildBatch {
		return nil
	}
	return b.flush()
}

func (b *rebuild) flush() error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	gathered := b.batch
	b.batch = Batch{}
	err := b.ix.Update(func(batch *Batch) error {
		*batch = gathered
		return nil
	})
	if err == nil && b.progress != nil {
		b.progress(b.done)
	}
	return err
}

// replaceFolder puts fresh in the place of dir. A crash in between leaves no dir, which
// Open takes for a lost index.
func replaceFolder(o Options, fresh string) error {
	old := o.Dir + oldSuffix
	if err := o.Fault.RemoveAll(old); err != nil {
		return err
	}
	if err := o.Fault.Rename(o.Dir, old); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := o.Fault.Rename(fresh, o.Dir); err != nil {
		return err
	}
	return errors.Join(o.Fault.SyncFolder(filepath.Dir(o.Dir)), o.Fault.RemoveAll(old))
}

// What a rebuild calls the folder that it makes and the one that it replaces.
const (
	newSuffix = ".new"
	oldSuffix = ".old"
)

// removeLeftovers removes what a rebuild, or a rewrite of the journal, left that was killed.
func removeLeftovers(o Options) error {
	return errors.Join(os.RemoveAll(o.Dir+newSuffix), os.RemoveAll(o.Dir+oldSuffix), journal.RemoveLeftovers(o.Journal))
}
