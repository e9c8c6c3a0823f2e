package index

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
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

// Step is one change that the index makes to the disk. What the database does on its own
// in the background is not among them.
type Step string

// The steps.
const (
	StepAppend Step = "append" // to the journal
	StepCommit Step = "commit" // of a transaction of the database
	StepSync   Step = "sync"
	StepCreate Step = "create"
	StepRename Step = "rename"
	StepRemove Step = "remove"
)

// Fault is asked before each step; its error is returned in place of doing the step. It
// may also end the process. It must not call the index.
type Fault func(step Step, name string) error

func (f Fault) before(step Step, name string) error {
	if f == nil {
		return nil
	}
	if err := f(step, name); err != nil {
		return &fs.PathError{Op: string(step), Path: name, Err: err}
	}
	return nil
}

func (f Fault) create(name string, flag int) (*os.File, error) {
	if err := f.before(StepCreate, name); err != nil {
		return nil, err
	}
	return os.OpenFile(name, flag|os.O_CREATE, 0o600)
}

func (f Fault) rename(from, to string) error {
	if err := f.before(StepRename, to); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (f Fault) removeIfThere(name string) error {
	if err := f.before(StepRemove, name); err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (f Fault) removeAll(name string) error {
	if err := f.before(StepRemove, name); err != nil {
		return err
	}
	return os.RemoveAll(name)
}

func (f Fault) sync(file *os.File) error {
	if err := f.before(StepSync, file.Name()); err != nil {
		return err
	}
	return file.Sync()
}

// syncFolder makes the names in a folder survive a loss of power.
func (f Fault) syncFolder(name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	return f.sync(file)
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
	if err := ix.fault.before(StepCreate, ix.dir); err != nil {
		return err
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if err := ix.backing.prepare(0); err != nil {
		return err
	}
	return writable(ix.dir)
}
