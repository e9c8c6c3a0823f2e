package index

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"forebay/cache/index/journal"
	"forebay/cache/index/row"
)

// Mark is a place in the journal.
type Mark = row.Mark

// shippedNote names what [Index.Shipped] wrote down. A rebuild loses it, and all is shipped again.
const shippedNote = "shipped"

// Ship says that the lines of the journal are kept elsewhere, too: removals that were not shipped
// outlive its compaction from now on.
func (ix *Index) Ship() error {
	var at Mark
	note, ok, err := ix.Note(shippedNote)
	if ok && err == nil {
		err = json.Unmarshal(note, &at)
	}
	if err != nil && !errors.Is(err, row.ErrRecord) {
		return fmt.Errorf("learn what was shipped: %w", err)
	}
	ix.journal.Ship(at)
	return nil
}

// Unshipped returns whole lines of the journal that were not shipped, at most some bytes of them, and
// their end for [Index.Shipped]; none when all were. After a compaction these are the lines of all
// that there is, and of removals.
func (ix *Index) Unshipped(most int64) ([]byte, Mark, error) { return ix.journal.Unshipped(most) }

// AllShipped reports whether no line waits to be.
func (ix *Index) AllShipped() bool { return ix.journal.AllShipped() }

// Shipped says that all lines before end are kept elsewhere. The zero Mark says that none are.
func (ix *Index) Shipped(end Mark) error {
	note, err := json.Marshal(end)
	if err == nil {
		err = ix.Update(func(b *Batch) error { return b.PutNote(shippedNote, note) })
	}
	if err == nil {
		ix.journal.Ship(end)
	}
	return err
}

// Restore takes in what was shipped once: up to some thousand entries, those of a tag in one call and in
// the order of their time. What is known already is newer and stays as it is. The lines that this
// makes need not be shipped again if all before them was.
func (ix *Index) Restore(all []journal.Entry) error {
	var b Batch
	ours := map[string]bool{} // put by this batch
	for _, e := range all {
		key, err := entryKey(e)
		var inner Batch
		if err == nil {
			err = change(e, &inner)
		}
		if err != nil {
			return fmt.Errorf("restore index: %w", err)
		}
		b.steps = append(b.steps, func(w *writer) error {
			if _, err := w.txn.Get(key); !errors.Is(err, badger.ErrKeyNotFound) && !ours[string(key)] {
				return err
			}
			ours[string(key)] = true
			for _, step := range inner.steps {
				if err := step(w); err != nil {
					return err
				}
			}
			return nil
		})
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	shipped := ix.journal.AllShipped()
	if err := ix.apply(b.steps); err != nil {
		return fmt.Errorf("restore index: %w", err)
	}
	if shipped {
		ix.journal.Ship(ix.journal.At())
	}
	return nil
}

// entryKey returns the key of the record that an entry is about.
func entryKey(e journal.Entry) ([]byte, error) {
	switch {
	case e.Pin.Ref != "":
		return row.PinKey(e.Pin.Repo, e.Pin.Ref)
	case e.Decision.Name != "":
		return row.DecisionKey(e.Decision.Name)
	case e.Tag != "":
		return row.TagKey(e.Repo, e.Tag)
	}
	return row.LinkKey(e.Repo, e.Kind, e.Desc.Digest)
}

// Restored says that [Index.Restore] was given all there is.
func (ix *Index) Restored() error { return ix.Shipped(ix.journal.Shipped()) }
