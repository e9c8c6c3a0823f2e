package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/disk"
	"forebay/cache/tier"
	"forebay/internal/pull"
	"forebay/test/s3test"
	"forebay/test/storetest"
)

// The bucket runs the suite of the disk store: what is committed is in the bucket and
// nowhere else, and only what is being filled is on the disk.
func TestBucketIsAStore(t *testing.T) {
	server := s3test.New(t)
	storetest.TestStore(t, func(t *testing.T, dir string) storetest.Store {
		b := open(t, server, func(o *Options) { o.Prefix = "conformance" + dir })
		parts, err := disk.Open(dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		return &store{t: t, b: b, parts: parts}
	})
}

// store is a bucket with a disk for what is being filled.
type store struct {
	t     *testing.T
	b     *Bucket
	parts *disk.Store
}

// absent says of a missing object what a disk says.
func absent(err error) error {
	if err != nil && pull.KindOf(err) == pull.NotFound {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

func (s *store) Blob(d v1.Hash) (io.ReadSeekCloser, int64, error) {
	body, err := s.b.Open(context.Background(), d, 0, -1)
	if err != nil {
		return nil, 0, absent(err)
	}
	return &seeker{body}, body.Size, nil
}

// seeker is a body that the suite reads from start to end.
type seeker struct{ *pull.Body }

func (*seeker) Seek(int64, int) (int64, error) { return 0, errors.ErrUnsupported }

func (s *store) Stat(d v1.Hash) (int64, error) {
	o, err := s.b.Stat(context.Background(), d)
	return o.Size, absent(err)
}

func (s *store) Get(d v1.Hash, limit int64) ([]byte, error) {
	body, err := s.b.Open(context.Background(), d, 0, -1)
	if err != nil {
		return nil, absent(err)
	}
	defer body.Close()
	if body.Size > limit {
		return nil, fmt.Errorf("%d bytes are more than %d", body.Size, limit)
	}
	return io.ReadAll(body)
}

func (s *store) Put(d v1.Hash, b []byte) error {
	err := s.b.Put(context.Background(), d, int64(len(b)), bytes.NewReader(b), tier.PutOptions{})
	if errors.Is(err, tier.ErrDamaged) {
		return fmt.Errorf("%w: %w", disk.ErrMismatch, err)
	}
	return err
}

func (s *store) Remove(d v1.Hash) error { return s.b.Remove(context.Background(), []v1.Hash{d}) }

func (s *store) Walk(fn func(d v1.Hash, size int64, modTime time.Time) error) error {
	return s.b.List(context.Background(), "", func(o tier.Object) error { return fn(o.Digest, o.Size, o.Stamp) })
}

func (s *store) Partial(d v1.Hash) (storetest.Partial, error) {
	p, err := s.parts.Partial(d)
	if err != nil {
		return nil, err
	}
	return &partial{Partial: p, s: s}, nil
}

func (s *store) HasPartial(d v1.Hash) bool { return s.parts.HasPartial(d) }

func (s *store) SweepPartials(olderThan time.Time) (int, error) {
	return s.parts.SweepPartials(olderThan)
}

func (s *store) Close() error {
	s.b.Close()
	return s.parts.Close()
}

// partial is a blob being filled, which its commit uploads.
type partial struct {
	*disk.Partial
	s *store
}

func (p *partial) OpenReader() (io.ReadSeekCloser, error) {
	f, err := p.Partial.OpenReader()
	if errors.Is(err, fs.ErrNotExist) {
		r, _, err := p.s.Blob(p.Digest())
		return r, err
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (p *partial) Commit(size int64) error {
	if err := p.Partial.Commit(size); err != nil {
		return err
	}
	f, size, err := p.s.parts.Blob(p.Digest())
	if errors.Is(err, fs.ErrNotExist) {
		return nil // committed before
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.s.b.Put(context.Background(), p.Digest(), size, f, tier.PutOptions{}); err != nil {
		if errors.Is(err, tier.ErrDamaged) {
			err = nil // the suite commits an empty file in the place of another
		}
		return errors.Join(err, p.s.parts.Remove(p.Digest()))
	}
	return p.s.parts.Remove(p.Digest())
}
