package access

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"forebay/internal/allowance"
	"forebay/internal/authn"
	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/proxy"
)

// Mode says what a listener wants of its clients.
type Mode uint8

const (
	// Open takes no notice of what a client shows: dockerd sends a registry's credentials to its
	// mirrors once one has asked, and none of them is looked at.
	Open Mode = iota
	// Optional serves clients that show nothing as nobody.
	Optional
	// Required lets in only who proves who it is, or comes from a named network.
	Required
)

// Door is the way in by one listener. Without Auth it lets everybody have all of Upstreams.
type Door struct {
	Auth      *authn.Authenticator
	Mode      Mode
	Rules     *Rules
	Upstreams []string // that are served here; none means all
	// Asked are the upstreams that are asked what each client may have, by their names.
	Asked  map[string]Asked
	Rights *Rights // what they answered; required with Asked
	Terms  []Terms // limits of some; the first that is about a client counts
	// Trusted are the networks of proxies that are believed, as those on this machine are, when they say
	// that a client came by TLS, and under which name.
	Trusted []netip.Prefix
}

// Terms are the limits of some identities.
type Terms struct {
	Who authn.Who
	allowance.Terms
}

// Admit returns who sends r and what it may have, as [proxy.Gate] has it.
func (d *Door) Admit(r *http.Request, to *wire.Route) (proxy.Guest, error) {
	if d.Auth == nil {
		return proxy.Guest{
			May:  func(_ context.Context, to *wire.Route) (string, error) { return d.served(to.Upstream) },
			Sees: func(upstream, _ string) bool { _, err := d.served(upstream); return err == nil },
		}, nil
	}
	v := visitor{door: d, r: r}
	if v.asked = d.meant(to); v.asked != "" && d.Mode != Open {
		if user, password, ok := r.BasicAuth(); ok {
			v.login, r = d.Rights.login(user, password), withoutCredentials(r)
		}
	}
	id, err := d.identify(r)
	switch {
	case errors.Is(err, authn.ErrTooMany):
		return proxy.Guest{}, tooMany(err)
	case err != nil:
		return proxy.Guest{}, d.challenge(r, err.Error())
	case d.Mode == Required && !id.Known() && v.login == nil:
		return proxy.Guest{}, v.challenge("this mirror wants to know who you are: log in to it")
	}
	v.id = id
	g := proxy.Guest{Groups: id.Groups, May: v.may, Sees: v.sees}
	if i := slices.IndexFunc(d.Terms, func(t Terms) bool { return t.Who.Has(id) }); i >= 0 {
		g.Terms = &d.Terms[i].Terms
	}
	if id.Known() {
		g.Name = authn.Qualified(id)
	}
	if d.Asked[to.Upstream].PassThrough {
		g.Login = v.shown()
	}
	return g, nil
}

func (d *Door) identify(r *http.Request) (authn.Identity, error) {
	if d.Mode == Open {
		r = withoutCredentials(r)
	}
	return Identify(d.Auth, r)
}

// Identify returns who sends r, by its connection and what it shows.
func Identify(auth *authn.Authenticator, r *http.Request) (authn.Identity, error) {
	return auth.Identify(r, addressOf(r), certificateOf(r))
}

// visitor is who sends one request.
type visitor struct {
	door  *Door
	r     *http.Request
	id    authn.Identity
	asked string      // the registry that what it shows is for; empty: what it shows is for us
	login *pull.Login // that it shows for asked; nil for none
}

// may returns the rule that lets the visitor have what a request means, or why not.
func (v *visitor) may(ctx context.Context, to *wire.Route) (rule string, err error) {
	d := v.door
	if rule, err := d.served(to.Upstream); err != nil {
		return rule, err
	}
	if to.Repository == "" {
		if d.Rules.Any(v.id, to.Upstream) {
			return "", nil
		}
		return "", v.refuse()
	}
	decision := d.Rules.Decide(v.id, to.Upstream, to.Repository)
	if decision.Ask {
		return decision.Rule, v.ask(ctx, to)
	}
	if !decision.Allowed {
		return decision.Rule, v.refuse()
	}
	return decision.Rule, nil
}

// sees reports whether the visitor may know of a repository.
func (v *visitor) sees(upstream, repository string) bool {
	if _, err := v.door.served(upstream); err != nil {
		return false
	}
	decision := v.door.Rules.Decide(v.id, upstream, repository)
	return decision.Allowed || decision.Ask && v.door.Rights.Known(v.shown(), upstream, repository)
}

// shown returns in whose name an upstream is asked: whoever shows nothing is nobody there.
func (v *visitor) shown() *pull.Login {
	if v.login == nil {
		return &pull.Login{}
	}
	return v.login
}

// ask returns why the visitor may not have something, by the word of its registry.
func (v *visitor) ask(ctx context.Context, to *wire.Route) error {
	d := v.door
	var begin Begin
	if v.login != nil {
		begin = func(ctx context.Context) (func(bool), bool) { return d.Auth.Guess(ctx, addressOf(v.r)) }
	}
	err := d.Rights.Prove(ctx, v.shown(), d.Asked[to.Upstream].TTL, to, begin)
	switch kind := pull.KindOf(err); {
	case errors.Is(err, authn.ErrTooMany):
		return tooMany(err)
	case err != nil && (kind == pull.Denied || kind == pull.NotFound):
		return v.refuse()
	}
	return err
}

// meant returns the upstream that a client's credentials for a registry are for; empty for none. A
// client has them for the host that it asks. Whether that is a registry to it can be told when it
// names one beside the path, when that host stands for one, or when there is no other here.
func (d *Door) meant(to *wire.Route) string {
	var here []string
	for name := range d.Asked {
		if _, err := d.served(name); err == nil {
			here = append(here, name)
		}
	}
	name := cmp.Or(to.Upstream, to.Host)
	if name == "" && len(here) == 1 && (len(d.Upstreams) == 1 || !d.Auth.Takes()) {
		name = here[0] // a ping, of a mirror that has no use for them itself
	}
	told := to.Namespace != "" || to.Prefix == wire.RootPrefix || to.Host == name && to.Prefix == wire.NoPrefix
	if !slices.Contains(here, name) || !told && len(here) > 1 {
		return ""
	}
	return name
}

// served refuses upstreams that the listener does not serve.
func (d *Door) served(upstream string) (rule string, err error) {
	if len(d.Upstreams) > 0 && !slices.Contains(d.Upstreams, upstream) {
		return "upstreams of the listener", proxy.ErrHidden
	}
	return "", nil
}

// refuse is the answer to who may not have something: nobody is asked who it is, whether the thing
// exists or not, and who is known is told what it would be told of a thing that does not exist.
func (v *visitor) refuse() error {
	if !v.id.Known() && v.login == nil && v.door.Mode != Open {
		return v.challenge("log in to the mirror for this")
	}
	return proxy.ErrHidden
}

// challenge asks the visitor to log in: to the registry by Basic, which leads the credentials for it
// here, or to us.
func (v *visitor) challenge(why string) error {
	if v.asked == "" {
		return v.door.challenge(v.r, why)
	}
	return &proxy.Refusal{
		Status: http.StatusUnauthorized, Code: "UNAUTHORIZED", Message: "log in to the mirror with what you have for " + v.asked,
		Challenge: fmt.Sprintf("Basic realm=%q", v.asked),
	}
}

func tooMany(err error) error {
	return &proxy.Refusal{Status: http.StatusTooManyRequests, Code: "TOOMANYREQUESTS", Message: err.Error(), RetryAfter: authn.RetryAfter}
}

// TokenPath is where tokens are had, on the port of the registry API.
const TokenPath = "/token"

// service is our name in challenges and tokens.
const service = "forebay"

// challenge asks the client to log in, at our own token endpoint.
func (d *Door) challenge(r *http.Request, why string) error {
	return &proxy.Refusal{
		Status: http.StatusUnauthorized, Code: "UNAUTHORIZED", Message: why,
		Challenge: fmt.Sprintf(`Bearer realm=%q,service=%q`, d.origin(r)+TokenPath, service),
	}
}

// origin returns where the client found us: where a proxy did that is believed, and of several the first.
func (d *Door) origin(r *http.Request) string {
	scheme, host := "http", r.Host
	if r.TLS != nil {
		scheme = "https"
	}
	if addr := addressOf(r); !addr.IsValid() || addr.IsLoopback() || trusts(d.Trusted, addr) { // of a Unix socket there is none
		if proto := forwarded(r, "X-Forwarded-Proto"); strings.EqualFold(proto, "https") {
			scheme = "https"
		}
		if name := forwarded(r, "X-Forwarded-Host"); name != "" && !strings.ContainsAny(name, `"\/ `) {
			host = name
		}
	}
	return scheme + "://" + host
}

// forwarded returns what the first proxy says of the client: each may add its own behind a comma.
func forwarded(r *http.Request, header string) string {
	first, _, _ := strings.Cut(r.Header.Get(header), ",")
	return strings.TrimSpace(first)
}

// token is the answer of the token endpoint (distribution's token authentication specification).
type token struct {
	Token       string    `json:"token"`
	AccessToken string    `json:"access_token"` // the same, as OAuth 2 calls it
	ExpiresIn   int       `json:"expires_in"`   // seconds
	IssuedAt    time.Time `json:"issued_at"`
}

// ServeHTTP is the token endpoint: whoever proves who it is by a GET with Basic or Bearer, or by a
// POST as in OAuth 2 (RFC 6749 section 4.3), gets a token that says so for some minutes. What it
// may pull is decided at each request, whatever scope it asks for.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
	case http.MethodPost:
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		if r.ParseForm() != nil || r.PostForm.Get("grant_type") != "password" {
			writeError(w, http.StatusBadRequest, "UNSUPPORTED", "use grant_type=password, or a GET with a user and password")
			return
		}
		r = r.Clone(r.Context())
		r.SetBasicAuth(r.PostForm.Get("username"), r.PostForm.Get("password"))
	default:
		w.Header().Set("Allow", "GET, POST")
		writeError(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "only GET and POST are supported")
		return
	}
	id, err := d.identify(r)
	switch {
	case errors.Is(err, authn.ErrTooMany):
		w.Header().Set("Retry-After", fmt.Sprint(int(authn.RetryAfter.Seconds())))
		writeError(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", err.Error())
		return
	case err == nil && !id.Known() && d.Mode == Required:
		err = authn.ErrRefused
		fallthrough
	case err != nil:
		w.Header().Set("WWW-Authenticate", `Basic realm="`+service+`"`)
		writeError(w, http.StatusUnauthorized, "UNAUTHORIZED", err.Error())
		return
	}
	text, lifetime, err := d.Auth.Exchange(id)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "UNAVAILABLE", "no token can be made")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(token{text, text, int(lifetime.Seconds()), time.Now().UTC().Truncate(time.Second)}) // the client is gone if it fails
}

// writeError answers with the error document of the registry API.
func writeError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}}) // the client is gone if it fails
}

// withoutCredentials returns r as if the client had shown nothing.
func withoutCredentials(r *http.Request) *http.Request {
	if r.Header.Get("Authorization") == "" {
		return r
	}
	r = r.Clone(r.Context())
	r.Header.Del("Authorization")
	return r
}

// certificateOf returns the certificate that the client has shown and that was verified.
func certificateOf(r *http.Request) *x509.Certificate {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	return r.TLS.VerifiedChains[0][0]
}

// addressOf returns where r came from; the zero address for a Unix socket.
func addressOf(r *http.Request) netip.Addr {
	addr, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Addr().Unmap().WithZone("")
}

func trusts(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// IsToken reports whether a request is for the token endpoint.
func IsToken(r *http.Request) bool { return strings.TrimSuffix(r.URL.Path, "/") == TokenPath }
