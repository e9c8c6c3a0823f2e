package hubtest

import "time"

// Options configures a [Hub]. The zero value is Docker Hub as it was seen in 2026,
// over plain HTTP on loopback addresses. The first group is fixed when the hub
// starts; the rest can be changed while it runs with [Hub.Set].
type Options struct {
	Named bool // production host names and TLS; dial with Hub.DialContext
	TLS   bool // TLS on loopback addresses, with certificates of Hub.RootCAs
	// ClientCerts makes the registry and the token server refuse, in the TLS handshake, who
	// shows no certificate of Hub.ClientPair.
	ClientCerts bool
	HTTP2       bool // offer h2 on TLS listeners; faults that write raw bytes then fail the test
	InMemory    bool // no sockets: pipes, made by Hub.DialContext
	// Backend is the base URL of a plain registry that is read through: repositories,
	// tags, manifests and blobs that the hub does not hold come from there, as public ones.
	Backend string
	Now     func() time.Time // nil means time.Now
	Names   map[Role]string  // host names of roles in named mode, where not Docker Hub's
	Seed    uint64           // of signatures and of CDN "random"; same seed, same choices
	Profile Profile          // imitate another registry; "" is Docker Hub

	ClientIP string // address that anonymous pulls and abuse are booked on; "" means the connection's

	CDN             string        // CDNRotate (default), CDNRandom, or a CDN role
	SignedTTL       time.Duration // life of signed URLs; 0 means 3600 s (cf), 1200 s (r2), 900 s (cfr)
	R2ExpiredStatus int           // 0 means 403; 400 is the older documented one
	// CDNBytesPerSecond limits each connection to a CDN, LineBytesPerSecond all body
	// bytes of all roles together. 0 means no limit.
	CDNBytesPerSecond  int64
	LineBytesPerSecond int64

	TokenTTL      time.Duration // 0 means 300 s
	TokenShape    TokenShape
	MultiScopeBug bool // of several scopes only the first is granted (Docker Hub, 2022-03-02)
	OAuthStatus   int  // not 0: POST to the token endpoint answers this

	Anonymous     Plan // zero means 100 pulls an hour
	Count         CountMode
	NoCharge304   bool // a 304 is not charged
	SlidingWindow bool // instead of a fixed window that starts with the first pull
	RateHeaders   RateHeaderStyle
	RetryAfter    RetryAfterStyle
	AbuseLimit    int // requests a minute from one address to all roles; 0 means no limit
	AbuseStyle    AbuseStyle

	TagDetail        TagDetail
	TagsPaging       TagsPaging
	Referrers        ReferrersMode
	HubAPI           HubAPIOptions
	Schema1Downgrade bool // a Docker list that is not accepted becomes a schema 1 manifest
}

// Values of Options.CDN that are no role.
const (
	CDNRotate = "rotate" // the next of cf, r2, cfr with each redirect
	CDNRandom = "random" // one of them, by Options.Seed
)

// CountMode is what the limiter charges for.
type CountMode string

const (
	CountStrict    CountMode = ""           // each manifest GET
	CountPair      CountMode = "pair"       // an index and a child within 60 s are one
	CountChildOnly CountMode = "child-only" // an index is free
)

// RateHeaderStyle is how the rate-limit headers are written.
type RateHeaderStyle string

const (
	RateBoth     RateHeaderStyle = ""         // ratelimit-* and x-ratelimit-*
	RatePlain    RateHeaderStyle = "plain"    // only ratelimit-*
	RateXOnly    RateHeaderStyle = "x-only"   // only x-ratelimit-*
	RateSpaces   RateHeaderStyle = "spaces"   // "200 ; w=3600"
	RateNone     RateHeaderStyle = "none"     // no rate headers at all
	RateNegative RateHeaderStyle = "negative" // remaining below zero, as seen in 2020
	RateGarbage  RateHeaderStyle = "garbage"
)

// RetryAfterStyle is how the pull-limit 429 says when to come back.
type RetryAfterStyle string

const (
	RetryNone     RetryAfterStyle = ""         // not at all, as Docker Hub does
	RetrySeconds  RetryAfterStyle = "seconds"  // Retry-After: seconds left in the window
	RetryDate     RetryAfterStyle = "date"     // Retry-After: HTTP date of the window's end
	RetryPast     RetryAfterStyle = "past"     // Retry-After: an HTTP date that is over
	RetryUnix     RetryAfterStyle = "unix"     // X-Retry-After: Unix time
	RetryDuration RetryAfterStyle = "duration" // "retry-after: 160.574µs" inside the message, as GHCR
)

// AbuseStyle is the shape of the abuse 429.
type AbuseStyle string

const (
	AbusePlain  AbuseStyle = ""       // "Too Many Requests"
	AbuseHAP429 AbuseStyle = "hap429" // "Too Many Requests (HAP429).", as until 2024
	AbuseRawLF  AbuseStyle = "rawLF"  // the same with bare line feeds, as captured in 2020
)

// TagDetail is the detail of the error for a missing tag.
type TagDetail string

const (
	TagDetailObject TagDetail = ""       // {"Tag":"…"}, 2021
	TagDetailString TagDetail = "string" // "unknown tag=…", newer
)

// TagsPaging is what tags/list does with ?n=.
type TagsPaging string

const (
	PagingIgnore   TagsPaging = ""         // the whole list, as Docker Hub in 2020
	PagingLink     TagsPaging = "link"     // pages, relative Link
	PagingAbsolute TagsPaging = "absolute" // pages, absolute Link
	PagingForeign  TagsPaging = "foreign"  // Link leads to the evil role
	PagingLoop     TagsPaging = "loop"     // Link leads to the same page
	PagingInner    TagsPaging = "inner"    // Link has a host and a path that only the registry knows
	PagingBare     TagsPaging = "bare"     // Link without brackets and quotes
	PagingRelative TagsPaging = "relative" // Link is a query, among others, with rel=NEXT
	PagingNoRel    TagsPaging = "no rel"   // Link without a relation
	PagingNothing  TagsPaging = "nothing"  // Link without a target
	PagingBroken   TagsPaging = "broken"   // Link leads to a page that fails
)

// ReferrersMode is what the referrers API does.
type ReferrersMode string

const (
	ReferrersOn   ReferrersMode = ""
	ReferrersOff  ReferrersMode = "off"  // 404
	ReferrersHTML ReferrersMode = "html" // 302 to a page of HTML
	ReferrersHuge ReferrersMode = "huge" // an index of 100,000 descriptors
)

// TokenShape is a variant of the token endpoint's answer.
type TokenShape string

const (
	TokenNormal       TokenShape = ""
	TokenOnlyToken    TokenShape = "only-token"
	TokenOnlyAccess   TokenShape = "only-access-token"
	TokenDifferent    TokenShape = "different" // token and access_token differ; only access_token is good
	TokenNoExpiry     TokenShape = "no-expires-in"
	TokenExpiryZero   TokenShape = "expires-0"
	TokenExpiry30     TokenShape = "expires-30"
	TokenExpiryString TokenShape = "expires-string" // "300"
	TokenExpiryHuge   TokenShape = "expires-1e9"
	TokenNoIssued     TokenShape = "no-issued-at"
	TokenIssuedAhead  TokenShape = "issued-ahead"   // by 10 minutes
	TokenIssuedBehind TokenShape = "issued-behind"  // by 10 minutes
	TokenIssuedBad    TokenShape = "issued-garbage" // not RFC 3339
	TokenHuge         TokenShape = "70k"            // a body of more than 70 KiB
	TokenTrailing     TokenShape = "trailing"       // garbage after the JSON
	TokenHTML         TokenShape = "html"           // 200 with a page of HTML
)

// Set changes options while the hub runs. Fields of the first group of [Options]
// must not be changed.
func (h *Hub) Set(change func(*Options)) {
	h.setMu.Lock()
	defer h.setMu.Unlock()
	o := *h.options.Load()
	change(&o)
	h.options.Store(&o)
}

func (h *Hub) opts() *Options { return h.options.Load() }
