package journal

import (
	"bytes"
	"fmt"
	"io"

	"forebay/cache/index/row"
)

// Ship has removals that were not shipped outlive rewrites: they take away what was shipped
// before. Lines up to a place have been.
func (j *Journal) Ship(to row.Mark) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.shipping, j.shipped = true, to
}

// Shipped returns up to where lines were shipped.
func (j *Journal) Shipped() row.Mark {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.shipped
}

// AllShipped reports whether no line waits to be shipped, nor a rewrite that brings back those that
// were lost.
func (j *Journal) AllShipped() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return !j.spoiled && j.firstUnshipped() >= j.size
}

// firstUnshipped returns where the lines begin that were not shipped.
func (j *Journal) firstUnshipped() int64 {
	if j.shipped.Run != j.run || j.run == 0 {
		return HeaderSize
	}
	return max(j.shipped.Off, HeaderSize)
}

// Unshipped returns whole lines that were not shipped, up to most bytes, and where they end. After a
// rewrite these are all lines.
func (j *Journal) Unshipped(most int64) ([]byte, row.Mark, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines, end, err := j.linesFrom(j.firstUnshipped(), most)
	return lines, row.Mark{Run: j.run, Off: end}, err
}

// linesFrom returns whole lines from a place on, and where they end. It is called under mu, so that
// no rewrite takes the file away.
func (j *Journal) linesFrom(off, most int64) ([]byte, int64, error) {
	b := make([]byte, max(min(j.size-off, most), 0))
	if len(b) == 0 {
		return nil, j.size, nil
	}
	if _, err := j.f.ReadAt(b, off); err != nil {
		return nil, off, fmt.Errorf("read journal: %w", err)
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	if len(b) == 0 { // damage: no line of ours is as long
		return nil, min(off+most, j.size), nil
	}
	return b, off + int64(len(b)), nil
}

// linesAtOnce is how much of the journal a rewrite looks at in one go.
const linesAtOnce = 1 << 20

// unshippedRemovals returns the lines of removals that a rewrite is to keep.
func (j *Journal) unshippedRemovals() (kept []byte, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.shipping {
		return nil, nil
	}
	for off := j.firstUnshipped(); off < j.size; {
		lines, end, err := j.linesFrom(off, linesAtOnce)
		if err != nil {
			return nil, err
		}
		for l := range bytes.Lines(lines) {
			if len(l) > 9 && l[9] == '-' {
				kept = append(kept, l...)
			}
		}
		off = end
	}
	return kept, nil
}

// ReadLines calls fn for every sound line, of whatever kind, after the header if there is one, and
// counts the others.
func ReadLines(r io.Reader, fn func(Line) error) (bad int, err error) {
	in, err := body(r)
	if err != nil || in == nil {
		return 0, err
	}
	return scan(in, func(b []byte) (bool, error) {
		l, err := ParseLine(b)
		if err != nil {
			return false, nil
		}
		return true, fn(l)
	})
}

// Header returns the first line of a journal.
func Header(run uint64) []byte { return header(run) }
