// Package index remembers what is known about blobs: their sizes and use, which
// repository holds them, what tags point to, and listings.
//
// It promises that a batch of changes is kept whole or not at all, that a damaged value is
// an error and never a wrong answer, and that a hit writes nothing. The blob files are the
// truth all the same: a record whose file is gone is a miss.
//
// Facts live in a Badger database. Links and tags, which no blob file tells, are also
// appended to a journal of text lines, so that [Rebuild] brings them back after the
// database is lost.
//
// Lock order: Index.mu, then that of the journal. No lock is held while a callback runs, but for
// Store.Stat in [Index.Reconcile].
package index

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/index/blocks"
	"forebay/cache/index/durable"
	"forebay/cache/index/journal"
	"forebay/cache/index/row"
	"forebay/internal/logkey"
	"forebay/internal/tally"
)

const (
	// syncEvery bounds what a loss of power takes from the journal.
	syncEvery = time.Second
	// touchEvery is how often access times are written. Eviction looks at days.
	touchEvery = 45 * time.Second
)

var (
	// ErrDamaged means that the database, or a record in it, cannot be read, or that it
	// is missing while the journal says that there was one. [Rebuild] helps.
	ErrDamaged = errors.New("index is damaged")
	// ErrNewer means that a newer version of the program wrote the index.
	ErrNewer = row.ErrNewer
	// ErrUnwritable means that nothing can be recorded now: the disk of the database is full
	// or cannot be written. What is recorded can still be read. It comes with [syscall.ENOSPC],
	// [syscall.EROFS] or what else the disk says.
	ErrUnwritable = blocks.ErrUnwritable
)

// Index is an open index. Its methods may be called concurrently.
type Index struct {
	dir     string
	fault   Fault
	db      *badger.DB
	backing *blocks.Backing
	log     *zap.Logger
	journal *journal.Journal // nil while rebuilding
	unclean bool             // the process before did not close the index
	lags    atomic.Bool      // see Lag
	guarded bool             // changes are made only while the disk has room for them

	mu     sync.Mutex                       // serialises Update, so that totals and records agree
	totals atomic.Pointer[row.TotalsRecord] // written under mu
	access access
	hint   atomic.Pointer[func(v1.Hash) uint8] // see RememberHints
	closed sync.Once

	reads, writes *tally.Histogram
}

// Open opens an index with its journal, and makes both if neither is there. The error is
// [ErrDamaged] when [Rebuild] is needed, [ErrNewer] when a newer program is, and
// [ErrUnwritable] when its disk is too full. The caller starts Run once, and calls Close
// after Run has returned.
func Open(o Options) (*Index, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if err := checkPresence(o.Dir, o.Journal); err != nil {
		return nil, fmt.Errorf("open index %q: %w", o.Dir, err)
	}
	ix, err := openDatabase(o)
	if err != nil {
		return nil, fmt.Errorf("open index %q: %w", o.Dir, err)
	}
	err = ix.attach(o.Journal)
	if err == nil {
		err = removeLeftovers(o)
	}
	if err != nil {
		return nil, fmt.Errorf("open index %q: %w", o.Dir, errors.Join(err, ix.Close()))
	}
	ix.guarded = true
	return ix, nil
}

// attach opens the journal and brings the database up to it.
func (ix *Index) attach(path string) error {
	j, err := journal.Open(path, ix.fault)
	if err != nil {
		return err
	}
	if err := ix.catchUp(path, j); err != nil {
		return errors.Join(err, j.Close())
	}
	ix.journal = j
	if ix.totals.Load().Mark == j.At() {
		return nil
	}
	if err := ix.moveMark(); err != nil {
		return errors.Join(err, j.Close())
	}
	return nil
}

// checkPresence distinguishes a new index from one that was lost.
func checkPresence(dir, path string) error {
	_, err := os.Stat(filepath.Join(dir, badger.ManifestFilename))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if info, err := os.Stat(path); err == nil && info.Size() > journal.HeaderSize {
		return fmt.Errorf("%w: it is missing, but %q has entries", ErrDamaged, path)
	}
	for _, pattern := range []string{"*.sst", "*.mem"} {
		names, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return fmt.Errorf("%w: %s is missing", ErrDamaged, badger.ManifestFilename)
		}
	}
	return nil
}

// openDatabase opens or makes the database, without a journal.
func openDatabase(o Options) (_ *Index, err error) {
	dir := o.Dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := blocks.Room(dir, 0); err != nil {
		return nil, err
	}
	b, err := blocks.Open(dir, o.Log)
	if err != nil {
		return nil, err
	}
	opened := false
	defer func() {
		if !opened {
			err = errors.Join(err, b.Close())
		}
	}()
	// What a start needs of a full disk is kept for it.
	if err := writable(dir); err != nil && !blocks.Full(err) {
		return nil, err
	}
	unclean, err := raiseFlag(dir, o.Fault)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && !unclean {
			err = errors.Join(err, durable.RemoveIfThere(filepath.Join(dir, flagName)))
		}
	}()
	if err := verifyFiles(dir, unclean); err != nil {
		return nil, err
	}
	db, err := openBadger(dir, o.Log, b)
	if err != nil {
		return nil, err
	}
	opened = true
	ix := &Index{dir: dir, fault: o.Fault, db: db, backing: b, log: o.Log, unclean: unclean,
		reads: tally.NewHistogram(tally.Moments()), writes: tally.NewHistogram(tally.Moments())}
	ix.access.init()
	version, err := ix.load()
	if err == nil && version < schemaVersion {
		err = ix.migrate(version)
	}
	if err != nil {
		return nil, errors.Join(err, ix.closeDatabase())
	}
	return ix, nil
}

// flagName is a file that is there while the index is open, and after a crash.
const flagName = "OPEN"

// raiseFlag makes the flag and reports whether it was there.
func raiseFlag(dir string, fault Fault) (unclean bool, err error) {
	f, err := fault.Create(filepath.Join(dir, flagName), os.O_WRONLY|os.O_EXCL)
	if errors.Is(err, fs.ErrExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, errors.Join(f.Close(), fault.SyncFolder(dir))
}

// openBadger opens what verifyFiles has seen, in a folder that can be used.
func openBadger(dir string, log *zap.Logger, b *blocks.Backing) (db *badger.DB, err error) {
	defer recoverDamage(&err)
	// A start must not wait for the tables of the logs that were left.
	logs, _ := filepath.Glob(filepath.Join(dir, "*.mem"))
	db, err = badger.Open(badgerOptions(dir, log).WithNumMemtables(logsQueued + len(logs)))
	if err == nil {
		return db, nil
	}
	if refused := b.Refusal(); refused != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnwritable, refused)
	}
	return nil, causeOf(err)
}

// causeOf returns every failure to open as ErrDamaged, but that of a full disk, and those of a machine
// that has not enough: no index is given up for these. Badger's errors carry their cause as text only.
func causeOf(err error) error {
	if strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		return fmt.Errorf("%w: %w: %w", ErrUnwritable, err, syscall.ENOSPC)
	}
	for _, lack := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM} {
		if strings.Contains(err.Error(), lack.Error()) {
			return err
		}
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// writable makes and removes a file, so that a folder without permission or space is not
// taken for a damaged index.
func writable(dir string) error {
	f, err := os.CreateTemp(dir, "probe-*")
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Close(), os.Remove(f.Name()))
}

const (
	// memTable is how much the database gathers in memory before it writes a table.
	memTable = 16 << 20
	// logsQueued is how many such gatherings may wait for their table. It is never reached:
	// the database would not come back from a change, and from no read. See blocks.Backing.
	logsQueued = 16
)

// badgerOptions keeps memory small: one million blobs with their links are some 300 MB
// on disk, read through the page cache.
func badgerOptions(dir string, log *zap.Logger) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(badgerLog{log}).
		WithDetectConflicts(false). // Update is the only writer
		WithNumVersionsToKeep(1).
		WithMemTableSize(memTable).
		WithNumMemtables(logsQueued).
		WithBypassLockGuard(true). // see blocks.Open
		WithNumLevelZeroTables(4).
		WithNumLevelZeroTablesStall(12).
		WithNumCompactors(2).
		WithBaseTableSize(2 << 20).     // compactions hold over a dozen tables being built in memory
		WithCompression(options.None).  // values are digests: nothing to compress
		WithBlockCacheSize(0).          // the page cache does it
		WithIndexCacheSize(0).          // without encryption, indices are read from the page cache too
		WithValueLogFileSize(16 << 20). // stays empty: every value is below the threshold
		WithChecksumVerificationMode(options.OnBlockRead).
		WithMetricsEnabled(false).
		WithSyncWrites(false) // survives a kill; after a loss of power the files are the truth
}

// load reads the version and the totals, or writes them into a new database.
func (ix *Index) load() (version int64, err error) {
	err = ix.view(func(txn *badger.Txn) error {
		version, err = getValue(txn, row.VersionKey, row.DecodeVersion)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return err
		}
		if err != nil {
			return damaged("schema version", err)
		}
		if version > schemaVersion {
			return fmt.Errorf("%w: it has schema %d, this program knows up to %d", ErrNewer, version, schemaVersion)
		}
		t, err := getValue(txn, row.TotalsKey, row.DecodeTotals)
		if err != nil {
			return damaged("totals", err)
		}
		ix.totals.Store(&t)
		return nil
	})
	if errors.Is(err, badger.ErrKeyNotFound) {
		return schemaVersion, ix.change(smallChange, ix.initialise)
	}
	return version, err
}

// initialise marks an empty database as ours.
func (ix *Index) initialise(txn *badger.Txn) error {
	it := txn.NewIterator(badger.IteratorOptions{})
	it.Rewind()
	empty := !it.Valid()
	it.Close()
	if !empty {
		return fmt.Errorf("%w: it has no schema version", ErrDamaged)
	}
	ix.totals.Store(&row.TotalsRecord{})
	if err := txn.Set(row.VersionKey, row.EncodeVersion(schemaVersion)); err != nil {
		return err
	}
	return txn.Set(row.TotalsKey, row.TotalsRecord{}.Encode())
}

// Run writes access times and syncs and compacts the journal until ctx is done. It
// returns nil; what goes wrong is logged, and tried again.
func (ix *Index) Run(ctx context.Context) error {
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	last := time.Now()
	var failing bool
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			err := ix.journal.Sync()
			if now.Sub(last) >= touchEvery {
				last = now
				if roomErr := ix.room(); roomErr != nil {
					err = errors.Join(err, roomErr)
				} else {
					err = errors.Join(err, ix.flushAccess(), ix.compactJournal(ctx))
				}
			}
			if ctx.Err() == nil {
				failing = ix.report(err, failing)
			}
		}
	}
}

// report logs when writing begins to fail and when it works again, not every failure.
func (ix *Index) report(err error, failing bool) bool {
	switch {
	case err != nil && !failing:
		ix.log.Warn("index not written", logkey.Err(err))
	case err == nil && failing:
		ix.log.Info("index written again")
	}
	return err != nil
}

// Close writes what is in memory and closes the index. Nothing may be called after it. On
// a full disk the database is left as a kill would leave it, with [ErrUnwritable]: to
// close it means to write a table, and the next start does that.
func (ix *Index) Close() error {
	var err error
	ix.closed.Do(func() {
		room := blocks.Room(ix.dir, closeSlack(ix.dir))
		if ix.journal != nil {
			if room == nil {
				err = ix.flushAccess()
			}
			err = errors.Join(err, ix.journal.Close())
		}
		if room != nil {
			err = errors.Join(err, room)
			return
		}
		if err = errors.Join(err, ix.closeDatabase()); err == nil && !ix.lags.Load() {
			err = ix.fault.RemoveIfThere(filepath.Join(ix.dir, flagName))
		}
	})
	if err != nil {
		return fmt.Errorf("close index: %w", err)
	}
	return nil
}

// closeDatabase closes the database. While a table waits for room it gives up: the
// database is left open then, which the end of the process ends.
func (ix *Index) closeDatabase() error {
	done := make(chan error, 1)
	go func() { done <- ix.db.Close() }()
	look := time.NewTicker(blocks.TableRetry)
	defer look.Stop()
	for {
		select {
		case err := <-done:
			return errors.Join(err, ix.backing.Close())
		case <-look.C:
			if err := ix.backing.Stalled(); err != nil {
				return err
			}
		}
	}
}

// Sync makes all changes so far survive a loss of power, but for records of blobs, which
// the files tell. Without it, those of the last second may be lost.
func (ix *Index) Sync() error { return ix.journal.Sync() }

// Unclean reports whether the process before ended without closing the index, or with records
// lost, so that a [Index.Reconcile] is due.
func (ix *Index) Unclean() bool { return ix.unclean }

// Lag says that a record was lost, so that a [Index.Reconcile] is due: at the next start, if
// none comes before.
func (ix *Index) Lag() { ix.lags.Store(true) }

// Lags reports whether it is due.
func (ix *Index) Lags() bool { return ix.lags.Load() }

// Figures are what the index has done since the start, and its size.
type Figures struct {
	Reads  tally.Snapshot // of single records
	Writes tally.Snapshot // of batches, the wait for other batches included
	Bytes  int64          // of its files
}

// Figures returns what was counted, and measures the files, of which there are some dozens.
func (ix *Index) Figures() (Figures, error) {
	f := Figures{Reads: ix.reads.Read(), Writes: ix.writes.Read()}
	files, err := os.ReadDir(ix.dir)
	for _, file := range files {
		if info, err := file.Info(); err == nil { // else it has just been compacted away
			f.Bytes += info.Size()
		}
	}
	if err != nil {
		return f, fmt.Errorf("measure index: %w", err)
	}
	return f, nil
}

// Totals returns the counts, which always agree with the records.
func (ix *Index) Totals() Totals { return ix.totals.Load().Totals }

// badgerLog gives Badger's warnings to our log. What it says at info is of no use to an operator.
type badgerLog struct{ log *zap.Logger }

func (l badgerLog) Errorf(format string, args ...any)   { l.warn(format, args) }
func (l badgerLog) Warningf(format string, args ...any) { l.warn(format, args) }
func (l badgerLog) Infof(string, ...any)                {}
func (l badgerLog) Debugf(string, ...any)               {}

func (l badgerLog) warn(format string, args []any) {
	l.log.Warn("index database", zap.String("said", strings.TrimSpace(fmt.Sprintf(format, args...))))
}
