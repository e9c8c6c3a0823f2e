package index

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/dgraph-io/badger/v4"
)

// Move moves a database that is not open. One that is at its goal already is replaced: the other was
// used last.
func Move(from, to string) error {
	if _, err := os.Lstat(filepath.Join(from, badger.ManifestFilename)); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // there is none: it is made, or rebuilt
		}
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if os.Rename(from, to) == nil {
		return nil
	}
	// Another file system. A copy that was cut has no manifest at its place yet.
	part := to + newSuffix
	if err := os.RemoveAll(part); err != nil {
		return err
	}
	if err := os.CopyFS(part, os.DirFS(from)); err != nil {
		return errors.Join(err, os.RemoveAll(part))
	}
	if err := os.Rename(part, to); err != nil {
		return err
	}
	return os.RemoveAll(from)
}
