//go:build linux

package blocks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"forebay/cache/index/durable"
	"forebay/internal/logkey"
)

// The database makes its files sparse, maps them, and writes into the mapping. When the
// disk cannot give a block at that moment, the kernel ends the process (SIGBUS), in a
// goroutine where nobody can recover. An error in place of the mapping is no better: after
// one, a compaction drops the keys of the table that it could not write, and a new log that
// cannot be begun leaves a database without one. So a file gets its blocks before it is
// mapped, and where there are none:
//
//   - a table, which a goroutine of the database writes in its own time, waits until the
//     disk has room. Changes are refused meanwhile, reads go on.
//   - a log, which is begun in the middle of a change, takes the place of a spare file that
//     has its blocks already. No change that may begin one is made without a spare.
//   - the log grows before a change is begun, or the change is refused.
//
// File systems that give no blocks ahead (EOPNOTSUPP) have only the guard of [Room].

const (
	// logAhead is what a log is given more than the change needs that it is given for.
	logAhead = 256 << 10
	// firstPage is what a value log has, of which only the header is ever written, and the
	// database's list of what could be discarded: a page of memory, which may be 64 KiB.
	firstPage = 64 << 10
	// manifestAhead is more than the lines that one new table, or one compaction, adds.
	manifestAhead = 64 << 10
	// spareless is what a new log may take without a spare: it is far from full.
	spareless = 1 << 20
	// logsMost is how many logs may be there, the newest included, when a change is begun:
	// each has its 21 MiB of memory until its table is written.
	logsMost = 3
)

// The spares, which are kept for a disk without room: for a value log and for a log.
const (
	sparePage = iota
	spareLog
)

// Backing gives the files of one open database their blocks.
type Backing struct {
	dir  string   // as the kernel names it
	lock *os.File // the folder, which is locked
	log  *zap.Logger

	mu      sync.Mutex
	none    bool     // guarded by mu; the file system gives no blocks ahead
	newest  *os.File // guarded by mu; the log that is written; nil before the first
	given   int64    // guarded by mu; bytes that it has
	used    int64    // guarded by mu; bytes of it that may be written
	next    int64    // guarded by mu; bytes of the change under way
	begun   bool     // guarded by mu; a log was begun since the last look at their number
	missing bool     // guarded by mu; a spare is
	sizes   [2]int64 // guarded by mu; of the spares
	waiting int      // guarded by mu; tables
	refused error    // guarded by mu; why a file could not be begun
}

// Open locks and prepares the folder of a database that is about to be opened. The
// error is [ErrUnwritable] when there are no spares and no room for them.
func Open(dir string, log *zap.Logger) (*Backing, error) {
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(lock.Fd())))
	if err != nil {
		path = dir // there is only the guard
	}
	b := &Backing{dir: path, lock: lock, log: log, sizes: [2]int64{sparePage: firstPage, spareLog: logAhead}}
	if err := b.begin(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	seizeMapper()
	backings.Store(b.dir, b)
	return b, nil
}

// lockFolder locks the folder of a database until what it returns is closed. The lock is
// the database's own; its file with the number of the process, which nobody reads, needs
// room that a full disk has not.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %q, which another process uses: %w", dir, err), f.Close())
	}
	return f, nil
}

func (b *Backing) begin() error {
	// What versions before this one kept aside.
	if err := durable.RemoveIfThere(filepath.Join(b.dir, "reserve")); err != nil {
		return err
	}
	if err := b.recycle(); err != nil {
		return err
	}
	err := b.makeSpares()
	if err == nil {
		err = b.makeDiscards()
	}
	if Full(err) {
		return fmt.Errorf("%w: %w", ErrUnwritable, err)
	}
	return err
}

// Close forgets a database that is closed. Its spares stay, for a start on a full disk.
func (b *Backing) Close() error {
	backings.CompareAndDelete(b.dir, b)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.newest == nil {
		return b.lock.Close()
	}
	return errors.Join(b.newest.Close(), b.lock.Close())
}

// recycle makes spares of logs that have no entry, as a process leaves them that was ended
// on a full disk, and removes files that were made and not begun.
func (b *Backing) recycle() error {
	for spare, pattern := range []string{"*.vlog", "*.mem"} {
		names, err := filepath.Glob(filepath.Join(b.dir, pattern))
		if err != nil {
			return err
		}
		for _, name := range names {
			info, err := os.Stat(name)
			if err != nil {
				return err
			}
			if info.Size() == 0 {
				err = os.Remove(name)
			} else if empty(name, b.sizes[spare]) {
				err = b.keep(name, spare)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// logHeader is of a log and a value log: an id and what keys are made from.
const logHeader = 20

// empty reports whether the first bytes of a log, of which it has the blocks, are a header and nothing else.
func empty(name string, size int64) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close()
	if !backed(f, size) {
		return false
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil {
		return false
	}
	return len(bytes.TrimLeft(b[logHeader:], "\x00")) == 0
}

// backed reports whether a file has blocks for so many bytes.
func backed(f *os.File, size int64) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Size >= size && st.Blocks*512 >= size
}

// keep makes a log without entries a spare.
func (b *Backing) keep(name string, spare int) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, logHeader), 0); err != nil {
		return err
	}
	if err := f.Truncate(b.sizes[spare]); err != nil {
		return err
	}
	return os.Rename(name, b.spare(spare))
}

func (b *Backing) spare(n int) string {
	return filepath.Join(b.dir, [...]string{sparePage: "spare-page", spareLog: "spare-log"}[n])
}

// makeSpares makes those that are not there. Its caller holds b.mu or is alone.
func (b *Backing) makeSpares() error {
	b.missing = true
	for n, size := range b.sizes {
		f, err := os.OpenFile(b.spare(n), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return err
		}
		if !backed(f, size) {
			err = b.give(f, size)
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return errors.Join(err, os.Remove(b.spare(n)))
		}
	}
	b.missing = false
	return nil
}

// give gives a new file its first bytes, or none.
func (b *Backing) give(f *os.File, size int64) error {
	err := f.Truncate(size)
	if err == nil {
		err = b.allocate(f, 0, 0, size)
	}
	if err != nil {
		return errors.Join(err, f.Truncate(0))
	}
	return nil
}

// makeDiscards makes the list of what could be discarded, or gives it its first page: the
// database ends the process when it cannot.
func (b *Backing) makeDiscards() error {
	name := filepath.Join(b.dir, "DISCARD")
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	if size == 0 { // new, or not begun
		size = 1 << 20
		err = f.Truncate(size)
	}
	if err == nil {
		err = b.allocate(f, 0, 0, min(size, firstPage))
	}
	if err != nil && info.Size() == 0 {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// allocate is fallocate, but for file systems that do not know it.
func (b *Backing) allocate(f *os.File, mode uint32, off, n int64) error {
	for {
		err := unix.Fallocate(int(f.Fd()), mode, off, n)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			b.none = true
			return nil
		}
		return os.NewSyscallError("fallocate", err)
	}
}

// Full reports whether a disk, or what a user may take of it, is.
func Full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// mapped gives a file of the database its blocks. It is called in whatever goroutine of
// the database maps the file.
func (b *Backing) mapped(fd int, name string, length int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Blocks > 0 {
		return nil // not new: it is read, or cut
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(dup), name)
	if filepath.Ext(name) == ".sst" {
		defer f.Close()
		b.await(f, length)
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	isLog := filepath.Ext(name) == ".mem"
	spare, given := sparePage, min(length, firstPage)
	if isLog {
		spare, given = spareLog, b.next+logAhead
	}
	err = b.allocate(f, 0, 0, given)
	if Full(err) {
		given = b.sizes[spare]
		f, err = b.swap(fd, f, spare, length)
	}
	if err != nil {
		b.refused = fmt.Errorf("begin %q: %w", filepath.Base(name), err)
		return errors.Join(b.refused, f.Truncate(0), f.Close())
	}
	if !isLog {
		return f.Close()
	}
	if b.newest != nil {
		_ = b.newest.Close() // nothing was written through it
	}
	b.newest, b.given, b.used, b.begun = f, given, b.next+logHeader, true
	return nil
}

// swap puts a spare into the place of a new file, its descriptor included, and returns it. Its
// caller holds b.mu.
func (b *Backing) swap(fd int, f *os.File, spare int, length int64) (*os.File, error) {
	s, err := os.OpenFile(b.spare(spare), os.O_RDWR, 0)
	if err != nil {
		return f, unix.ENOSPC
	}
	b.missing = true
	err = s.Truncate(length) // beyond what is given there is a hole, which is not written
	if err == nil {
		err = os.Rename(s.Name(), f.Name())
	}
	if err == nil {
		err = os.NewSyscallError("dup3", unix.Dup3(int(s.Fd()), fd, unix.O_CLOEXEC))
	}
	if err != nil {
		return f, errors.Join(err, s.Close())
	}
	return s, f.Close()
}

// await returns when a new table has its blocks, and the manifest those for the lines that
// follow. It may wait for ever, as what the database does with an error is worse.
func (b *Backing) await(f *os.File, length int64) {
	for tries := 0; ; tries++ {
		err := b.tryTable(f, length)
		if !Full(err) { // what else the disk says, it says to the mapping too
			if tries > 0 {
				b.waits(-1)
				b.log.Info("index has room again")
			}
			return
		}
		if tries == 0 {
			b.waits(1)
			b.log.Warn("index waits for room on its disk", logkey.Path(b.dir), logkey.Bytes(length), logkey.Err(err))
		}
		<-time.After(TableRetry)
	}
}

func (b *Backing) waits(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting += n
}

func (b *Backing) tryTable(f *os.File, length int64) error {
	// Not to take the last blocks from others each time in vain.
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) == nil && int64(min(st.Bfree, 1<<40))*int64(st.Bsize) < length {
		return unix.ENOSPC
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.allocate(f, 0, 0, length); err != nil {
		return errors.Join(err, f.Truncate(0), f.Truncate(length))
	}
	m, err := os.OpenFile(filepath.Join(b.dir, "MANIFEST"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer m.Close()
	info, err := m.Stat()
	if err != nil {
		return err
	}
	return b.allocate(m, unix.FALLOC_FL_KEEP_SIZE, info.Size(), manifestAhead)
}

// Prepare returns when a change that writes up to n bytes can be made, whatever happens to
// the disk meanwhile, or [ErrUnwritable]. Changes are made one at a time.
func (b *Backing) Prepare(n int64) error {
	if err := b.awaitTables(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.none || b.newest == nil {
		return nil
	}
	if b.used+n > spareless {
		if err := b.spareFor(n); err != nil {
			return fmt.Errorf("%w: keep a spare: %w", ErrUnwritable, err)
		}
	} else if b.missing {
		_ = b.makeSpares() // no harm yet
	}
	if need := b.used + n; need > b.given {
		need += logAhead
		if err := b.allocate(b.newest, unix.FALLOC_FL_KEEP_SIZE, b.given, need-b.given); err != nil {
			return fmt.Errorf("%w: extend the log: %w", ErrUnwritable, err)
		}
		b.given = need
	}
	b.used += n
	b.next = n
	return nil
}

// spareFor sees to a spare that takes a change of n bytes. Its caller holds b.mu.
func (b *Backing) spareFor(n int64) error {
	if b.missing {
		if err := b.makeSpares(); err != nil {
			return err
		}
	}
	old, need := b.sizes[spareLog], 2*n
	if need <= old {
		return nil
	}
	f, err := os.OpenFile(b.spare(spareLog), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := b.allocate(f, 0, 0, need); err != nil {
		return errors.Join(err, f.Truncate(old))
	}
	b.sizes[spareLog] = need
	return nil
}

// awaitTables waits while the database is slower with its tables than changes come.
func (b *Backing) awaitTables() error {
	for {
		b.mu.Lock()
		begun, err := b.begun, b.ready()
		b.mu.Unlock()
		if err != nil || !begun {
			return err
		}
		logs, err := filepath.Glob(filepath.Join(b.dir, "*.mem"))
		if err == nil && len(logs) > logsMost {
			<-time.After(10 * time.Millisecond)
			continue
		}
		b.mu.Lock()
		b.begun = false
		b.mu.Unlock()
		return err
	}
}

// ready returns ErrUnwritable while a table waits. Its caller holds b.mu.
func (b *Backing) ready() error {
	if b.waiting > 0 {
		return fmt.Errorf("%w: %d tables wait for room on the disk: %w", ErrUnwritable, b.waiting, unix.ENOSPC)
	}
	return nil
}

// Stalled returns ErrUnwritable while a table waits for room.
func (b *Backing) Stalled() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready()
}

// Refusal returns why a file could not be begun, or nil.
func (b *Backing) Refusal() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.refused
}

// roomShare bounds what must be free on a small file system.
const roomShare = 8

// Room returns [ErrUnwritable] unless so many bytes, or an eighth of it all, are free.
func Room(dir string, need int64) error {
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
	need = min(need, int64(min(st.Blocks, 1<<40))*block/roomShare)
	if free < need {
		return fmt.Errorf("%w: %q has %d MiB left and %d are needed: %w", ErrUnwritable, dir, free>>20, need>>20, unix.ENOSPC)
	}
	return nil
}

// Log returns the log that is written, how much of it may be, and what it has. It is for tests.
func (b *Backing) Log() (name string, used, given int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.newest.Name(), b.used, b.given
}
