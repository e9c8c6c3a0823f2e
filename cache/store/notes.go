package store

import (
	"forebay/cache/index"
)

// Note returns a small piece of bookkeeping that PutNote kept, by its name.
func (s *Store) Note(name string) ([]byte, bool, error) { return s.Index.Note(outsideNotes + name) }

// PutNote keeps a piece of bookkeeping of others, at most 512 KiB, in place of the one
// before. A rebuild of the index loses it.
func (s *Store) PutNote(name string, note []byte) error {
	return s.Index.Update(func(b *index.Batch) error { return b.PutNote(outsideNotes+name, note) })
}

// outsideNotes sets the names of others apart from the cache's own.
const outsideNotes = "outside."
