package index

import (
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"forebay/cache/index/blocks"
	"forebay/cache/index/durable"
)

// Options says where an index is. Dir and Journal are required.
type Options struct {
	Dir     string      // folder of the database; folders beside it with more in their names are ours too
	Journal string      // file of the journal
	Log     *zap.Logger // nil means no logging
	// Fault is for tests only; nil asks nobody.
	Fault Fault
	// Bucket walks the objects in the bucket behind the disk, for a rebuild; nil when there
	// is none, or it is not to be asked.
	Bucket WalkFunc
	// KeepGone has a rebuild restore links and tags whose content was not found: they are
	// still true, and it may be in a bucket that was not asked.
	KeepGone bool
}

// slack is what must be free on the disk of the database for a change to be made, so
// that what follows from it has room: the writing of up to two tables of 16 MiB,
// and compactions, which take up to about a quarter of the database's size at once.
// What has none all the same waits, see package blocks.
const slack = 48 << 20

// room reports whether the disk of the database takes another change. It costs one call
// of the kernel, about a microsecond.
func (ix *Index) room() error {
	if err := ix.backing.Stalled(); err != nil {
		return err
	}
	lsm, vlog := ix.db.Size() // as of the last minute, without I/O
	return blocks.Room(ix.dir, slack+(lsm+vlog)/4)
}

// closeSlack is what must be free for a close: what is in the logs becomes tables.
func closeSlack(dir string) int64 {
	need := int64(4 << 20)
	logs, _ := filepath.Glob(filepath.Join(dir, "*.mem"))
	for _, name := range logs {
		if info, err := os.Stat(name); err == nil {
			need += min(info.Size(), memTable) // its table is no larger than what fits into memory
		}
	}
	return need
}

// Probe reports whether the disk takes changes now.
func (ix *Index) Probe() error {
	if err := ix.room(); err != nil {
		return err
	}
	if err := ix.fault.Before(durable.StepCreate, ix.dir); err != nil {
		return err
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if err := ix.backing.Prepare(0); err != nil {
		return err
	}
	return writable(ix.dir)
}
