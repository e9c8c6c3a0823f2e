package index

import (
	"fmt"
	"time"

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
		d, err := row.DecodeDecision(v)
		if err != nil {
			return nil
		}
		d.Name = string(key[1:])
		return fn(d)
	})
}

// Decide keeps what an operator decided, now if it has no time, in place of what has the same name. It
// survives a rebuild.
func (b *Batch) Decide(d Decision) error {
	if d.At.IsZero() {
		d.At = time.Now()
	}
	if err := d.Check(); err != nil {
		return fmt.Errorf("keep decision: %w", err)
	}
	return b.decision(d.Name, func(w *writer, key []byte, _ Decision) error {
		w.record(journal.DecisionLine(d))
		return w.set(key, d.Encode())
	})
}

// Undecide forgets a decision.
func (b *Batch) Undecide(name string) error {
	return b.decision(name, func(w *writer, key []byte, old Decision) error {
		w.lines = append(w.lines, journal.UndecideLine(name, removed(old.At))...)
		return w.delete(key)
	})
}

// decision retires what has a name, and makes a change.
func (b *Batch) decision(name string, change func(w *writer, key []byte, old Decision) error) error {
	key, err := row.DecisionKey(name)
	if err != nil {
		return fmt.Errorf("forget decision: %w", err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, row.DecodeDecision)
		if err != nil {
			return err
		}
		if known {
			old.Name = name
			w.retire(journal.DecisionLine(old))
		}
		return change(w, key, old)
	})
	return nil
}
