package rules

import (
	"bytes"
	"context"
	"encoding/json"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// Content is what a repository has for who verifies its signatures: by the mirror itself, whatever its
// policies say, so that it is kept with the image.
type Content struct {
	Cache *cache.Cache
	Repo  cache.Repo
}

// Name is that of the repository.
func (c Content) Name() string { return c.Repo.String() }

// Absent reports whether an error says that something is not there, rather than that it cannot be had.
func (c Content) Absent(err error) bool {
	kind := pull.KindOf(err)
	return kind == pull.NotFound || kind == pull.Unsupported
}

// Manifest returns a manifest by tag or digest. It asks for a tag by HEAD, which no registry counts. What is known of one will do while that fails.
func (c Content) Manifest(ctx context.Context, ref string) (v1.Descriptor, []byte, error) {
	d, err := wire.ParseDigest(ref)
	if err != nil {
		desc, err := c.Cache.Confirm(ctx, c.Repo, ref)
		if d = desc.Digest; err != nil {
			t, known, _ := c.Cache.Tag(c.Repo, ref)
			if !known || pull.KindOf(err) == pull.NotFound && c.Cache.MayAsk(c.Repo) {
				return v1.Descriptor{}, nil, err
			}
			d = t.Desc.Digest
		}
	}
	m, err := c.Cache.Unruled(ctx, c.Repo, d)
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	return m.Desc, m.Bytes, nil
}

// Referrers lists what refers to a digest.
func (c Content) Referrers(ctx context.Context, d v1.Hash) ([]v1.Descriptor, error) {
	r, err := c.Cache.Referrers(ctx, c.Repo, d)
	if err != nil {
		return nil, err
	}
	all := make([]v1.Descriptor, len(r.Manifests))
	for i, text := range r.Manifests {
		_ = json.Unmarshal(text, &all[i]) // what cannot be read is no signature
	}
	return all, nil
}

// Blob returns a blob, which is read whole.
func (c Content) Blob(ctx context.Context, desc v1.Descriptor) ([]byte, error) {
	b, err := c.Cache.Blob(ctx, c.Repo, desc.Digest)
	if err != nil {
		return nil, err
	}
	defer func() { _ = b.Close() }() // of what was read
	var text bytes.Buffer
	_, err = b.Send(ctx, &text, 0, desc.Size)
	return text.Bytes(), err
}
