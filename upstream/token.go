package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"

	"forebay/internal/flight"
	"forebay/internal/lane"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/tracing"
	"forebay/upstream/dial"
	"forebay/upstream/governor"
)

const (
	// tokensKept bounds the tokens in memory: one per repository and credential.
	tokensKept = 10_000
	// tokenReplyMax bounds a token server's reply. Real ones have up to 5 KiB.
	tokenReplyMax = 64 << 10
	// tokenLife is the life of a token that comes without one, and the shortest that is
	// believed (distribution, token specification: "defaults to 60 seconds", and clients raise
	// a shorter one to it).
	tokenLife = 60 * time.Second
	// tokenLifeMax bounds how long a token is kept, whatever its server says.
	tokenLifeMax = time.Hour
	// tokenRetry is the pause after a refresh that failed while the token still lives.
	tokenRetry = 5 * time.Second
	// badCredentialsFor is how long refused credentials are not tried again. Docker Hub locks
	// accounts that fail often.
	badCredentialsFor = time.Minute
)

// errBadCredentials: the token server does not know the user name and password.
var errBadCredentials = errors.New("the user name or password is wrong")

// tokenKey is what a token is for. Nothing with another key may use it.
type tokenKey struct {
	realm, service, scope string
	who                   string // identity.id
}

// token is a bearer token. Its value is secret.
type token struct {
	value     string
	refreshAt time.Time // after it, a new one is asked for in the background
	expires   time.Time // after it, nobody gets it
	accepted  atomic.Bool
}

// tokens keeps the tokens of a registry and asks for each once, however many wait.
type tokens struct {
	now func() time.Time

	// flights are the token requests in progress. Of the caller who began one it has the trace,
	// and nothing else.
	flights flight.Group[tokenKey, *token]

	mu     sync.Mutex
	kept   *lru.LRU[tokenKey, *token]
	trials map[trialKey]*trial       // few: one for each credential and token server
	gates  map[string]*governor.Gate // by "host:port" of token servers, which are few
}

// newTokens returns tokens that are asked for as long as life lasts; work counts the
// requests for them.
func newTokens(life context.Context, work *sync.WaitGroup, now func() time.Time) *tokens {
	kept, err := lru.NewLRU[tokenKey, *token](tokensKept, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	return &tokens{
		now: now, kept: kept, trials: map[trialKey]*trial{}, gates: map[string]*governor.Gate{},
		flights: flight.Group[tokenKey, *token]{Life: life, Work: work, Carry: func(life, caller context.Context, _ <-chan struct{}) context.Context {
			return tracing.Carry(life, caller)
		}},
	}
}

// get returns the token for key, which it asks for with mint if there is none. fresh says
// that the caller had to wait for it. The request goes on when ctx is done.
func (t *tokens) get(ctx context.Context, r *Registry, key tokenKey, mint func(context.Context) (*token, *pull.Error)) (tok *token, fresh bool, err error) {
	renew := func(ctx context.Context) (*token, error) { return t.renew(ctx, r, key, mint) }
	tok, now := t.have(key), t.now()
	switch {
	case tok != nil && now.Before(tok.refreshAt):
		return tok, false, nil
	case tok != nil && now.Before(tok.expires):
		t.flights.Start(ctx, key, renew)
		return tok, false, nil
	}
	tok, _, err = t.flights.Do(ctx, key, renew)
	return tok, err == nil, err
}

// have returns the token for key, which may have expired, or nil.
func (t *tokens) have(key tokenKey) *token {
	t.mu.Lock()
	defer t.mu.Unlock()
	tok, _ := t.kept.Get(key)
	return tok
}

// renew makes one token request and keeps what it gives.
func (t *tokens) renew(ctx context.Context, r *Registry, key tokenKey, mint func(context.Context) (*token, *pull.Error)) (*token, error) {
	// Another request may have ended after the caller looked and before this one began.
	if tok := t.have(key); tok != nil && t.now().Before(tok.refreshAt) {
		return tok, nil
	}
	// Less than Timeouts.Answer, so that those who wait hear why.
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeouts.Answer*3/4)
	defer cancel()
	tok, err := mint(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.kept.Add(key, tok)
		return tok, nil
	}
	if old, ok := t.kept.Peek(key); ok {
		// Never change a token that others hold: put one with a later time in its place.
		later := &token{value: old.value, refreshAt: t.now().Add(tokenRetry), expires: old.expires}
		later.accepted.Store(old.accepted.Load())
		if later.refreshAt.After(later.expires) {
			later.refreshAt = later.expires
		}
		t.kept.Add(key, later)
	}
	return nil, err
}

// drop forgets a token that the registry refused, unless there is a newer one.
func (t *tokens) drop(key tokenKey, refused *token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now, ok := t.kept.Peek(key); ok && now.value == refused.value {
		t.kept.Remove(key)
	}
}

// trialKey is a credential at a token server.
type trialKey struct{ host, who string }

// trial is what a token server has said of a credential.
type trial struct {
	// turn is held while a credential is tried that was never accepted, so that a wrong one
	// is tried once, however many ask.
	turn *lane.Lane

	mu       sync.Mutex
	good     bool
	badUntil time.Time
	err      pull.Error // of the refusal
}

func (t *tokens) trial(key trialKey) *trial {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.trials[key]
	if known == nil {
		known = &trial{turn: lane.New(1)}
		t.trials[key] = known
	}
	return known
}

// gate returns the gate of a token server.
func (t *tokens) gate(host string) *governor.Gate {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.gates[host]
	if g == nil {
		g = governor.NewGate(governor.Backoff{First: slowDown, Most: tokenMost}, t.now)
		t.gates[host] = g
	}
	return g
}

// refusal returns the remembered refusal of a credential, or nil; and whether it has
// been accepted before.
func (t *trial) refusal(now time.Time) (refused *pull.Error, good bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.badUntil) {
		err := t.err
		return &err, false
	}
	return nil, t.good
}

// learn remembers how a token request went. It reports whether a refusal is new.
func (t *trial) learn(now time.Time, err *pull.Error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.good, t.badUntil = true, time.Time{}
		return false
	}
	if !errors.Is(err, errBadCredentials) {
		return false
	}
	t.good, t.badUntil, t.err = false, now.Add(badCredentialsFor), *err
	return true
}

// mint asks a token server for a token, with retries. Credentials that it refused
// within the last minute are not sent again.
func (r *Registry) mint(ctx context.Context, e *endpoint, realm *url.URL, key tokenKey, who identity) (*token, *pull.Error) {
	a := &ask{op: "get token from " + realm.Host, method: http.MethodGet}
	if who.anonymous() {
		return r.mintRetrying(ctx, e, a, realm, key, who)
	}
	trial := r.tokens.trial(trialKey{host: dial.HostPort(realm), who: who.id})
	refused, good := trial.refusal(r.opts.Now())
	if refused == nil && !good {
		if err := trial.turn.Enter(ctx); err != nil {
			return nil, r.transportFailure(ctx, a, err, false).err
		}
		defer trial.turn.Leave()
		refused, _ = trial.refusal(r.opts.Now())
	}
	if refused != nil {
		return nil, refused
	}
	t, err := r.mintRetrying(ctx, e, a, realm, key, who)
	if trial.learn(r.opts.Now(), err) {
		r.log.Error("credentials refused", logkey.Host(realm.Host), logkey.User(who.user), logkey.Err(err))
	}
	return t, err
}

// mintLimited asks the token server once, unless it limits us.
func (r *Registry) mintLimited(ctx context.Context, e *endpoint, a *ask, realm *url.URL, key tokenKey, who identity) (*token, *failure) {
	gate := r.tokens.gate(dial.HostPort(realm))
	pass, err := gate.Enter(ctx)
	if err != nil {
		return nil, r.notSent(ctx, a, err)
	}
	t, fail := r.mintOnce(ctx, e, a, realm, key, who)
	switch {
	case fail == nil:
		pass.Through()
	case fail.limit != notLimited:
		r.counts.limits[tokenLimit].Add(1)
		if pass.Refused(fail.err.RetryAfter, "its token server refuses so many requests") {
			r.log.Warn("token server limits us", logkey.Host(realm.Host), logkey.User(who.name()), logkey.RetryAfter(fail.err.RetryAfter))
		}
		r.tellWhen(fail, gate)
	case fail.err.Status == 0:
		pass.Unclear()
	default:
		pass.Through()
	}
	return t, fail
}

func (r *Registry) mintRetrying(ctx context.Context, e *endpoint, a *ask, realm *url.URL, key tokenKey, who identity) (*token, *pull.Error) {
	for n := 1; ; n++ {
		t, fail := r.mintLimited(ctx, e, a, realm, key, who)
		if fail == nil {
			return t, nil
		}
		if !fail.helps(tryAgain) || !r.pause(ctx, n, fail) {
			if fail.err.Err == nil {
				fail.err.Err = fmt.Errorf("token server %s refused", realm.Host)
			} else {
				fail.err.Err = fmt.Errorf("token server %s: %w", realm.Host, fail.err.Err)
			}
			return nil, fail.err
		}
	}
}

// mintOnce makes one token request. The endpoint's connections are used, so that the
// address policy of the endpoint holds for its token server.
func (r *Registry) mintOnce(ctx context.Context, e *endpoint, a *ask, realm *url.URL, key tokenKey, who identity) (*token, *failure) {
	req, err := tokenRequest(realm, key, who)
	if err != nil {
		return nil, r.broken(a, "%w", err)
	}
	req.Header.Set("User-Agent", r.opts.UserAgent)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Encoding", "identity")
	ctx, span := spanOf(ctx, req.Method, TokenGet, realm)
	start := time.Now()
	resp, err := e.transport.RoundTrip(req.WithContext(ctx))
	r.counts.request(TokenGet, resp, start)
	if err != nil {
		fail := r.transportFailure(ctx, a, err, false)
		endSpan(span, nil, fail)
		return nil, fail
	}
	endSpan(span, resp, nil)
	r.log.Debug("token server answered", logkey.Host(realm.Host), logkey.Status(resp.StatusCode), logkey.Op(a.op+" for "+key.scope))
	if resp.StatusCode != http.StatusOK {
		return nil, r.tokenRefusal(ctx, a, resp, who)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, tokenReplyMax+1))
	if err != nil {
		return nil, r.transportFailure(ctx, a, err, false)
	}
	if len(body) > tokenReplyMax {
		return nil, r.broken(a, "reply has more than %d bytes", tokenReplyMax)
	}
	if body, err = decoded(contentEncoding(resp.Header), body, tokenReplyMax); err != nil {
		return nil, r.broken(a, "%w", err)
	}
	t, err := readToken(body, r.opts.Now())
	if err != nil {
		return nil, r.broken(a, "%w", err)
	}
	return t, nil
}

// tokenRequest makes the request for a token: GET, with Basic if we are someone; POST
// only for an identity token, which is no password.
func tokenRequest(realm *url.URL, key tokenKey, who identity) (*http.Request, error) {
	u := *realm
	if who.refresh {
		form := url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {who.secret}, "client_id": {"forebay"},
			"service": {key.service}, "scope": {key.scope},
		}
		req, err := http.NewRequest(http.MethodPost, "", strings.NewReader(form.Encode()))
		if err != nil {
			return nil, err
		}
		req.URL, req.Host = &u, u.Host
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return req, nil
	}
	query := u.Query()
	if key.service != "" {
		query.Set("service", key.service)
	}
	query.Set("scope", key.scope)
	u.RawQuery = query.Encode()
	req := &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: http.Header{}}
	if !who.anonymous() {
		req.SetBasicAuth(who.user, who.secret)
	}
	return req, nil
}

// tokenRefusal classifies an error of a token server. An outage never looks like an
// absence: only 401 and 403 mean that we may not.
func (r *Registry) tokenRefusal(ctx context.Context, a *ask, resp *http.Response, who identity) *failure {
	hidden := &grant{who: who}
	if req := resp.Request; req != nil {
		hidden.header = req.Header.Get("Authorization")
	}
	f := r.statusFailure(ctx, a, resp, hidden)
	switch {
	case f.err.Status == http.StatusUnauthorized && !who.anonymous() && f.err.Code != "DENIED":
		f.err.Err = errBadCredentials // GHCR and Artifact Registry say DENIED for a repository
	case who.refresh && f.err.Status == http.StatusBadRequest && f.err.Code == "invalid_grant":
		f.err.Kind, f.err.Err = pull.Denied, errBadCredentials
	case f.err.Kind == pull.NotFound, f.err.Kind == pull.Unsupported:
		f.err.Kind = pull.Invalid
	case f.err.Kind == pull.Denied:
		f.err.Err = errNoRight
	}
	return f
}

// readToken reads a token server's reply. Its life counts from now, by our clock: what
// the server's clock says of issued_at may be wrong.
func readToken(body []byte, now time.Time) (*token, error) {
	var reply struct {
		Token       string          `json:"token"`
		AccessToken string          `json:"access_token"`
		ExpiresIn   json.RawMessage `json:"expires_in"`
	}
	// A decoder, since some servers add bytes after the document.
	if err := json.NewDecoder(strings.NewReader(string(body))).Decode(&reply); err != nil {
		return nil, errors.New("reply is not a token document")
	}
	value := reply.AccessToken
	if value == "" {
		value = reply.Token
	}
	if !headerSafe(value) {
		return nil, errors.New("reply has no usable token")
	}
	life := readLife(reply.ExpiresIn)
	return &token{value: value, refreshAt: now.Add(life * 4 / 5), expires: now.Add(life)}, nil
}

// readLife reads expires_in: seconds, as a number or as text.
func readLife(raw json.RawMessage) time.Duration {
	seconds, err := strconv.ParseFloat(strings.Trim(string(raw), `"`), 64)
	if err != nil || !(seconds > tokenLife.Seconds()) {
		return tokenLife
	}
	if seconds >= tokenLifeMax.Seconds() {
		return tokenLifeMax
	}
	return time.Duration(seconds * float64(time.Second))
}
