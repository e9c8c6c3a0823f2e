//go:build unix && !linux

package disk

import (
	"errors"
	"os"
)

func fdatasync(f *os.File) error { return f.Sync() }

func syncFileSystem(*os.File) error { return errors.ErrUnsupported }

func writeBackError(f *os.File) error { return f.Sync() }

func startWriteBack(*os.File, int64, int64) error { return nil }

func openBeneath(*os.File, string, int) (*os.File, error) { return nil, errors.ErrUnsupported }
