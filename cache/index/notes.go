package index

import (
	"fmt"

	"forebay/cache/index/row"
)

// maxNote bounds a note: small next to what a transaction may hold.
const maxNote = 512 << 10

// Note returns a small piece of bookkeeping by its name.
func (ix *Index) Note(name string) ([]byte, bool, error) {
	key, err := row.NoteKey(name)
	return lookup(ix, "note", name, key, err, func(v []byte) ([]byte, error) { return append([]byte(nil), v...), nil })
}

// PutNote keeps a piece of bookkeeping, at most 512 KiB, in place of the one before. A
// rebuild loses it.
func (b *Batch) PutNote(name string, note []byte) error {
	key, err := row.NoteKey(name)
	if err != nil {
		return err
	}
	if len(note) > maxNote {
		return fmt.Errorf("note %q of %d bytes: %w", name, len(note), ErrTooBig)
	}
	note = append([]byte(nil), note...)
	b.steps = append(b.steps, func(w *writer) error { return w.set(key, note) })
	return nil
}
