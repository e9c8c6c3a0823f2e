//go:build !linux

package disk

import (
	"errors"
	"io/fs"
	"os"
)

// A store is of Linux only: elsewhere [Open] cannot lock it, and nothing else is called.

func lock(*os.File) error { return errors.ErrUnsupported }

func fdatasync(f *os.File) error { return f.Sync() }

func syncFileSystem(*os.File) error { return errors.ErrUnsupported }

func writeBackError(f *os.File) error { return f.Sync() }

func startWriteBack(*os.File, int64, int64) error { return nil }

func openBeneath(*os.File, string, int) (*os.File, error) { return nil, errors.ErrUnsupported }

func statBeneath(*os.File, string) (int64, bool, error) { return 0, false, errors.ErrUnsupported }

func renameBeneath(*os.File, string, string) error { return errors.ErrUnsupported }

func allocated(info fs.FileInfo) int64 { return info.Size() }

func linked(fs.FileInfo) bool { return true }

func linkInto(*os.File, *os.File, string) error { return ErrNoLink }

func room(*os.File) (free, total uint64, err error) { return 0, 0, errors.ErrUnsupported }

// Owner is not known.
func Owner(string) (uid uint32, err error) { return 0, errors.ErrUnsupported }

// Room is not known.
func Room(string) (free, total uint64, err error) { return 0, 0, errors.ErrUnsupported }

// Uncache asks the kernel to let go of what it keeps in memory of a file.
func Uncache(*os.File) error { return errors.ErrUnsupported }

// IdleIO makes the calling thread read and write only when the disk has nothing else to do.
func IdleIO() error { return errors.ErrUnsupported }
