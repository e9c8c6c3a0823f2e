package fill

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"forebay/internal/pull"
	"forebay/internal/sums"
)

// passage streams a blob to one reader that our own disk cannot keep: from the upstream
// straight to the reader, still verified, its last byte still held back.
type passage struct {
	f    *Fill     // unkept
	from *source   // the reader's own
	sum  hash.Hash // of [0, at)
	at   int64     // position of the upstream's next byte
	size int64     // -1 while unknown
	off  int64     // position of the reader's next byte
	end  int64
	w    io.Writer
	held []byte // last bytes of the blob, not sent yet
	kept *os.File
}

// pass goes on with the reader at off where the fill had to stop. kept is the reader's
// file of what was written, nil when there is none.
func (f *Holder) pass(ctx context.Context, w io.Writer, kept *os.File, off, end int64) (int64, error) {
	f.counts.Passed.Add(1)
	p := &passage{f: f.Fill, from: f.source, size: f.size, off: off, end: end, w: w, kept: kept}
	whole := !(&reader{off: off, end: end}).piece(f.size)
	var err error
	p.at = off
	if whole {
		err = p.rehash()
	}
	for fruitless := 0; err == nil && !p.finished(); {
		before := p.at
		err = p.stream(ctx)
		if errors.Is(err, sums.ErrMismatch) || ctx.Err() != nil || p.wrote(err) {
			break
		}
		if fruitless++; p.at-before >= progressLeast {
			fruitless = 0
		}
		if err != nil && fruitless < fruitlessMost && p.at > 0 {
			err = nil
		}
	}
	if err == nil && whole {
		err = p.judge()
	}
	return p.off - off, err
}

// rehash takes over the digest of what was written, or begins anew when the reader
// cannot read that, and sends what it still lacks of it.
func (p *passage) rehash() (err error) {
	if p.kept == nil && p.off < p.f.hashed {
		p.at = 0
		p.sum, err = sums.Hash(p.f.Digest.Algorithm)
		return err
	}
	cloner, ok := p.f.sum.(hash.Cloner)
	if !ok {
		return fmt.Errorf("hash %s cannot be cloned", p.f.Digest.Algorithm)
	}
	if p.sum, err = cloner.Clone(); err != nil {
		return fmt.Errorf("pass blob %s: %w", p.f.Digest, err)
	}
	p.at = p.f.hashed
	return p.reread()
}

// errReader marks an error of the one who receives, which no retry mends.
var errReader = errors.New("reader left")

func (p *passage) wrote(err error) bool { return errors.Is(err, errReader) }

// finished reports whether all bytes wanted have come, or all that the digest is of.
func (p *passage) finished() bool {
	return p.size >= 0 && (p.at >= p.size || p.at >= p.end && p.sum == nil)
}

// reread sends what lies before the hashed prefix's end and was not read yet.
func (p *passage) reread() error {
	if p.kept == nil {
		return nil
	}
	block := buffers.Get().(*[]byte)
	defer buffers.Put(block)
	buf := *block
	for pos := p.off; pos < p.at; {
		n, err := p.kept.ReadAt(buf[:min(int64(len(buf)), p.at-pos)], pos)
		if n == 0 {
			return fmt.Errorf("read back %s: %w", p.f.Digest, err)
		}
		if err := p.deliver(pos, buf[:n]); err != nil {
			return err
		}
		pos += int64(n)
	}
	return nil
}

// stream takes one answer of the upstream as far as it goes.
func (p *passage) stream(ctx context.Context) error {
	request := int64(-1)
	if p.size >= 0 && p.end < p.size && p.sum == nil {
		request = p.end
	}
	body, err := p.from.Open(ctx, p.at, request)
	if err != nil {
		return err
	}
	defer body.Close()
	if body.Size >= 0 {
		if p.size >= 0 && p.size != body.Size {
			return p.f.invalid(fmt.Errorf("size changed from %d to %d bytes: %w", p.size, body.Size, sums.ErrMismatch))
		}
		p.size = body.Size
	}
	if _, err := io.CopyN(io.Discard, body, p.at-body.Offset); err != nil {
		return err
	}
	block := buffers.Get().(*[]byte)
	defer buffers.Put(block)
	buf := *block
	for !p.finished() {
		n, rerr := body.Read(buf)
		if err := p.take(buf[:n]); err != nil {
			return err
		}
		if errors.Is(rerr, io.EOF) {
			if p.size < 0 && body.End < 0 {
				p.size = p.at
			}
			if !p.finished() {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		if rerr != nil {
			return rerr
		}
	}
	return nil
}

// take hashes b and delivers it.
func (p *passage) take(b []byte) error {
	if p.sum != nil {
		p.sum.Write(b)
	}
	from := p.at
	p.at += int64(len(b))
	return p.deliver(from, b)
}

// deliver sends the part of b, which begins at from, that the reader wants and has not
// got, short of the blob's last byte when the whole is to be verified.
func (p *passage) deliver(from int64, b []byte) error {
	next := p.off + int64(len(p.held))
	b = b[min(max(next-from, 0), int64(len(b))):]
	b = b[:min(int64(len(b)), p.end-next)]
	if len(b) == 0 {
		return nil
	}
	if p.sum != nil {
		// Every byte may be the last while the size is unknown: one is always held.
		b = append(p.held, b...)
		p.held = []byte{b[len(b)-1]}
		b = b[:len(b)-1]
	}
	n, err := p.w.Write(b)
	p.off += int64(n)
	if err != nil {
		return fmt.Errorf("%w: %w", errReader, err)
	}
	return nil
}

// judge releases the last byte when the digest is right.
func (p *passage) judge() error {
	if sums.CheckHash(p.f.Digest, p.sum) != nil {
		err := &pull.Error{Kind: pull.Invalid, Upstream: p.from.Repo.Upstream,
			Op: "pass " + p.f.Digest.String(), Err: sums.ErrMismatch}
		if p.f.mismatched != nil {
			p.f.mismatched(p.from.Repo, err)
		}
		return err
	}
	n, err := p.w.Write(p.held)
	p.off += int64(n)
	return err
}
