package upkeep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/internal/sums"
	"forebay/internal/wire"
)

// Adopted says how content came in.
type Adopted string

// The ways.
const (
	Had    Adopted = "had"    // it was here before
	Linked Adopted = "linked" // the file is the same: it takes no more space
	Copied Adopted = "copied"
)

// Adopt stores the content of a file of somebody else as d, once its digest is right: by
// a hard link where the file system lets it, unless it is to be copied. While a linked
// file has other names, by which it may be changed, it is compared with its digest beside
// every delivery; the scrub reads it too. Errors are as of [Keeper.TakeIn].
func (k *Keeper) Adopt(ctx context.Context, d v1.Hash, src *os.File, duplicate bool) (Adopted, error) {
	info, err := src.Stat()
	if err != nil {
		return "", fmt.Errorf("adopt %s: %w", d, err)
	}
	size := info.Size()
	if !duplicate {
		if _, err := wire.ParseDigest(d.String()); err != nil {
			return "", fmt.Errorf("adopt: %w: %w", ErrContent, err)
		}
		had, err := k.take(ctx, d, size, func(part *disk.Partial) (func() error, error) {
			return func() error { return part.CommitLink(src) }, compare(ctx, d, src)
		})
		switch {
		case had && err == nil:
			return Had, nil
		case err == nil:
			return Linked, nil
		case !errors.Is(err, disk.ErrNoLink):
			return "", fmt.Errorf("adopt %s: %w", d, err)
		}
		if _, err := src.Seek(0, io.SeekStart); err != nil {
			return "", fmt.Errorf("adopt %s: %w", d, err)
		}
	}
	if k.Expect(d) {
		return Had, nil
	}
	if err := k.TakeIn(ctx, d, size, src); err != nil {
		return "", err
	}
	return Copied, nil
}

// readBlock is what is read of a file at a time.
const readBlock = 256 << 10

// compare reads a file and compares it with a digest.
func compare(ctx context.Context, d v1.Hash, f *os.File) error {
	sum, err := sums.Hash(d.Algorithm)
	if err != nil {
		return err
	}
	buf := make([]byte, readBlock)
	for {
		n, err := f.Read(buf)
		sum.Write(buf[:n])
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if sums.CheckHash(d, sum) != nil {
		return fmt.Errorf("%w: it has the digest %s:%x", ErrContent, d.Algorithm, sum.Sum(nil))
	}
	return nil
}
