package index

import (
	"fmt"
	"strings"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// Pin is the wish that an image is kept whole.
type Pin struct {
	Repo      Repo
	Ref       string   // tag, or digest
	Platforms []string // "linux/arm64"; none means those that are kept
	At        time.Time
}

func (p Pin) encode() []byte {
	e := newEncoder().time(p.At).int(int64(len(p.Platforms)))
	for _, name := range p.Platforms {
		e = e.text(name)
	}
	return e
}

// maxPlatforms bounds the platforms of a pin; no index is known that has more than 20.
const maxPlatforms = 64

// decodePin returns a pin without what its key says.
func decodePin(v []byte) (Pin, error) {
	d := newDecoder(v)
	p := Pin{At: d.time()}
	n := d.int()
	if n < 0 || n > maxPlatforms {
		return Pin{}, errRecord
	}
	for range n {
		p.Platforms = append(p.Platforms, d.text())
	}
	return p, d.done()
}

func pinKey(r Repo, ref string) ([]byte, error) {
	b, err := repoKey(prefixPin, r)
	if err != nil {
		return nil, err
	}
	if err := checkName("pinned reference", ref); err != nil {
		return nil, err
	}
	return append(b, ref...), nil
}

func (p Pin) check() error {
	if len(p.Platforms) > maxPlatforms {
		return fmt.Errorf("%d platforms are more than %d", len(p.Platforms), maxPlatforms)
	}
	for _, name := range p.Platforms {
		if err := checkName("platform", name); err != nil {
			return err
		}
		if strings.Contains(name, ",") {
			return fmt.Errorf("platform %.80q has a comma", name)
		}
	}
	return nil
}

// Pins calls fn for every pin, sorted by repository and reference. [ErrStop] ends it well.
func (ix *Index) Pins(fn func(Pin) error) error {
	return stopped(ix.view(func(txn *badger.Txn) error { return scanPins(txn, fn) }))
}

func scanPins(txn *badger.Txn, fn func(Pin) error) error {
	return scan(txn, []byte{prefixPin}, nil, func(key, v []byte) error {
		r, ref, err := cutRepo(key[1:])
		if err != nil {
			return nil
		}
		p, err := decodePin(v)
		if err != nil {
			return nil
		}
		p.Repo, p.Ref = r, string(ref)
		return fn(p)
	})
}

// PutPin keeps a pin, in place of one of the same reference. Pins survive a rebuild.
func (b *Batch) PutPin(p Pin) error {
	key, err := pinKey(p.Repo, p.Ref)
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return fmt.Errorf("pin %s: %w", p.Repo, err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, decodePin)
		if err != nil {
			return err
		}
		if known {
			old.Repo, old.Ref = p.Repo, p.Ref
			w.retire(pinLine(old))
		}
		w.record(pinLine(p))
		return w.set(key, p.encode())
	})
	return nil
}

// DeletePin forgets a pin.
func (b *Batch) DeletePin(r Repo, ref string) error {
	key, err := pinKey(r, ref)
	if err != nil {
		return fmt.Errorf("unpin: %w", err)
	}
	b.steps = append(b.steps, func(w *writer) error {
		old, known, err := read(w, key, decodePin)
		if err != nil || !known {
			return err
		}
		old.Repo, old.Ref = r, ref
		w.retire(pinLine(old))
		w.lines = append(w.lines, unpinLine(r, ref)...)
		return w.delete(key)
	})
	return nil
}

func pinLine(p Pin) []byte {
	return line("+pin", p.Repo.Upstream, p.Repo.Name, p.Ref, number(millis(p.At)), strings.Join(p.Platforms, ","))
}

func unpinLine(r Repo, ref string) []byte { return line("-pin", r.Upstream, r.Name, ref) }
