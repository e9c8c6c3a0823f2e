package fill

import (
	"context"
	"fmt"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/store"
	"forebay/internal/sums"
)

// hash hashes b, which is there from pos on, if it follows what is hashed. It reports whether
// something that is there is not hashed and has to be read back. f.mu is held, and given back
// meanwhile.
func (f *Fill) hash(b []byte, pos int64) (behind bool) {
	if !f.hashing && pos == f.hashed {
		f.hashing = true
		f.mu.Unlock()
		f.sum.Write(b)
		f.mu.Lock()
		f.hashed, f.hashing = pos+int64(len(b)), false
	}
	return f.behind()
}

// behind reports whether something is there that is not hashed, and nobody hashes. f.mu is held.
func (f *Fill) behind() bool { return !f.hashing && f.have.until(f.hashed) > f.hashed }

// catchUp hashes what is there and is not hashed, unless somebody else is at it.
func (f *Fill) catchUp(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.behind() {
		return nil
	}
	f.hashing = true
	defer func() { f.hashing = false }()
	block := buffers.Get().(*[]byte)
	defer buffers.Put(block)
	for until := f.have.until(f.hashed); until > f.hashed && ctx.Err() == nil; until = f.have.until(f.hashed) {
		pos := f.hashed
		f.mu.Unlock()
		n, err := f.readAt((*block)[:min(until-pos, readBlock)], pos)
		f.sum.Write((*block)[:n])
		f.mu.Lock()
		if n == 0 {
			return fmt.Errorf("read back %s: %w: %w", f.Digest, store.ErrUnkept, err)
		}
		f.hashed = pos + int64(n)
	}
	return ctx.Err()
}

// readAt reads what is there.
func (f *Fill) readAt(b []byte, pos int64) (int, error) {
	if f.mem != nil {
		return copy(b, f.mem[pos:]), nil
	}
	return f.file.ReadAt(b, pos)
}

// judge reports whether all is hashed, and then whether it has the digest: nil, or
// sums.ErrMismatch.
func (f *Fill) judge() (whole bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hashing || f.size < 0 || f.hashed < f.size {
		return false, nil
	}
	return true, sums.CheckHash(f.Digest, f.sum)
}

// Verification verifies a kept file beside its first reading. All fields are required.
type Verification struct {
	Digest v1.Hash
	Source Source   // from which readers go on should the disk fail
	File   *os.File // is closed at the end
	Size   int64    // of the file in bytes
	Reopen func() (*os.File, error)
	// Judged is told whether the file has its digest while it is still open: nil,
	// sums.ErrMismatch, or why it cannot be read.
	Judged func(error)
	Counts *Counts
	Log    *zap.Logger
}

// Verify returns the fill of a kept file, and what runs it to its end in a goroutine of its
// caller's. The file is taken over, after an error too.
func Verify(v Verification) (f *Fill, run func(context.Context), err error) {
	f, err = newFill(v.Digest, "", v.Source, v.Counts, v.Log)
	if err != nil {
		v.File.Close()
		return nil, nil, err
	}
	f.file, f.reopen, f.verifies = v.File, v.Reopen, true
	f.size, f.have = v.Size, spans{{0, v.Size}}
	f.setArriving()
	return f, func(ctx context.Context) {
		err := f.catchUp(ctx)
		if err == nil {
			_, err = f.judge() // of all that is hashed
		}
		v.Judged(err)
		f.file.Close()
		f.settled(err)
		f.end(nil)
	}, nil
}
