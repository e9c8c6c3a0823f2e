package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"forebay/cache/disk"
	"forebay/cache/index"
	"forebay/internal/statefile"
)

// Names below the storage folder; the store has its own (package disk).
const (
	indexDirName = "index"
	journalName  = "refs.journal"
	// placeName is a file that says where the index is. An index elsewhere may be older
	// than the blobs: it was left behind when the setting changed.
	placeName = "index.place"
)

// indexOptions says where the index is: the journal, from which it can be rebuilt, stays
// with the blobs wherever the database is.
func (o Options) indexOptions() index.Options {
	return index.Options{
		Dir: filepath.Join(o.indexHome(), indexDirName), Journal: filepath.Join(o.Dir, journalName),
		Log: o.Log, Fault: o.indexFault(),
	}
}

func (o Options) indexFault() index.Fault {
	if o.Fault == nil {
		return nil
	}
	return func(step index.Step, name string) error { return o.Fault("index "+string(step), name) }
}

func (o Options) indexHome() string {
	if o.IndexDir == "" {
		return o.Dir
	}
	return o.IndexDir
}

// placeIndex takes the index along when the setting of its place has changed, and reports
// whether the one that is used now may be older than the blobs. The store is locked, and locks the
// place: two indexes in one would be neither's.
func (o Options) placeIndex(files *disk.Store) (indexMayLag bool, err error) {
	if o.IndexDir != "" {
		if err := files.AlsoLock(o.IndexDir); err != nil {
			return false, fmt.Errorf("folder of the index: %w", err)
		}
	}
	here, err := filepath.Abs(o.indexHome())
	if err != nil {
		return false, err
	}
	note := filepath.Join(o.Dir, placeName)
	was, err := os.ReadFile(note)
	switch {
	case err == nil && string(bytes.TrimSpace(was)) == here:
		return false, nil
	case errors.Is(err, fs.ErrNotExist) && o.IndexDir == "":
		return false, nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	from := o.Dir
	if len(was) > 0 {
		from = string(bytes.TrimSpace(was))
	}
	if err := index.Move(filepath.Join(from, indexDirName), filepath.Join(here, indexDirName)); err != nil {
		return true, fmt.Errorf("move the index from %q to %q: %w", from, here, err)
	}
	return true, statefile.Replace(note, []byte(here+"\n"))
}
