package index

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/dgraph-io/badger/v4"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index/durable"
	"forebay/cache/index/journal"
	"forebay/cache/index/row"
)

// Batch gathers changes for [Index.Update]. Its methods look at their arguments and
// return an error for names and digests that cannot be kept. Changes are made in order.
type Batch struct {
	steps []func(*writer) error
}

// Update makes the changes that fn gathers, all of them or none. When fn returns an error
// nothing is changed and the error is returned as it is. The error is [ErrTooBig] when one
// transaction cannot hold the batch (some 5,000 changes). fn runs without a lock and must
// only gather.
//
// A batch that was interrupted by a kill, or refused by the database, may be made in part at
// the next start: its links and tags, from the journal. Reconcile then finds its blobs.
func (ix *Index) Update(fn func(*Batch) error) error {
	var b Batch
	if err := fn(&b); err != nil {
		return err
	}
	if len(b.steps) == 0 {
		return nil
	}
	start := time.Now() // what waits for other writers waits for the index
	defer ix.writes.Since(start)
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if err := ix.apply(b.steps); err != nil {
		return fmt.Errorf("update index: %w", err)
	}
	return nil
}

// apply makes changes in one transaction. Its caller holds ix.mu.
func (ix *Index) apply(steps []func(*writer) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recoverFault(&err)
	if ix.guarded {
		if err := ix.room(); err != nil {
			return err
		}
	}
	txn := ix.db.NewTransaction(true)
	defer txn.Discard()
	w := &writer{txn: txn, totals: *ix.totals.Load(), repos: map[Repo]*row.RepoRecord{}}
	for _, step := range steps {
		if err := step(w); err != nil {
			return tooBig(err)
		}
	}
	if !w.changed {
		return nil
	}
	if err := w.countRepos(); err != nil {
		return tooBig(err)
	}
	if err := ix.backing.Prepare(w.bytes + smallChange); err != nil {
		return err
	}
	// The journal goes first. If it were second, a crash in between could leave a deletion
	// out of it, and a rebuild would give back a right that was taken away. A line without
	// its change does no harm: the next start makes the change.
	if ix.journal != nil {
		w.totals.Mark = ix.journal.Append(w.lines)
	}
	if err := w.set(row.TotalsKey, w.totals.Encode()); err != nil {
		return tooBig(err)
	}
	if err := ix.fault.Before(durable.StepCommit, ix.dir); err != nil {
		return err
	}
	if err := txn.Commit(); err != nil {
		return tooBig(err)
	}
	ix.totals.Store(&w.totals)
	return nil
}

// smallChange is more than a change of a record or two writes.
const smallChange = 1 << 10

// change makes changes in a transaction that writes up to n bytes. Its caller holds ix.mu
// or is alone.
func (ix *Index) change(n int64, fn func(*badger.Txn) error) error {
	if err := ix.backing.Prepare(n); err != nil {
		return err
	}
	return ix.db.Update(fn)
}

func tooBig(err error) error {
	if errors.Is(err, badger.ErrTxnTooBig) {
		return fmt.Errorf("%w: %w", ErrTooBig, err)
	}
	return err
}

// PutBlob records that content is committed, in place of what was recorded.
func (b *Batch) PutBlob(d v1.Hash, info BlobInfo) error {
	key, err := row.DigestKey(row.PrefixBlob, d)
	if err != nil {
		return fmt.Errorf("record blob: %w", err)
	}
	if info.Size < 0 {
		return fmt.Errorf("record blob %s: size %d is negative", d, info.Size)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, row.DecodeBlob)
		if err != nil {
			return err
		}
		if known {
			w.totals.Bytes -= old.Size
		} else {
			w.totals.Blobs++
		}
		w.totals.Bytes += info.Size
		return w.set(key, info.Encode())
	})
	return nil
}

// DeleteBlob forgets content and its last use. Links and tags stay: they are still true.
func (b *Batch) DeleteBlob(d v1.Hash) error {
	key, err := row.DigestKey(row.PrefixBlob, d)
	if err != nil {
		return fmt.Errorf("forget blob: %w", err)
	}
	used, err := row.DigestKey(row.PrefixAccess, d)
	if err != nil {
		return fmt.Errorf("forget blob: %w", err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, row.DecodeBlob)
		if err != nil || !known {
			return err
		}
		w.totals.Blobs--
		w.totals.Bytes -= old.Size
		return errors.Join(w.delete(key), w.delete(used))
	})
	return nil
}

// PutLink records that a repository holds a digest. What is unknown in l, an empty media
// type or a negative size, does not replace what is known.
func (b *Batch) PutLink(r Repo, k Kind, d v1.Hash, l Link) error {
	key, err := row.LinkKey(r, k, d)
	if err != nil {
		return fmt.Errorf("link to %s: %w", r, err)
	}
	holder, err := row.HolderKey(r, k, d)
	if err != nil {
		return fmt.Errorf("link to %s: %w", r, err)
	}
	if err := row.CheckMediaType(l.MediaType); err != nil {
		return fmt.Errorf("link %s to %s: %w", d, r, err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, row.DecodeLink)
		if err != nil {
			return err
		}
		l := l
		if known {
			if l = l.Over(old); l == old {
				return nil
			}
			w.retire(journal.LinkLine(r, k, d, old))
		} else if err := w.countLink(r, k, 1); err != nil {
			return err
		}
		w.record(journal.LinkLine(r, k, d, l))
		return errors.Join(w.set(key, l.Encode()), w.set(holder, nil))
	})
	return nil
}

// DeleteLink takes the right to a digest from a repository.
func (b *Batch) DeleteLink(r Repo, k Kind, d v1.Hash) error {
	key, err := row.LinkKey(r, k, d)
	if err != nil {
		return fmt.Errorf("unlink from %s: %w", r, err)
	}
	holder, err := row.HolderKey(r, k, d)
	if err != nil {
		return fmt.Errorf("unlink from %s: %w", r, err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, row.DecodeLink)
		if err != nil || !known {
			return err
		}
		w.retire(journal.LinkLine(r, k, d, old))
		w.lines = append(w.lines, journal.UnlinkLine(r, k, d, removed(old.At))...)
		return errors.Join(w.countLink(r, k, -1), w.delete(key), w.delete(holder))
	})
	return nil
}

// PutTag records what the upstream said that a tag points to: t.Desc at t.CheckedAt.
// ChangedAt and History follow from what is recorded already; those in t are not looked at.
func (b *Batch) PutTag(r Repo, tag string, t Tag) error {
	key, err := row.TagKey(r, tag)
	if err != nil {
		return fmt.Errorf("bind tag: %w", err)
	}
	if _, err := row.AppendDigest(nil, t.Desc.Digest); err != nil {
		return fmt.Errorf("bind tag %s:%s: %w", r, tag, err)
	}
	if err := row.CheckMediaType(string(t.Desc.MediaType)); err != nil {
		return fmt.Errorf("bind tag %s:%s: %w", r, tag, err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, row.DecodeTag)
		if err != nil {
			return err
		}
		next := t.Next(old, known)
		if !known {
			if err := w.countTag(r, 1); err != nil {
				return err
			}
		}
		// That a tag was confirmed is not worth a line: after a rebuild it is asked for again.
		if line := journal.TagLine(r, tag, next); !known || string(line) != string(journal.TagLine(r, tag, old)) {
			if known {
				w.retire(journal.TagLine(r, tag, old))
			}
			w.record(line)
		}
		w.recordHistory(r, tag, old, next)
		return w.set(key, next.Encode())
	})
	return nil
}

// PutWas adds what a tag that is known pointed to before.
func (b *Batch) PutWas(r Repo, tag string, was Binding) error {
	key, err := row.TagKey(r, tag)
	if err != nil {
		return fmt.Errorf("note former binding: %w", err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, row.DecodeTag)
		if err != nil || !known {
			return err
		}
		next := old.With(was)
		w.recordHistory(r, tag, old, next)
		return w.set(key, next.Encode())
	})
	return nil
}

// recordHistory records and retires the lines of former bindings by which next differs from old.
func (w *writer) recordHistory(r Repo, tag string, old, next Tag) {
	if len(old.History) == len(next.History) && (len(old.History) == 0 || &old.History[0] == &next.History[0]) {
		return // nearly always: the tag was confirmed
	}
	for _, b := range old.History {
		if !slices.Contains(next.History, b) {
			w.retire(journal.WasLine(r, tag, b))
		}
	}
	for _, b := range next.History {
		if !slices.Contains(old.History, b) {
			w.record(journal.WasLine(r, tag, b))
		}
	}
}

// DeleteTag forgets a tag and its history.
func (b *Batch) DeleteTag(r Repo, tag string) error {
	key, err := row.TagKey(r, tag)
	if err != nil {
		return fmt.Errorf("forget tag: %w", err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, row.DecodeTag)
		if err != nil || !known {
			return err
		}
		w.retire(journal.TagLine(r, tag, old))
		for _, b := range old.History {
			w.retire(journal.WasLine(r, tag, b))
		}
		w.lines = append(w.lines, journal.UntagLine(r, tag, removed(old.ChangedAt))...)
		return errors.Join(w.countTag(r, -1), w.delete(key))
	})
	return nil
}

// removed returns the time of a removal of what is there since a time: after that, whatever the
// clock says, since of several mirrors' words on one thing the last one counts.
func removed(since time.Time) time.Time {
	if now := time.Now(); now.After(since) {
		return now
	}
	return since.Add(time.Millisecond)
}

// writer makes the changes of one batch and keeps the counts.
type writer struct {
	txn     *badger.Txn
	totals  row.TotalsRecord
	repos   map[Repo]*row.RepoRecord // as they will be
	lines   []byte                   // for the journal
	bytes   int64                    // that the database writes to its log, at most
	changed bool
}

// read returns a record as the batch has left it so far. A damaged one counts as missing,
// so that it can be written anew.
func read[T any](w *writer, key []byte, decode func([]byte) (T, error)) (rec T, known bool, err error) {
	rec, err = getValue(w.txn, key, decode)
	if errors.Is(err, badger.ErrKeyNotFound) || errors.Is(err, row.ErrRecord) {
		var none T
		return none, false, nil
	}
	return rec, err == nil, err
}

// entryExtra is what an entry of the database's log has beside key and value: lengths,
// flags, a version and a checksum.
const entryExtra = 34

func (w *writer) set(key, value []byte) error {
	w.changed = true
	w.bytes += entryExtra + int64(len(key)+len(value))
	return w.txn.Set(key, value)
}

func (w *writer) delete(key []byte) error {
	w.changed = true
	w.bytes += entryExtra + int64(len(key))
	return w.txn.Delete(key)
}

// record adds a journal line that counts until it is retired.
func (w *writer) record(line []byte) {
	w.lines = append(w.lines, line...)
	w.totals.Live += int64(len(line))
}

// retire notes that an earlier journal line is obsolete.
func (w *writer) retire(line []byte) { w.totals.Live -= int64(len(line)) }

func (w *writer) countLink(r Repo, k Kind, n int64) error {
	rec, err := w.repo(r)
	if err != nil {
		return err
	}
	w.totals.Links += n
	if k == Manifest {
		rec.Manifests += n
	} else {
		rec.Blobs += n
	}
	return nil
}

func (w *writer) countTag(r Repo, n int64) error {
	rec, err := w.repo(r)
	if err != nil {
		return err
	}
	w.totals.Tags += n
	rec.Tags += n
	return nil
}

// repo returns the counts of a repository, to be changed.
func (w *writer) repo(r Repo) (*row.RepoRecord, error) {
	if rec := w.repos[r]; rec != nil {
		return rec, nil
	}
	key, err := row.RecordKey(r)
	if err != nil {
		return nil, err
	}
	rec, known, err := read(w, key, row.DecodeRepo)
	if err != nil {
		return nil, err
	}
	if !known {
		w.totals.Repositories++
	}
	w.repos[r] = &rec
	return &rec, nil
}

// countRepos writes the counts of the repositories.
func (w *writer) countRepos() error {
	for r, rec := range w.repos {
		key, err := row.RecordKey(r)
		if err != nil {
			return err
		}
		if *rec == (row.RepoRecord{}) {
			w.totals.Repositories--
			err = w.delete(key)
		} else {
			err = w.set(key, rec.Encode())
		}
		if err != nil {
			return err
		}
	}
	return nil
}
