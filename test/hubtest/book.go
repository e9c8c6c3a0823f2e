package hubtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// RequestKey groups requests that are alike.
type RequestKey struct {
	Role   Role
	Method string
	Route  Route
	Repo   string
	Ref    string
	Status int // 0 while the answer is not decided, or when none was sent
}

// Query selects requests. Empty fields match anything; Role may be [CDN] and Route
// may be [RouteManifest].
type Query RequestKey

func (q Query) covers(k RequestKey) bool {
	return q.Role.covers(k.Role) && q.Route.covers(k.Route) &&
		(q.Method == "" || q.Method == k.Method) &&
		(q.Repo == "" || q.Repo == k.Repo) &&
		(q.Ref == "" || q.Ref == k.Ref) &&
		(q.Status == 0 || q.Status == k.Status)
}

// Counters is what the hub saw. A snapshot is a copy.
type Counters struct {
	Requests map[RequestKey]int
	// ManifestGet counts manifest bodies sent (200), by "repo@digest". ManifestHead
	// counts HEADs with any answer, by "repo:tag" or "repo@digest".
	ManifestGet  map[string]int
	ManifestHead map[string]int
	// By digest. BlobBytes are body bytes handed to the connection.
	BlobRedirects    map[string]int
	BlobBytes        map[string]int64
	BlobBodyStarted  map[string]int
	BlobBodyFinished map[string]int
	RangeRequests    map[string]int // with a Range, whether it was honoured or not

	TokensIssued  map[string]int // by "principal scope"; the principal of anonymous is ""
	TokenRequests int
	OAuthPosts    int
	AuthCookies   int // requests to the token endpoint that returned its cookie

	Charged    map[string]int // by principal
	AbuseUnits map[string]int // by address
	HubAPI     int            // requests to the hub API

	Conns               map[Role]int // connections accepted
	MaxInflight         map[Role]int
	MaxInflightSameBlob int // bodies of one digest sent at the same time

	WriteAttempts  int // methods other than GET and HEAD at registry or CDN
	CDNAuthLeak    int // Authorization sent to a CDN
	CDNCookieLeak  int
	CDNRefererLeak int
	RegistryCookie int
	Forwarded      int // requests with X-Forwarded-*, Forwarded or Via
	NsParam        int // requests with ?ns=
	EvilHits       int
	EvilCredential int // of EvilHits, those with a credential or token
	MetaHits       int
	EgressDenied   map[string]int // by host:port, through Hub.DialContext

	FaultFired     map[string]int // by rule ID
	UserAgent      map[string]int
	Accept         map[string]int
	AcceptEncoding map[string]int
}

func newCounters() Counters {
	return Counters{
		Requests: map[RequestKey]int{}, ManifestGet: map[string]int{}, ManifestHead: map[string]int{},
		BlobRedirects: map[string]int{}, BlobBytes: map[string]int64{}, BlobBodyStarted: map[string]int{},
		BlobBodyFinished: map[string]int{}, RangeRequests: map[string]int{}, TokensIssued: map[string]int{},
		Conns: map[Role]int{}, MaxInflight: map[Role]int{}, EgressDenied: map[string]int{},
		UserAgent: map[string]int{}, Accept: map[string]int{}, AcceptEncoding: map[string]int{},
	}
}

func (c Counters) clone() Counters {
	c.Requests = maps.Clone(c.Requests)
	c.ManifestGet, c.ManifestHead = maps.Clone(c.ManifestGet), maps.Clone(c.ManifestHead)
	c.BlobRedirects, c.BlobBytes = maps.Clone(c.BlobRedirects), maps.Clone(c.BlobBytes)
	c.BlobBodyStarted, c.BlobBodyFinished = maps.Clone(c.BlobBodyStarted), maps.Clone(c.BlobBodyFinished)
	c.RangeRequests, c.TokensIssued = maps.Clone(c.RangeRequests), maps.Clone(c.TokensIssued)
	c.Conns, c.MaxInflight, c.EgressDenied = maps.Clone(c.Conns), maps.Clone(c.MaxInflight), maps.Clone(c.EgressDenied)
	c.UserAgent, c.Accept, c.AcceptEncoding = maps.Clone(c.UserAgent), maps.Clone(c.Accept), maps.Clone(c.AcceptEncoding)
	return c
}

// ledgerMax is how many requests the ledger keeps; older ones are dropped, but stay counted.
const ledgerMax = 20_000

// book counts and remembers what the hub saw.
type book struct {
	mu       sync.Mutex
	idle     *sync.Cond // signalled when inflight becomes 0
	c        Counters
	ledger   []*entry // guarded by mu, as are its entries
	dropped  int
	inflight map[Role]int
	active   int
	sameBlob map[string]int
	faults   []string       // problems that must fail the test
	budget   map[string]int // token requests of one address in a minute
	buffers  sync.Pool      // of *[]byte, chunkBytes long
}

func newBook() *book {
	b := &book{c: newCounters(), inflight: map[Role]int{}, sameBlob: map[string]int{}, budget: map[string]int{}}
	b.idle = sync.NewCond(&b.mu)
	b.buffers.New = func() any { p := make([]byte, chunkBytes); return &p }
	return b
}

func (b *book) buffer() *[]byte     { return b.buffers.Get().(*[]byte) }
func (b *book) release(p *[]byte)   { b.buffers.Put(p) }
func (b *book) addConn(role Role)   { b.mu.Lock(); b.c.Conns[role]++; b.mu.Unlock() }
func (b *book) deny(addr string)    { b.mu.Lock(); b.c.EgressDenied[addr]++; b.mu.Unlock() }
func (b *book) wrote()              { b.mu.Lock(); b.c.WriteAttempts++; b.mu.Unlock() }
func (b *book) redirected(d string) { b.mu.Lock(); b.c.BlobRedirects[d]++; b.mu.Unlock() }
func (b *book) problem(s string)    { b.mu.Lock(); b.faults = append(b.faults, s); b.mu.Unlock() }

func (b *book) problems() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.faults)
}

func (b *book) tokenIssued(principal, scope string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.c.TokensIssued[principal+" "+scope]++
}

// tokenBudget books a token request of an address in the current minute.
func (b *book) tokenBudget(address string, now time.Time) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := address + now.UTC().Format(" 2006-01-02T15:04")
	b.budget[id]++
	return b.budget[id]
}

// arrive books a request before it is answered.
func (b *book) arrive(x *exchange) *entry {
	r := x.r
	e := &entry{
		at: x.Hub.Now(), role: x.Role, method: r.Method, url: safeURL(r), header: safeHeader(r.Header),
		principal: x.Principal, key: RequestKey{x.Role, r.Method, x.Route, x.Repo, x.Ref, 0},
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ledger) >= ledgerMax {
		b.dropped += ledgerMax / 2
		b.ledger = slices.Clone(b.ledger[ledgerMax/2:])
	}
	b.ledger = append(b.ledger, e)
	b.c.Requests[e.key]++
	b.active++
	b.inflight[x.Role]++
	b.c.MaxInflight[x.Role] = max(b.c.MaxInflight[x.Role], b.inflight[x.Role])
	b.note(x)
	b.leaks(x)
	return e
}

// note counts what is worth knowing about a request. b.mu is held.
func (b *book) note(x *exchange) {
	r := x.r
	b.c.UserAgent[r.UserAgent()]++
	b.c.Accept[strings.Join(r.Header.Values("Accept"), ", ")]++
	b.c.AcceptEncoding[strings.Join(r.Header.Values("Accept-Encoding"), ", ")]++
	switch {
	case x.Route == RouteToken:
		b.c.TokenRequests++
		if r.Method == http.MethodPost {
			b.c.OAuthPosts++
		}
		if r.Header.Get("Cookie") != "" {
			b.c.AuthCookies++
		}
	case RouteManifest.covers(x.Route) && r.Method == http.MethodHead:
		b.c.ManifestHead[nameOf(x.Repo, x.Ref)]++
	case x.Role == RoleHubAPI:
		b.c.HubAPI++
	}
}

// leaks counts what a client must never send. b.mu is held.
func (b *book) leaks(x *exchange) {
	head := x.r.Header
	if x.r.URL.Query().Has("ns") {
		b.c.NsParam++
	}
	for k := range head {
		if strings.HasPrefix(k, "X-Forwarded-") || k == "Forwarded" || k == "Via" {
			b.c.Forwarded++
			break
		}
	}
	switch {
	case x.Role.servesBlobs():
		b.c.CDNAuthLeak += one(head.Get("Authorization") != "")
		b.c.CDNCookieLeak += one(head.Get("Cookie") != "")
		b.c.CDNRefererLeak += one(head.Get("Referer") != "")
	case x.Role == RoleRegistry:
		b.c.RegistryCookie += one(head.Get("Cookie") != "")
	case x.Role == RoleEvil:
		b.c.EvilHits++
		b.c.EvilCredential += one(carriesCredential(x.r))
	case x.Role == RoleMeta:
		b.c.MetaHits++
	}
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func carriesCredential(r *http.Request) bool {
	if r.Header.Get("Authorization") != "" || r.Header.Get("Cookie") != "" || r.URL.User != nil {
		return true
	}
	if err := r.ParseForm(); err != nil {
		return false
	}
	for _, key := range []string{"password", "refresh_token", "username", "account"} {
		if r.Form.Has(key) {
			return true
		}
	}
	return false
}

func nameOf(repo, ref string) string {
	if strings.Contains(ref, ":") {
		return repo + "@" + ref
	}
	return repo + ":" + ref
}

// answered books the answer just before it is written.
func (b *book) answered(x *exchange) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := x.entry
	if b.c.Requests[e.key]--; b.c.Requests[e.key] <= 0 {
		delete(b.c.Requests, e.key)
	}
	e.key.Status = x.reply.Status
	b.c.Requests[e.key]++
	if x.ranged && x.Route == RouteBlob && x.reply.Status/100 != 3 {
		b.c.RangeRequests[x.Ref]++
	}
	if RouteManifest.covers(x.Route) && x.r.Method == http.MethodGet && x.reply.Status == http.StatusOK {
		b.c.ManifestGet[x.Repo+"@"+x.reply.digest]++
	}
}

func (b *book) bodyStarted(x *exchange, digest string) {
	if digest == "" || x.Route != RouteBlob {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.c.BlobBodyStarted[digest]++
	b.sameBlob[digest]++
	b.c.MaxInflightSameBlob = max(b.c.MaxInflightSameBlob, b.sameBlob[digest])
}

func (b *book) bodyEnded(x *exchange, digest string, whole bool) {
	if digest == "" || x.Route != RouteBlob {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sameBlob[digest]--
	b.c.BlobBodyFinished[digest] += one(whole)
}

// sent books n body bytes; a negative n takes back what was not written.
func (b *book) sent(x *exchange, digest string, n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x.entry.bytes += n
	if digest != "" && x.Route == RouteBlob {
		b.c.BlobBytes[digest] += n
	}
}

func (b *book) leave(x *exchange) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x.entry.done = true
	b.inflight[x.Role]--
	if b.active--; b.active == 0 {
		b.idle.Broadcast()
	}
}

// waitIdle waits until no request is being answered, at most for limit. It reports
// whether that came about.
func (b *book) waitIdle(limit time.Duration) bool {
	late := false
	timer := time.AfterFunc(limit, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		late = true
		b.idle.Broadcast()
	})
	defer timer.Stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.active > 0 && !late {
		b.idle.Wait()
	}
	return b.active == 0
}

// Settle waits until the hub answers no request any more, so that counters are
// final, and fails the test when that takes more than ten seconds.
func (h *Hub) Settle(t testing.TB) {
	t.Helper()
	if !h.book.waitIdle(10 * time.Second) {
		t.Errorf("hub still answers requests after 10 s")
	}
}

// Counters returns a snapshot.
func (h *Hub) Counters() Counters {
	h.book.mu.Lock()
	c := h.book.c.clone()
	h.book.mu.Unlock()
	h.limiter.mu.Lock()
	c.Charged, c.AbuseUnits = maps.Clone(h.limiter.charged), maps.Clone(h.limiter.abuseUnits)
	h.limiter.mu.Unlock()
	c.FaultFired = map[string]int{}
	h.rules.mu.Lock()
	defer h.rules.mu.Unlock()
	for _, a := range h.rules.list {
		c.FaultFired[a.rule.ID] += a.fired
	}
	return c
}

// ResetCounters forgets requests, bytes and connections counted so far, and the
// ledger. What AssertClean looks at, charges and fired rules stay.
func (h *Hub) ResetCounters() {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	old, c := h.book.c, newCounters()
	c.AuthCookies, c.WriteAttempts, c.CDNAuthLeak = old.AuthCookies, old.WriteAttempts, old.CDNAuthLeak
	c.CDNCookieLeak, c.CDNRefererLeak, c.RegistryCookie = old.CDNCookieLeak, old.CDNRefererLeak, old.RegistryCookie
	c.Forwarded, c.NsParam, c.EvilHits = old.Forwarded, old.NsParam, old.EvilHits
	c.EvilCredential, c.MetaHits, c.EgressDenied = old.EvilCredential, old.MetaHits, old.EgressDenied
	h.book.c, h.book.ledger, h.book.dropped = c, nil, 0
}

// Count returns the number of requests that match, those without an answer included.
func (h *Hub) Count(q Query) int {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	n := 0
	for k, v := range h.book.c.Requests {
		if q.covers(k) {
			n += v
		}
	}
	return n
}

// Requests returns the number of all requests to all roles.
func (h *Hub) Requests() int { return h.Count(Query{}) }

// BlobBytes returns the body bytes of a blob sent by all CDNs.
func (h *Hub) BlobBytes(digest string) int64 {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	return h.book.c.BlobBytes[digest]
}

// BlobGets returns how many bodies of a blob were begun, whole or part.
func (h *Hub) BlobGets(digest string) int {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	return h.book.c.BlobBodyStarted[digest]
}

// ManifestGets returns how many times a manifest was sent to a GET, in any repository.
func (h *Hub) ManifestGets(digest string) int {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	n := 0
	for k, v := range h.book.c.ManifestGet {
		if strings.HasSuffix(k, "@"+digest) {
			n += v
		}
	}
	return n
}

// ManifestHeads returns how many HEADs asked for a tag or digest of a repository.
func (h *Hub) ManifestHeads(repo, ref string) int {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	return h.book.c.ManifestHead[nameOf(repo, ref)]
}

// TokenRequests returns the number of requests to the token endpoint.
func (h *Hub) TokenRequests() int {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	return h.book.c.TokenRequests
}

// AssertClean fails the test if the client under test did anything that a mirror must
// never do: leak a credential, cookie or Referer, write, follow the attacker, ask the
// metadata address, forward ?ns= or X-Forwarded-*, or dial an unknown address.
func (h *Hub) AssertClean(t testing.TB) {
	t.Helper()
	c := h.Counters()
	assertZero(t, "evil_hits", c.EvilHits)
	h.AssertNoLeaks(t)
	for addr, n := range c.EgressDenied {
		t.Errorf("egress_denied{%s} = %d, want 0", addr, n)
	}
}

// AssertNoLeaks is AssertClean for tests that mean the client to reach the evil role
// or unknown addresses, as long as it hands over nothing.
func (h *Hub) AssertNoLeaks(t testing.TB) {
	t.Helper()
	c := h.Counters()
	assertZero(t, "cdn_auth_leak", c.CDNAuthLeak)
	assertZero(t, "cdn_cookie_leak", c.CDNCookieLeak)
	assertZero(t, "cdn_referer_leak", c.CDNRefererLeak)
	assertZero(t, "registry_cookie", c.RegistryCookie)
	assertZero(t, "auth_cookie_seen", c.AuthCookies)
	assertZero(t, "forwarded", c.Forwarded)
	assertZero(t, "ns_param_seen", c.NsParam)
	assertZero(t, "evil_credentials", c.EvilCredential)
	assertZero(t, "meta_hits", c.MetaHits)
	assertZero(t, "write_attempts", c.WriteAttempts)
}

func assertZero(t testing.TB, name string, n int) {
	t.Helper()
	if n != 0 {
		t.Errorf("%s = %d, want 0", name, n)
	}
}

// entry is one request in the ledger.
type entry struct {
	at        time.Time
	role      Role
	method    string
	url       string
	header    []string
	principal string
	key       RequestKey
	bytes     int64
	done      bool
}

// Ledger returns every request seen, one a line, oldest first. Secrets are shown as
// the first eight hexadecimal digits of their sha256.
func (h *Hub) Ledger() string {
	h.book.mu.Lock()
	defer h.book.mu.Unlock()
	var b strings.Builder
	if h.book.dropped > 0 {
		fmt.Fprintf(&b, "(%d older requests dropped)\n", h.book.dropped)
	}
	for _, e := range h.book.ledger {
		fmt.Fprintf(&b, "%s %-8s %-4s %s → %d, %d bytes", e.at.UTC().Format("15:04:05.000"), e.role, e.method, e.url, e.key.Status, e.bytes)
		if !e.done {
			b.WriteString(" (running)")
		}
		fmt.Fprintf(&b, " [%s] %s\n", e.principal, strings.Join(e.header, "; "))
	}
	return b.String()
}

func hidden(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return "sha256[" + hex.EncodeToString(sum[:4]) + "]"
}

// secretParams are query parameters that give access.
func secretParam(name string) bool {
	switch name {
	case "verify", "X-Amz-Signature", "X-Amz-Credential", "Signature", "sig", "password", "refresh_token":
		return true
	}
	return false
}

func safeURL(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	q := r.URL.Query()
	if len(q) == 0 {
		return path
	}
	for k, vs := range q {
		for i := range vs {
			if secretParam(k) {
				vs[i] = hidden(vs[i])
			}
		}
	}
	text, err := url.QueryUnescape(q.Encode())
	if err != nil {
		return path
	}
	return path + "?" + text
}

func safeHeader(head http.Header) []string {
	var list []string
	for _, k := range slices.Sorted(maps.Keys(head)) {
		v := strings.Join(head[k], ", ")
		switch k {
		case "Authorization":
			scheme, secret, _ := strings.Cut(v, " ")
			v = scheme + " " + hidden(secret)
		case "Cookie":
			v = hidden(v)
		case "User-Agent", "Accept", "Accept-Encoding", "Range", "If-Range", "If-None-Match", "Referer":
		default:
			if !strings.HasPrefix(k, "X-Forwarded-") {
				continue
			}
		}
		list = append(list, k+": "+v)
	}
	return list
}

// WaitFor waits until cond is true of the hub's counters, and fails the test after
// limit. It looks every 10 ms.
func (h *Hub) WaitFor(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(h.ctx, limit)
	defer cancel()
	for !cond() {
		if pause(ctx, 10*time.Millisecond) != nil && !cond() {
			t.Fatalf("hub: no %s within %s", what, limit)
		}
	}
}
