package tier

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/pull"
)

// sourceFaults in one fill send it to the registry.
const sourceFaults = 3

// Source is the bucket as a source of one fill. nil is none.
type Source struct {
	tier   *Tier
	Size   int64 // that the object must have
	used   atomic.Bool
	over   atomic.Bool // it is not asked any more
	faults atomic.Int32
}

// Source returns the bucket as a source of an object of size bytes.
func (t *Tier) Source(size int64) *Source { return &Source{tier: t, Size: size} }

// Gave reports whether bytes came from the bucket.
func (s *Source) Gave() bool { return s != nil && s.used.Load() }

// Open opens the bytes [off, end) of the object. Neither body nor error means that the
// registry is to be asked.
func (s *Source) Open(ctx context.Context, d v1.Hash, off, end int64) (*pull.Body, error) {
	if s.over.Load() {
		return nil, nil
	}
	body, err := s.tier.Open(ctx, d, off, end)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		s.over.Store(true)
		if pull.DetailOf(err) == pull.OutOfRange {
			s.tier.Distrust(d) // it is shorter than it should be
		}
		return nil, nil
	}
	if body.Size >= 0 && body.Size != s.Size {
		_ = body.Close() // nothing of it is used
		s.over.Store(true)
		s.tier.Distrust(d)
		return nil, nil
	}
	s.used.Store(true)
	body.ReadCloser = &sourceBody{ReadCloser: body.ReadCloser, s: s}
	return body, nil
}

// sourceBody counts bodies that break off.
type sourceBody struct {
	io.ReadCloser
	s *Source
}

func (r *sourceBody) Read(b []byte) (int, error) {
	n, err := r.ReadCloser.Read(b)
	if err != nil && !errors.Is(err, io.EOF) && r.s.faults.Add(1) >= sourceFaults {
		r.s.over.Store(true)
	}
	return n, err
}
