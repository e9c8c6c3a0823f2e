package index

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

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

// ErrUnwritable means that nothing can be recorded now: the disk of the database is full
// or cannot be written. What is recorded can still be read. It comes with [unix.ENOSPC],
// [unix.EROFS] or what else the disk says.
var ErrUnwritable = errors.New("index cannot be written")

const (
	// slack is what must be free on the disk of the database for a change to be made, so
	// that what follows from it has room: the writing of up to two tables of 16 MiB,
	// and compactions, which take up to about a quarter of the database's size at once.
	// What has none all the same waits, see backing.
	slack = 48 << 20
	// slackShare bounds it on a small file system.
	slackShare = 8
)

// room reports whether the disk of the database takes another change. It costs one call
// of the kernel, about a microsecond.
func (ix *Index) room() error {
	if err := ix.backing.stalled(); err != nil {
		return err
	}
	lsm, vlog := ix.db.Size() // as of the last minute, without I/O
	return roomIn(ix.dir, slack+(lsm+vlog)/4)
}

// roomIn returns ErrUnwritable unless so many bytes, or an eighth of it all, are free.
func roomIn(dir string, need int64) error {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("%w: free space of %q: %w", ErrUnwritable, dir, err)
		}
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("%w: %q: %w", ErrUnwritable, dir, unix.EROFS)
	}
	block := int64(st.Bsize)
	free := int64(min(st.Bavail, 1<<40)) * block
	need = min(need, int64(min(st.Blocks, 1<<40))*block/slackShare)
	if free < need {
		return fmt.Errorf("%w: %q has %d MiB left and %d are needed: %w", ErrUnwritable, dir, free>>20, need>>20, unix.ENOSPC)
	}
	return nil
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
	if err := ix.backing.prepare(0); err != nil {
		return err
	}
	return writable(ix.dir)
}
