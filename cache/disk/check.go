package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// errReplaced: the name of the store's folder leads elsewhere.
var errReplaced = errors.New("the folder was removed or replaced while it is in use")

// Check returns why the store cannot be read, or nil: its folder is gone, is not the one
// that was opened, or its blobs cannot be listed. It touches no blob.
func (s *Store) Check() error {
	if err := s.check(); err != nil {
		return fmt.Errorf("read store %q: %w", s.dir, err)
	}
	return nil
}

func (s *Store) check() error {
	opened, err := s.root.Stat(".")
	if err != nil {
		return err
	}
	named, err := os.Stat(s.dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(opened, named) {
		return errReplaced
	}
	if err != nil {
		return err
	}
	f, err := s.root.Open(blobsDir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
