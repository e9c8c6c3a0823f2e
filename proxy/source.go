package proxy

import (
	"context"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
)

// source is what the handler serves from: a cache, in the tests of this package a fake.
// Its errors are or wrap a [pull.Error], or count as the upstream being unavailable.
type source interface {
	content
	lists
}

// content is served by digest or tag.
type content interface {
	Manifest(ctx context.Context, repo cache.Repo, ref string, headOnly bool) (*cache.Manifest, error)
	// openBlob's ctx bounds the opening only, never the blob that it returns.
	openBlob(ctx context.Context, repo cache.Repo, d v1.Hash) (blob, error)
	StatBlob(ctx context.Context, repo cache.Repo, d v1.Hash) (size int64, res cache.Result, err error)
	Troubled(repo cache.Repo) bool
	Servable(ctx context.Context, repo cache.Repo, m *cache.Manifest) bool
}

// lists are put together from what the upstream and the cache have.
type lists interface {
	Tags(ctx context.Context, repo cache.Repo) (*cache.Listing, error)
	TagsPage(ctx context.Context, repo cache.Repo, query string) (*cache.Listing, error)
	Referrers(ctx context.Context, repo cache.Repo, d v1.Hash) (*cache.Referrers, error)
	Catalog(ctx context.Context, after string, n int) (names []string, more bool, err error)
	Lists(upstream string) bool
}

// blob is a blob opened for one answer, which must close it; see [cache.Blob].
type blob interface {
	File() *os.File
	Send(ctx context.Context, w io.Writer, off, end int64) (int64, error)
	Size() int64 // -1 while unknown
	Result() cache.Result
	Close() error
}

// fromCache is a cache as a source.
type fromCache struct{ *cache.Cache }

func (c fromCache) openBlob(ctx context.Context, repo cache.Repo, d v1.Hash) (blob, error) {
	b, err := c.Blob(ctx, repo, d)
	if err != nil {
		return nil, err
	}
	return cachedBlob{b}, nil
}

type cachedBlob struct{ *cache.Blob }

func (b cachedBlob) Size() int64          { return b.Blob.Size }
func (b cachedBlob) Result() cache.Result { return b.Blob.Result }
