package index

import (
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"forebay/cache/index/journal"
	"forebay/cache/index/row"
)

// Pins calls fn for every pin, sorted by repository and reference. [ErrStop] ends it well.
func (ix *Index) Pins(fn func(Pin) error) error {
	return stopped(ix.view(func(txn *badger.Txn) error { return scanPins(txn, fn) }))
}

func scanPins(txn *badger.Txn, fn func(Pin) error) error {
	return scan(txn, []byte{row.PrefixPin}, nil, func(key, v []byte) error {
		r, ref, err := row.CutRepo(key[1:])
		if err != nil {
			return nil
		}
		p, err := row.DecodePin(v)
		if err != nil {
			return nil
		}
		p.Repo, p.Ref = r, string(ref)
		return fn(p)
	})
}

// PutPin keeps a pin, in place of one of the same reference. Pins survive a rebuild.
func (b *Batch) PutPin(p Pin) error {
	key, err := row.PinKey(p.Repo, p.Ref)
	if err == nil {
		err = p.Check()
	}
	if err != nil {
		return fmt.Errorf("pin %s: %w", p.Repo, err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, row.DecodePin)
		if err != nil {
			return err
		}
		if known {
			old.Repo, old.Ref = p.Repo, p.Ref
			w.retire(journal.PinLine(old))
		}
		w.record(journal.PinLine(p))
		return w.set(key, p.Encode())
	})
	return nil
}

// DeletePin forgets a pin.
func (b *Batch) DeletePin(r Repo, ref string) error {
	key, err := row.PinKey(r, ref)
	if err != nil {
		return fmt.Errorf("unpin: %w", err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, row.DecodePin)
		if err != nil || !known {
			return err
		}
		old.Repo, old.Ref = r, ref
		w.retire(journal.PinLine(old))
		w.lines = append(w.lines, journal.UnpinLine(r, ref, removed(old.At))...)
		return w.delete(key)
	})
	return nil
}
