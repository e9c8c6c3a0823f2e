// Package cache decides what is served from what is kept and what an upstream is asked for.
//
// It promises that no caller sees a complete body whose digest is not the one
// asked for, and that any number of callers of one thing cost one upstream request.
// It speaks no HTTP: the proxy above and the upstream below do.
//
// Lock order: Cache.mu, then Fill.mu. No lock is held across network I/O.
package cache

import (
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/index"
	"forebay/internal/pull"
)

// Upstream is what the cache asks of a registry. Repositories are canonical names
// ("library/nginx"). Every error is or wraps a [pull.Error].
// Methods return when ctx is done. They may be called concurrently.
type Upstream interface {
	Content
	Discovery
}

// Content is the part of a registry that is addressed by digest or tag.
type Content interface {
	// Resolve asks what ref (a tag or a digest) points to, by HEAD, which no registry
	// counts as a pull. The descriptor has media type, digest and size. The kind is
	// pull.Unsupported when the registry refuses HEAD or names no digest.
	Resolve(ctx context.Context, repo, ref string) (v1.Descriptor, error)
	// Manifest fetches the manifest ref by GET, which registries count as a pull. The
	// bytes have the digest of the descriptor, and it is ref when ref is a digest.
	Manifest(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error)
	// StatBlob returns the size of a blob that repo holds. A registry that refuses
	// HEAD for blobs is asked in a way that moves no more than a few bytes.
	StatBlob(ctx context.Context, repo string, d v1.Hash) (int64, error)
	// OpenBlob opens the bytes [off, end) of a blob, end -1 being its end. off 0 with
	// end -1 asks without a range. The caller closes the body. A registry may ignore
	// the range: look at Body.Offset.
	OpenBlob(ctx context.Context, repo string, d v1.Hash, off, end int64) (*pull.Body, error)
}

// Discovery is the part of a registry that lists.
type Discovery interface {
	// Tags returns all tags of repo, in the upstream's order.
	Tags(ctx context.Context, repo string) ([]string, error)
	// Referrers returns the descriptors of all manifests whose subject is d, unfiltered,
	// each as the bytes the upstream gave. It tries the referrers API and then the tag
	// schema; no referrers is an empty list, and only if the upstream said so.
	Referrers(ctx context.Context, repo string, d v1.Hash) ([]json.RawMessage, error)
}

// Repo names a repository of an upstream: the scope of links and tags.
type Repo = index.Repo

// Result says how a request was answered, for logs and metrics.
type Result string

// The results. Joined means that another request's upstream fetch was shared.
const (
	Hit    Result = "hit"
	Joined Result = "joined"
	Miss   Result = "miss"
	Stale  Result = "stale"
	Passed Result = "passed" // streamed through without being kept
)

// Manifest is a manifest or index with its bytes as the upstream gave them.
type Manifest struct {
	Desc v1.Descriptor // media type, digest, size
	// Bytes are shared and must not be changed. They are nil when only a HEAD was
	// asked for and the content is not kept.
	Bytes  []byte
	Result Result
	// StaleFor is how long ago the tag should have been confirmed; 0 when it is fresh.
	StaleFor time.Duration

	refs []v1.Hash     // what it refers to, for counting use
	used *atomic.Int64 // Unix seconds of the last use that was noted; shared by copies
}

// Listing is a sorted list of tags.
type Listing struct {
	Tags   []string // shared, sorted, must not be changed
	Result Result
}

// Referrers are the descriptors of the manifests that refer to a digest.
type Referrers struct {
	Manifests []json.RawMessage // shared, must not be changed
	Result    Result
}
