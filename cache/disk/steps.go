package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// Step is one change of the disk. All changes that the store makes go through the
// functions of this file, so that a test can cut or fail each.
type Step string

// The steps.
const (
	StepCreate   Step = "create"
	StepWrite    Step = "write"
	StepTruncate Step = "truncate"
	StepSync     Step = "sync"
	StepChmod    Step = "chmod"
	StepMkdir    Step = "mkdir"
	StepRename   Step = "rename"
	StepSyncDir  Step = "syncdir"
	StepSyncAll  Step = "syncall"
	StepRemove   Step = "remove"
)

// Fault is asked before each step on a file or folder of the store; its error is returned
// in place of doing the step. It may also end the process. It must not call the store.
type Fault func(step Step, name string) error

// SetFault sets what is asked before each step. It is for tests only and must be called
// before the store is used; nil, the default, asks nobody.
func (s *Store) SetFault(f Fault) { s.fault = f }

func (s *Store) before(step Step, name string) error {
	if s.fault == nil {
		return nil
	}
	if err := s.fault(step, name); err != nil {
		return &fs.PathError{Op: string(step), Path: name, Err: err}
	}
	return nil
}

// create opens a new file for reading and writing. It is an error if the name is taken.
func (s *Store) create(name string, mode fs.FileMode) (*os.File, error) {
	if err := s.before(StepCreate, name); err != nil {
		return nil, err
	}
	f, err := s.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, fs.ErrNotExist) && s.mkdir(path.Dir(name)) == nil { // somebody removed its folder
		f, err = s.root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
	}
	return f, err
}

func (s *Store) writeAt(f *os.File, name string, b []byte, off int64) (int, error) {
	if err := s.before(StepWrite, name); err != nil {
		return 0, err
	}
	return f.WriteAt(b, off)
}

func (s *Store) truncate(f *os.File, name string, size int64) error {
	if err := s.before(StepTruncate, name); err != nil {
		return err
	}
	return f.Truncate(size)
}

// sync makes the bytes of f survive a loss of power.
func (s *Store) sync(f *os.File, name string) error {
	if err := s.before(StepSync, name); err != nil {
		return err
	}
	return fdatasync(f)
}

// syncAll makes all that was written and named before survive a loss of power, if the file
// system lets that be done by one call. Of files that it could not write only wasSynced tells.
func (s *Store) syncAll() error {
	if err := s.before(StepSyncAll, "."); err != nil {
		return err
	}
	return syncFileSystem(s.top)
}

// wasSynced returns why the bytes of f did not survive a syncAll, or nil.
func (s *Store) wasSynced(f *os.File, name string) error {
	if err := s.before(StepSync, name); err != nil {
		return err
	}
	return writeBackError(f)
}

func (s *Store) chmod(name string, mode fs.FileMode) error {
	if err := s.before(StepChmod, name); err != nil {
		return err
	}
	return s.root.Chmod(name, mode)
}

func (s *Store) mkdir(name string) error {
	if err := s.before(StepMkdir, name); err != nil {
		return err
	}
	return s.root.Mkdir(name, dirMode)
}

func (s *Store) rename(from, to string) error {
	if err := s.before(StepRename, to); err != nil {
		return err
	}
	if err := renameBeneath(s.top, from, to); err == nil || errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.root.Rename(from, to)
}

// removeIfThere removes a file. A file that is not there is no error.
func (s *Store) removeIfThere(name string) error {
	if err := s.before(StepRemove, name); err != nil {
		return err
	}
	if err := s.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// syncDir makes the names in a folder survive a loss of power.
func (s *Store) syncDir(name string) error {
	if err := s.before(StepSyncDir, name); err != nil {
		return err
	}
	f, err := s.root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// writeFile writes a new file, synced if durable.
func (s *Store) writeFile(name string, b []byte, durable bool) error {
	f, err := s.create(name, partialMode)
	if err != nil {
		return err
	}
	_, err = s.writeAt(f, name, b, 0)
	if err == nil && durable {
		err = s.sync(f, name)
	}
	return errors.Join(err, f.Close())
}

// readSmall reads a file of at most limit bytes.
func (s *Store) readSmall(name string, limit int64) ([]byte, error) {
	f, info, err := s.openRegular(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readLimited(f, info, limit)
}

// readLimited reads an open file of at most limit bytes.
func readLimited(f *os.File, info fs.FileInfo, limit int64) ([]byte, error) {
	if info.Size() > limit {
		return nil, fmt.Errorf("%q has %d bytes, at most %d are read", f.Name(), info.Size(), limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}
