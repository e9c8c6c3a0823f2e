package tier

import (
	"context"
	"errors"
	"io"

	"forebay/internal/pull"
)

// The files of the bucket, which is left alone after failures as for content.
var _ Files = (*Tier)(nil)

// PutFile is [Files.PutFile].
func (t *Tier) PutFile(ctx context.Context, name string, content io.ReaderAt, size int64, c Condition) error {
	if t.writes.open() && !t.writes.allow() {
		return unavailable("put "+name, errLeftAlone)
	}
	err := t.opts.Bucket.PutFile(ctx, name, content, size, c)
	t.fileTold(ctx, &t.writes, err)
	t.fileWaits.Store(err != nil && ctx.Err() == nil && t.writes.open())
	return err
}

// OpenFile is [Files.OpenFile].
func (t *Tier) OpenFile(ctx context.Context, name string, off, end int64) (*pull.Body, string, error) {
	if t.reads.open() {
		return nil, "", unavailable("get "+name, errLeftAlone)
	}
	body, version, err := t.opts.Bucket.OpenFile(ctx, name, off, end)
	t.fileTold(ctx, &t.reads, err)
	if err == nil {
		body.ReadCloser = &watched{ReadCloser: body.ReadCloser, ctx: ctx, t: t}
	}
	return body, version, err
}

// ListFiles is [Files.ListFiles].
func (t *Tier) ListFiles(ctx context.Context, folder string, fn func(File) error) error {
	if t.reads.open() {
		return unavailable("list "+folder, errLeftAlone)
	}
	err := t.opts.Bucket.ListFiles(ctx, folder, fn)
	t.fileTold(ctx, &t.reads, err)
	return err
}

// RemoveFiles is [Files.RemoveFiles].
func (t *Tier) RemoveFiles(ctx context.Context, names []string) error {
	err := t.opts.Bucket.RemoveFiles(ctx, names)
	t.fileTold(ctx, &t.writes, err)
	return err
}

// fileTold is told; that a condition does not hold is an answer.
func (t *Tier) fileTold(ctx context.Context, b *breaker, err error) {
	if errors.Is(err, ErrCondition) || errors.Is(err, ErrUnconditional) {
		err = nil
	}
	t.told(ctx, b, err)
}
