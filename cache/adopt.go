package cache

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/cache/evict"
	"forebay/cache/index"
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
// every delivery; the scrub reads it too. Errors are as of [Cache.TakeIn].
func (c *Cache) Adopt(ctx context.Context, d v1.Hash, src *os.File, duplicate bool) (Adopted, error) {
	info, err := src.Stat()
	if err != nil {
		return "", fmt.Errorf("adopt %s: %w", d, err)
	}
	size := info.Size()
	if !duplicate {
		if _, err := wire.ParseDigest(d.String()); err != nil {
			return "", fmt.Errorf("adopt: %w: %w", ErrContent, err)
		}
		how, err := c.adopt(ctx, d, size, src)
		if err == nil || !errors.Is(err, disk.ErrNoLink) {
			if err != nil {
				c.arriving.remove(d)
				return "", fmt.Errorf("adopt %s: %w", d, err)
			}
			return how, nil
		}
		if _, err := src.Seek(0, io.SeekStart); err != nil {
			return "", fmt.Errorf("adopt %s: %w", d, err)
		}
	}
	if c.Expect(d) {
		return Had, nil
	}
	if err := c.TakeIn(ctx, d, size, src); err != nil {
		return "", err
	}
	return Copied, nil
}

func (c *Cache) adopt(ctx context.Context, d v1.Hash, size int64, src *os.File) (Adopted, error) {
	if c.Expect(d) {
		return Had, nil
	}
	c.arriving.add(d)
	if err := c.space.reserve(ctx, size); err != nil {
		return "", err
	}
	defer c.space.release(size)
	part, err := c.claimPartial(ctx, d)
	if err != nil {
		return "", err
	}
	if part == nil {
		return Had, nil
	}
	if err := compare(ctx, d, src); err != nil {
		return "", errors.Join(err, part.Discard())
	}
	if err := part.CommitLink(src); err != nil {
		return "", errors.Join(err, part.Discard())
	}
	c.space.add(d, size, evict.Blob)
	defer c.upload(d, size)
	return Linked, c.update(func(b *index.Batch) error {
		return b.PutBlob(d, index.BlobInfo{Size: size, Added: time.Now()})
	})
}

// compare reads a file and compares it with a digest.
func compare(ctx context.Context, d v1.Hash, f *os.File) error {
	sum, err := newHash(d)
	if err != nil {
		return err
	}
	buf := make([]byte, hashBlock)
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
	if got := hex.EncodeToString(sum.Sum(nil)); got != d.Hex {
		return fmt.Errorf("%w: it has the digest %s:%s", ErrContent, d.Algorithm, got)
	}
	return nil
}
