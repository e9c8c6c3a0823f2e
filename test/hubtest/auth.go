package hubtest

import (
	"context"
	"crypto/subtle"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// identity is who asks the token endpoint.
type identity struct {
	user   *User // nil is anonymous
	oat    bool  // an organisation token: only the listed repositories
	public bool  // a PAT with repo:public_read
}

func (id identity) name() string {
	if id.user == nil {
		return ""
	}
	return id.user.Name
}

// answerAuth serves the token endpoint.
func (h *Hub) answerAuth(x *exchange) *Reply {
	if x.Route != RouteToken {
		return newReply(http.StatusNotFound, "text/plain; charset=utf-8", []byte("404 page not found\n"))
	}
	var a *Reply
	switch x.r.Method {
	case http.MethodGet, http.MethodHead:
		a = h.tokenGet(x)
	case http.MethodPost:
		a = h.tokenPost(x)
	default:
		a = newReply(http.StatusMethodNotAllowed, "text/plain; charset=utf-8", []byte("method not allowed\n"))
	}
	h.authHeaders(x, a)
	return a
}

// authHeaders are the token server's own budget and its Cloudflare cookie
// (exchange captured on 2026-07-15).
func (h *Hub) authHeaders(x *exchange, a *Reply) {
	const perMinute = 3000
	now := h.Now()
	used := h.book.tokenBudget(x.Address, now)
	a.Header.Set("X-Ratelimit-Limit", fmt.Sprintf("%d, %d;w=60", perMinute, perMinute))
	a.Header.Set("X-Ratelimit-Remaining", strconv.Itoa(max(perMinute-used, 0)))
	a.Header.Set("X-Ratelimit-Reset", strconv.Itoa(60-now.Second()))
	a.Header.Set("Set-Cookie", "__cf_bm=hubtest; path=/; HttpOnly; Secure; SameSite=None")
	a.Header.Set("Strict-Transport-Security", "max-age=31536000")
}

func (h *Hub) tokenGet(x *exchange) *Reply {
	q := x.r.URL.Query()
	if q.Get("service") != h.profile().service {
		return serviceError()
	}
	id, ok := h.basic(x.r)
	if !ok {
		return badCredentials()
	}
	return h.grant(x, id, q["scope"], grantOptions{refresh: q.Get("offline_token") == "true"})
}

func serviceError() *Reply {
	return newReply(http.StatusBadRequest, "application/json", []byte(`{"details":"service is not known"}`+"\n"))
}

// badCredentials is Docker Hub's irregular body: the key is details, there is no errors array.
func badCredentials() *Reply {
	return newReply(http.StatusUnauthorized, "application/json", []byte(`{"details":"incorrect username or password"}`+"\n"))
}

func (h *Hub) basic(r *http.Request) (identity, bool) {
	if r.Header.Get("Authorization") == "" {
		return identity{}, true
	}
	name, secret, ok := r.BasicAuth()
	if !ok {
		return identity{}, false
	}
	return h.login(name, secret)
}

// login checks a user name and a secret.
func (h *Hub) login(name, secret string) (identity, bool) {
	h.mu.RLock()
	u := h.users[name]
	h.mu.RUnlock()
	if u == nil || h.revoked(name) {
		return identity{}, false
	}
	same := func(s string) bool { return subtle.ConstantTimeCompare([]byte(s), []byte(secret)) == 1 }
	if slices.ContainsFunc(u.PublicOnly, same) {
		return identity{user: u, public: true}, true
	}
	if !slices.ContainsFunc(u.Secrets, same) {
		return identity{}, false
	}
	return identity{user: u, oat: strings.HasPrefix(secret, "dckr_oat_")}, true
}

// tokenPost is the OAuth2 form of the endpoint.
func (h *Hub) tokenPost(x *exchange) *Reply {
	if status := h.opts().OAuthStatus; status != 0 {
		return newReply(status, "application/json", []byte(`{"details":"not here"}`+"\n"))
	}
	if err := x.r.ParseForm(); err != nil {
		return newReply(http.StatusBadRequest, "application/json", []byte(`{"details":"bad form"}`+"\n"))
	}
	form := x.r.PostForm
	if form.Get("service") != h.profile().service || form.Get("client_id") == "" {
		return serviceError()
	}
	var id identity
	var ok bool
	switch form.Get("grant_type") {
	case "password":
		id, ok = h.login(form.Get("username"), form.Get("password"))
	case "refresh_token":
		id, ok = h.identityOf(form)
	default:
		return newReply(http.StatusBadRequest, "application/json", []byte(`{"details":"unknown grant type"}`+"\n"))
	}
	if !ok {
		return badCredentials()
	}
	return h.grant(x, id, form["scope"], grantOptions{post: true, refresh: form.Get("access_type") == "offline"})
}

// RefreshToken returns an identity token of an account, as docker login stores it.
func (h *Hub) RefreshToken(account string) string {
	return h.mint(claims{Issuer: tokenIssuer, Audience: "refresh", Subject: account, Expires: 1 << 40})
}

func (h *Hub) identityOf(form url.Values) (identity, bool) {
	c, _ := h.checkToken("Bearer " + form.Get("refresh_token"))
	if c == nil || c.Audience != "refresh" || h.revoked(c.Subject) {
		return identity{}, false
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	u := h.users[c.Subject]
	return identity{user: u}, u != nil
}

type grantOptions struct {
	post    bool // the answer has the keys of OAuth2
	refresh bool // a refresh token is wanted
}

// grant answers with a token for what id may have of the scopes. What it may not
// have is left out without an error, as the token specification demands.
func (h *Hub) grant(x *exchange, id identity, scopes []string, g grantOptions) *Reply {
	var words []string
	for _, s := range scopes {
		words = append(words, strings.Fields(s)...)
	}
	h.book.tokenIssued(id.name(), strings.Join(words, " "))
	if h.opts().MultiScopeBug && len(words) > 1 {
		words = words[:1]
	}
	if refused := h.profile().refuseScope(x.r.Context(), h, id, words); refused != nil {
		return refused
	}
	ttl := h.opts().TokenTTL
	if ttl == 0 {
		ttl = 300 * time.Second
	}
	now := h.Now()
	c := claims{
		Issuer: tokenIssuer, Audience: h.profile().service, Subject: id.name(),
		IssuedAt: now.Unix(), Expires: now.Add(ttl).Unix(), Access: []access{},
	}
	for _, w := range words {
		h.addAccess(x.r.Context(), &c, id, w)
	}
	return h.tokenReply(h.mint(c), id, words, ttl, g)
}

// splitScope cuts type:name:actions at the first and the last colon, since a name
// may contain one.
func splitScope(s string) (typ, name string, actions []string, ok bool) {
	first, last := strings.IndexByte(s, ':'), strings.LastIndexByte(s, ':')
	if first < 0 || first == last {
		return "", "", nil, false
	}
	return s[:first], s[first+1 : last], strings.Split(s[last+1:], ","), true
}

func (h *Hub) addAccess(ctx context.Context, c *claims, id identity, scope string) {
	typ, name, actions, ok := splitScope(scope)
	if !ok || typ != "repository" || !slices.Contains(actions, "pull") {
		return
	}
	opts, exists := h.visible(ctx, name)
	if !exists {
		return
	}
	switch {
	case id.oat && !id.user.lists(name):
		return
	case opts.Private && (id.user == nil || !id.user.mayRead(name)):
		return
	case opts.Private && id.public:
		c.Narrow = true
		return
	}
	c.Access = append(c.Access, access{typ, name, []string{"pull"}})
}

func (h *Hub) tokenReply(token string, id identity, scopes []string, ttl time.Duration, g grantOptions) *Reply {
	issued := h.Now()
	body := map[string]any{
		"token": token, "access_token": token,
		"expires_in": int(ttl / time.Second), "issued_at": issued.UTC().Format(time.RFC3339Nano),
	}
	if g.post {
		delete(body, "token")
		body["scope"] = strings.Join(scopes, " ")
	}
	if g.refresh && id.user != nil {
		body["refresh_token"] = h.RefreshToken(id.name())
	}
	h.profile().shapeToken(body)
	shapeToken(body, h.opts().TokenShape, issued)
	a := jsonReply(http.StatusOK, body)
	switch h.opts().TokenShape {
	case TokenTrailing:
		a.SetBody(append(a.Body(), "}garbage"...))
	case TokenHTML:
		return newReply(http.StatusOK, "text/html", []byte("<html><body>Sign in</body></html>\n"))
	}
	return a
}

func shapeToken(body map[string]any, shape TokenShape, issued time.Time) {
	switch shape {
	case TokenOnlyToken:
		body["token"] = body["access_token"]
		delete(body, "access_token")
	case TokenOnlyAccess:
		delete(body, "token")
	case TokenDifferent:
		body["token"] = "not-the-token"
	case TokenNoExpiry:
		delete(body, "expires_in")
	case TokenExpiryZero:
		body["expires_in"] = 0
	case TokenExpiry30:
		body["expires_in"] = 30
	case TokenExpiryString:
		body["expires_in"] = "300"
	case TokenExpiryHuge:
		body["expires_in"] = 1_000_000_000
	case TokenNoIssued:
		delete(body, "issued_at")
	case TokenIssuedAhead:
		body["issued_at"] = issued.Add(10 * time.Minute).UTC().Format(time.RFC3339Nano)
	case TokenIssuedBehind:
		body["issued_at"] = issued.Add(-10 * time.Minute).UTC().Format(time.RFC3339Nano)
	case TokenIssuedBad:
		body["issued_at"] = "yesterday, about noon"
	case TokenHuge:
		body["padding"] = strings.Repeat("x", 70<<10)
	}
}
