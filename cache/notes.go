package cache

import "forebay/cache/index"

// Note returns a small piece of bookkeeping that PutNote kept, by its name.
func (c *Cache) Note(name string) ([]byte, bool, error) { return c.index.Note(outsideNotes + name) }

// PutNote keeps a piece of bookkeeping of others, at most 512 KiB, in place of the one
// before. A rebuild of the index loses it.
func (c *Cache) PutNote(name string, note []byte) error {
	return c.index.Update(func(b *index.Batch) error { return b.PutNote(outsideNotes+name, note) })
}

// outsideNotes sets the names of others apart from the cache's own.
const outsideNotes = "outside."
