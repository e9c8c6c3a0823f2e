package upkeep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
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
// every delivery; the scrub reads it too. All else is as of [Import.TakeIn].
func (i *Import) Adopt(ctx context.Context, d v1.Hash, src *os.File, duplicate bool) (Adopted, error) {
	info, err := src.Stat()
	if err != nil {
		return "", fmt.Errorf("adopt %s: %w", d, err)
	}
	if !duplicate {
		how, err := i.link(ctx, d, src, info.Size())
		if !errors.Is(err, disk.ErrNoLink) {
			return how, err
		}
		if _, err := src.Seek(0, io.SeekStart); err != nil {
			return "", fmt.Errorf("adopt %s: %w", d, err)
		}
	}
	had, err := i.TakeIn(ctx, d, info.Size(), src)
	switch {
	case err != nil:
		return "", err
	case had:
		return Had, nil
	}
	return Copied, nil
}

// link is Adopt by a hard link.
func (i *Import) link(ctx context.Context, d v1.Hash, src *os.File, size int64) (Adopted, error) {
	if _, err := wire.ParseDigest(d.String()); err != nil {
		return "", fmt.Errorf("adopt: %w: %w", ErrContent, err)
	}
	defer i.use()()
	had, err := i.k.take(ctx, d, size, func(part *disk.Partial) (func() error, error) {
		return func() error { return part.CommitLink(src) }, receive(ctx, nil, d, size, src)
	})
	how := Linked
	if had && err == nil {
		how, err = Had, receive(ctx, nil, d, size, src)
	}
	if err != nil {
		return "", fmt.Errorf("adopt %s: %w", d, err)
	}
	i.bring(d)
	return how, nil
}
