// Package auth finds what a request to a registry authenticates with: a token or a password,
// from credentials that are given, in a file, with a helper, or handed out.
//
// It promises that a credential goes to nobody but the registry and a token server that
// the registry may be trusted to name (see [Trust]), that a wrong one is not tried again and again,
// and that a token is asked for once, however many wait for it.
//
// Nothing here does I/O with a registry: who uses it sends the requests. No text that it makes
// holds a secret.
package auth

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"forebay/internal/pull"
	"forebay/internal/wire"
)

// Grant is what a request authenticates with.
type Grant struct {
	header string // value of Authorization
	who    Identity
	token  *Token // nil for Basic
	key    tokenKey
	by     *Challenge
	fresh  bool // made for this very request, and not yet accepted by anyone
}

// Authorize lets req authenticate with g. nil is anonymous.
func (g *Grant) Authorize(req *http.Request) {
	if g != nil {
		req.Header.Set("Authorization", g.header)
	}
}

// Format writes no secret, for every verb.
func (g *Grant) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "grant of "+g.who.Name()) }

// Hide takes what g authenticates with out of a text that a server made.
func (g *Grant) Hide(text string) string {
	if g == nil {
		return text
	}
	_, value, _ := strings.Cut(g.header, " ")
	return hideSecrets(text, value, g.who.secret)
}

func hideSecrets(text string, secrets ...string) string {
	for _, s := range secrets {
		if len(s) >= 4 { // a shorter one would take ordinary text apart
			text = strings.ReplaceAll(text, s, "…")
		}
	}
	return text
}

// Accepted reports whether g is a token that the registry has taken before.
func (g *Grant) Accepted() bool {
	return g.Minted() && !g.fresh && g.token.accepted.Load()
}

// Accept remembers that the registry has taken g.
func (g *Grant) Accept() {
	if g.Minted() {
		g.token.accepted.Store(true)
	}
}

// Minted reports whether g is a token of a token server.
func (g *Grant) Minted() bool { return g != nil && g.token != nil }

// By returns the challenge that g meets; nil for none.
func (g *Grant) By() *Challenge {
	if g == nil {
		return nil
	}
	return g.by
}

// Same reports whether a request with g is the same as one with other. Both are not nil.
func (g *Grant) Same(other *Grant) bool { return g.header == other.header }

// Realms are the token servers that one endpoint may name. All fields are required.
type Realms struct {
	Trust Trust
	// Vet says why the registry may not name a URL.
	Vet func(realm *url.URL) error
	// Ask sends a request, several times if that may help.
	Ask func(ctx context.Context, q *Request) (*Token, *pull.Error)
}

// ErrUntrusted says that the credentials may not be sent to a token server.
var ErrUntrusted = errors.New("credentials are not sent to a token server that is not trusted")

// MisfitError says why a challenge cannot be met with our credentials. Nothing was sent.
type MisfitError struct{ Err error }

func (e *MisfitError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *MisfitError) Unwrap() error { return e.Err }

func misfit(format string, args ...any) error {
	return &MisfitError{fmt.Errorf(format, args...)}
}

// Grant returns what a request for repo authenticates with after a challenge; nil means
// that there is nothing. An error is a [MisfitError], the [pull.Error] of the token server, which
// others may share, or that of ctx.
func (t *Tokens) Grant(ctx context.Context, s *Realms, c *Challenge, who Identity, repo string) (*Grant, error) {
	switch {
	case c.Basic():
		return basic(c, who)
	case who.registryToken != "":
		return &Grant{header: "Bearer " + who.registryToken, who: who, by: c}, nil
	case !who.Anonymous() && !s.Trust.trusts(c.realm):
		return nil, &MisfitError{untrusted(c.realm)}
	}
	if err := s.Vet(c.realm); err != nil {
		return nil, misfit("token server: %w", err)
	}
	key := tokenKey{realm: c.realm.String(), service: c.service, scope: c.scopeFor(repo), who: who.id}
	q := &Request{Realm: c.realm, Scope: key.scope, who: who, key: key, now: t.opts.Now}
	tok, fresh, err := t.get(ctx, q, s)
	if err != nil {
		return nil, err
	}
	return &Grant{header: "Bearer " + tok.value, who: who, token: tok, key: key, fresh: fresh, by: c}, nil
}

func untrusted(realm *url.URL) error {
	return fmt.Errorf("%w: %s", ErrUntrusted, wire.Redact(realm.Host))
}

func basic(c *Challenge, who Identity) (*Grant, error) {
	switch {
	case who.Anonymous():
		return nil, nil
	case who.user == "" || who.refresh:
		return nil, misfit("it wants a user name and password, and the credentials are a token")
	}
	pair := base64.StdEncoding.EncodeToString([]byte(who.user + ":" + who.secret))
	return &Grant{header: "Basic " + pair, who: who, by: c}, nil
}
