package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"forebay/internal/session"
)

// OwnHeader must be on every request that changes something, with any value. A foreign web
// page cannot make a browser send it without a preflight request, which we do not answer.
const OwnHeader = "Forebay-Request"

// guard decides who may ask for what: whoever has the token for everything, others as their role
// says. Without a token or operators, everybody who calls from within this process is answered, and
// nobody else. Requests into which a foreign page may trick a browser are refused by their Host (a
// foreign name that resolves to us), their Origin, and the lack of [OwnHeader].
type guard struct {
	loopback  bool
	token     atomic.Pointer[[sha256.Size]byte]       // digest of the token, so that all have one length; nil without one
	operators func(r *http.Request) (Operator, error) // others; nil without
	sessions  *session.Sessions
	origin    *http.CrossOriginProtection
	names     Names
}

// SetToken lets in whoever has that token from now on, and nobody with another one.
func (a *API) SetToken(token string) {
	sum := sha256.Sum256([]byte(token))
	a.guard.token.Store(&sum)
}

// foreign returns why a request to a listener on loopback is refused, whatever it asks for, or
// nil: it names a host that is not this machine's own, as one does that a page was made to send by
// a name that resolves to us, or somebody elsewhere sent it, and a proxy on this machine passed it
// on. Who shows a credential that is right is no stranger.
func (g *guard) foreign(r *http.Request) error {
	if !g.loopback {
		return nil
	}
	if r.Header.Get("Authorization") != "" || r.Header.Get(session.Header) != "" {
		if o, err := g.who(r); err == nil && o.Name != "" {
			return nil
		}
	}
	if !loopbackHost(r.Host) {
		return &problem{http.StatusForbidden, "foreign_host", "the request names the host " + clip(r.Host) + ", which is not this machine's own: use 127.0.0.1 or localhost, or send the token"}
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Forwarded") || slices.Contains(passedOn, name) {
			return &problem{http.StatusForbidden, "forwarded", "the request has " + clip(name) + ", so that a proxy passed it on: have the proxy send the token"}
		}
	}
	return nil
}

// passedOn are headers that proxies add, beside X-Forwarded-….
var passedOn = []string{"Forwarded", "Via", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip"}

// errUnknown refuses who has shown nothing that is right.
var errUnknown = &problem{http.StatusUnauthorized, "unauthorized", "that is no user, password or token of this server's operators"}

// admit returns why a request that is not [guard.foreign] may not have what needs a role, or nil.
func (g *guard) admit(r *http.Request, need Role) error {
	o, err := g.who(r)
	switch {
	case need == "":
	case err != nil:
		return err
	case o.Role.may(need):
	case o.Name != "":
		return lacks(o, need)
	case g.token.Load() == nil && g.operators == nil:
		return &problem{http.StatusForbidden, "no_token", g.names.Listen + " is not a loopback address, so that the admin API needs a token: set " + g.names.TokenFile}
	default:
		return &problem{http.StatusUnauthorized, "unauthorized", "this needs the header Authorization: Bearer TOKEN, with the token of " + g.names.Token}
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return nil
	}
	if err := g.origin.Check(r); err != nil {
		return &problem{http.StatusForbidden, "foreign_origin", "the request comes from a page of another origin"}
	}
	if r.Header.Get(OwnHeader) == "" {
		return &problem{http.StatusForbidden, "no_header", "a request that changes something needs the header " + OwnHeader + ": 1"}
	}
	want := "application/json"
	if movesContent(r) {
		want = "application/octet-stream"
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != want {
		return &problem{http.StatusUnsupportedMediaType, "bad_type", "this request needs Content-Type: " + want}
	}
	return nil
}

// ownPage reports whether a request may open a stream. A foreign page could not read it,
// but could use up the number of streams.
func ownPage(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	return site == "" || site == "same-origin" || site == "none"
}

// who returns who sends r, which is nobody for who shows nothing.
func (g *guard) who(r *http.Request) (Operator, error) {
	_, v := visiting(r)
	if !v.known {
		v.known = true
		v.who, v.err = g.identify(r)
	}
	return v.who, v.err
}

// identify looks at what r shows; a session is what was shown when it began.
func (g *guard) identify(r *http.Request) (Operator, error) {
	if r.Header.Get("Authorization") == "" {
		if shown, ok := g.sessions.Shown(r); ok {
			r = r.Clone(r.Context())
			r.Header.Set("Authorization", shown)
		}
	}
	switch {
	case g.knows(r):
		return Operator{tokenHolder, Admin}, nil
	case g.operators != nil:
		return g.operators(r)
	case g.token.Load() == nil && g.loopback:
		return Operator{Role: Admin}, nil
	default:
		return Operator{}, nil
	}
}

// knows reports whether a request has the token. How long it takes does not depend on how
// much of the token is right.
func (g *guard) knows(r *http.Request) bool {
	want := g.token.Load()
	if want == nil {
		return false
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	sum := sha256.Sum256([]byte(token))
	return subtle.ConstantTimeCompare(sum[:], want[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

// loopbackHost reports whether a Host header means this machine, whoever resolves it.
func loopbackHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	ip := net.ParseIP(name)
	return ip != nil && ip.IsLoopback()
}
