package cache

import (
	"context"
	"encoding/json"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache/policy"
	"forebay/internal/pull"
)

// Upstream is what the cache asks of a registry. Repositories are canonical names
// ("library/nginx"). Every error is or wraps a [pull.Error].
// Methods return when ctx is done. They may be called concurrently.
type Upstream interface {
	Content
	Discovery
	Budget
}

// Budget is what a registry will still give.
type Budget interface {
	// Low reports whether so little is left of it that known tags which moved are served
	// stale, and nothing is refreshed in the background.
	Low() bool
	// AtReserve reports whether one more pull would make it low: what nobody has asked for
	// yet waits then.
	AtReserve() bool
	// AtLastShare reports whether most of that is gone too: the rest is for repositories that
	// are known here.
	AtLastShare() bool
}

// Content is the part of a registry that is addressed by digest or tag.
type Content interface {
	// Resolve asks what ref (a tag or a digest) points to, by HEAD, which no registry
	// counts as a pull. The descriptor has media type, digest and size. The kind is
	// pull.Unsupported, or the detail pull.HeadOnly, when only a GET can tell.
	Resolve(ctx context.Context, repo, ref string) (v1.Descriptor, error)
	// Manifest fetches the manifest ref by GET, which registries count as a pull. The
	// bytes have the digest of the manifest.Descriptor, and it is ref when ref is a digest.
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
	// TagsPage returns the tags that the upstream gives for a query, and the query of the page after
	// them; "" if there is none.
	TagsPage(ctx context.Context, repo, query string) (tags []string, next string, err error)
	// Referrers returns the descriptors of all manifests whose subject is d, unfiltered,
	// each as the bytes the upstream gave. It tries the referrers API and then the tag
	// schema; no referrers is an empty list, and only if the upstream said so.
	Referrers(ctx context.Context, repo string, d v1.Hash) ([]json.RawMessage, error)
}

// TagRule gives tags that match a time to live of their own; one of [Forever] is never asked for again.
type TagRule = policy.TagRule

// Forever has no end.
const Forever = policy.Forever

// UpstreamOptions says how one upstream's content is fetched and kept.
type UpstreamOptions struct {
	Upstream Upstream
	TagTTL   time.Duration // how long a tag is served without asking; 0 means always ask
	TagRules []TagRule     // times to live of their own, first match wins
	// RefreshAhead is how often a tag must be pulled within its last two times to live to
	// be confirmed in the background before it expires. 0 means never.
	RefreshAhead int
	// StaleIfError is how old a tag may be that is served while the upstream fails, counted
	// from its last confirmation. 0 means any age.
	StaleIfError time.Duration
	// AccessTTL is how long a proof holds that the credentials may read a repository; then
	// one HEAD proves it anew before kept content of it is served. 0 means for ever.
	AccessTTL time.Duration
	// Trust names the trust domain: upstreams of one domain believe each other when they say
	// that they hold what another has given. "" is a domain of its own.
	Trust string
	// Credentialed is whether it is asked with credentials, so that others may read less.
	Credentialed bool
	// Unlisted keeps the names of its repositories and tags from clients who do not know them.
	Unlisted bool
	OnGone   OnGone // what becomes of a tag that the upstream does not have any more
	Offline  bool   // the upstream is never asked
	Parallel int    // connections per large blob; 0 means 4
	// MaxConnections bounds the connections for blobs over all fills. Fills use at most
	// half of it for connections beyond their first. 0 means 32.
	MaxConnections int
}

// OnGone says what becomes of content that the upstream says is not there any more.
type OnGone uint8

// What becomes of it. An outage never counts as gone.
const (
	Keep OnGone = iota // a tag goes on being served until it is evicted
	Drop               // a tag is forgotten
)
