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

// follow hashes the contiguous prefix as it grows and returns nil when the whole blob has
// the right digest, sums.ErrMismatch when it has not. It is the only one that uses sum.
func (f *Fill) follow(ctx context.Context) error {
	block := (*[]byte)(nil)
	defer func() {
		if block != nil {
			buffers.Put(block)
		}
	}()
	for {
		until, whole, err := f.awaitPrefix(ctx)
		if err != nil {
			return err
		}
		if whole {
			return sums.CheckHash(f.Digest, f.sum)
		}
		if block == nil { // not before something has come: many may wait for that
			block = buffers.Get().(*[]byte)
		}
		for pos := f.hashed; pos < until; {
			n, err := f.file.ReadAt((*block)[:min(until-pos, readBlock)], pos)
			if n == 0 {
				return fmt.Errorf("read back %s: %w: %w", f.Digest, store.ErrUnkept, err)
			}
			f.sum.Write((*block)[:n])
			pos += int64(n)
			f.mu.Lock()
			f.hashed = pos
			f.mu.Unlock()
		}
	}
}

// awaitPrefix waits until the prefix is longer than what is hashed, or all is hashed.
func (f *Fill) awaitPrefix(ctx context.Context) (until int64, whole bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if until = f.have.until(0); until > f.hashed {
			return until, false, nil
		}
		if f.size >= 0 && f.hashed >= f.size {
			return until, true, nil
		}
		if err := f.changed.wait(ctx); err != nil {
			return 0, false, err
		}
	}
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
		err := f.follow(ctx)
		v.Judged(err)
		f.file.Close()
		f.end(err)
	}, nil
}
