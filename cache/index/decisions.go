package index

import (
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"forebay/cache/index/journal"
	"forebay/cache/index/row"
)

// Decisions calls fn for what operators decided whose names begin with prefix, sorted by name.
// [ErrStop] ends it well.
func (ix *Index) Decisions(prefix string, fn func(Decision) error) error {
	return stopped(ix.view(func(txn *badger.Txn) error { return scanDecisions(txn, prefix, fn) }))
}

func scanDecisions(txn *badger.Txn, prefix string, fn func(Decision) error) error {
	return scan(txn, append([]byte{row.PrefixDecision}, prefix...), nil, func(key, v []byte) error {
		return fn(Decision{Name: string(key[1:]), Text: string(v)})
	})
}

// Decide keeps what an operator decided, in place of what has the same name. It survives a rebuild.
func (b *Batch) Decide(d Decision) error {
	if err := d.Check(); err != nil {
		return fmt.Errorf("keep decision: %w", err)
	}
	return b.decision(d.Name, func(w *writer, key []byte) error {
		w.record(journal.DecisionLine(d))
		return w.set(key, []byte(d.Text))
	})
}

// Undecide forgets a decision.
func (b *Batch) Undecide(name string) error {
	return b.decision(name, func(w *writer, key []byte) error {
		w.lines = append(w.lines, journal.UndecideLine(name)...)
		return w.delete(key)
	})
}

// decision retires what has a name, and makes a change.
func (b *Batch) decision(name string, change func(w *writer, key []byte) error) error {
	key, err := row.DecisionKey(name)
	if err != nil {
		return fmt.Errorf("forget decision: %w", err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, func(v []byte) (string, error) { return string(v), nil })
		if err != nil {
			return err
		}
		if known {
			w.retire(journal.DecisionLine(Decision{Name: name, Text: old}))
		}
		return change(w, key)
	})
	return nil
}
