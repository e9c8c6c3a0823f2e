package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"forebay/internal/pull"
	"forebay/internal/registries"
	"forebay/test/hubtest"
)

func TestM12LifeOfTokens(t *testing.T) {
	tests := []struct {
		shape hubtest.TokenShape
		life  time.Duration // 0 means that the reply is refused
	}{
		{hubtest.TokenNormal, 300 * time.Second},
		{hubtest.TokenOnlyToken, 300 * time.Second},
		{hubtest.TokenOnlyAccess, 300 * time.Second},
		{hubtest.TokenDifferent, 300 * time.Second},
		{hubtest.TokenNoExpiry, 60 * time.Second},
		{hubtest.TokenExpiryZero, 60 * time.Second},
		{hubtest.TokenExpiry30, 60 * time.Second},
		{hubtest.TokenExpiryString, 300 * time.Second},
		{hubtest.TokenExpiryHuge, time.Hour},
		{hubtest.TokenNoIssued, 300 * time.Second},
		{hubtest.TokenIssuedAhead, 300 * time.Second},
		{hubtest.TokenIssuedBehind, 300 * time.Second},
		{hubtest.TokenIssuedBad, 300 * time.Second},
		{hubtest.TokenTrailing, 300 * time.Second},
		{hubtest.TokenHTML, 0},
	}
	for _, test := range tests {
		t.Run(string(test.shape), func(t *testing.T) {
			hub := hubtest.New(t, hubtest.Options{TokenShape: test.shape, TokenTTL: 300 * time.Second})
			start := hub.Now()
			ask := func(_ context.Context, q *Request) (*Token, *pull.Error) { return ask(t, q) }
			tokens := NewTokens(t.Context(), &sync.WaitGroup{}, Options{Upstream: "docker.io", Patience: time.Minute, Now: hub.Now, Log: zap.NewNop()})
			g, err := tokens.Grant(t.Context(), &Realms{Vet: anywhere, Ask: ask}, challengeOf(t, hub), Identity{}, "library/alpine")
			if test.life == 0 {
				if err == nil {
					t.Fatal("Grant gives no error")
				}
				return
			}
			if err != nil {
				t.Fatalf("Grant: %v", err)
			}
			if got := g.token.expires.Sub(start); got < test.life-time.Second || got > test.life+10*time.Second {
				t.Errorf("token lives %v, want %v", got, test.life)
			}
			if left := g.token.expires.Sub(g.token.refreshAt); left != test.life/5 {
				t.Errorf("token is refreshed %v before its end, want a fifth of %v", left, test.life)
			}
		})
	}
}

func FuzzReadToken(f *testing.F) {
	f.Add([]byte(`{"token":"a","access_token":"b","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"token":"a\r\nX: y","expires_in":"1e999"}`))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := readToken(body, now)
		if err != nil {
			return
		}
		if !headerSafe(got.value) {
			t.Errorf("readToken(%q) gives the token %q, which is no header value", body, got.value)
		}
		if life := got.expires.Sub(now); life < tokenLife || life > tokenLifeMax || !got.refreshAt.Before(got.expires) {
			t.Errorf("readToken(%q) lives %v", body, life)
		}
	})
}

// anywhere allows every realm.
func anywhere(*url.URL) error { return nil }

// challengeOf returns the challenge that leads to hub's token server.
func challengeOf(t *testing.T, hub *hubtest.Hub) *Challenge {
	t.Helper()
	h := http.Header{"Www-Authenticate": {fmt.Sprintf(`Bearer realm="%s/token",service="registry.docker.io"`, hub.URL(hubtest.RoleAuth))}}
	c, _, err := ReadChallenge(h, &url.URL{Scheme: "https", Host: "registry.test"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// ask sends q once.
func ask(t *testing.T, q *Request) (*Token, *pull.Error) {
	t.Helper()
	req, err := q.HTTP()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, &pull.Error{Kind: pull.Denied, Err: pull.ErrLogin}
	}
	tok, err := q.Token(body)
	if err != nil {
		return nil, &pull.Error{Kind: pull.Invalid, Err: err}
	}
	return tok, nil
}

// TestCredentialsGoToTrustedRealmsOnly asks by a function that must not be called.
func TestCredentialsGoToTrustedRealmsOnly(t *testing.T) {
	base := &url.URL{Scheme: "https", Host: "registry.example"}
	realms := &Realms{
		Trust: NewTrust(base, registries.Find("registry.example"), nil),
		Vet:   anywhere,
		Ask: func(_ context.Context, q *Request) (*Token, *pull.Error) {
			if !q.who.Anonymous() {
				t.Errorf("%s is asked with credentials", q.Realm)
			}
			return readTokenOf(t, "anonymous-token"), nil
		},
	}
	c, _, err := ReadChallenge(http.Header{"Www-Authenticate": {`Bearer realm="https://evil.test/token",service="x"`}}, &url.URL{Scheme: "https", Host: "registry.test"})
	if err != nil {
		t.Fatal(err)
	}
	tokens := NewTokens(t.Context(), &sync.WaitGroup{}, Options{Upstream: "x", Patience: time.Minute, Now: time.Now, Log: zap.NewNop()})
	who := newIdentity("user", "s3cret-pass", "", false)
	if g, err := tokens.Grant(t.Context(), realms, c, who, "a/b"); !errors.Is(err, ErrUntrusted) || g != nil {
		t.Errorf("Grant is %v, %v; want none, ErrUntrusted", g, err)
	}
	g, err := tokens.Grant(t.Context(), realms, c, Identity{}, "a/b")
	if err != nil || !g.Minted() {
		t.Fatalf("Grant for nobody: %v, %v; want a token", g, err)
	}
	req := &http.Request{Header: http.Header{}}
	if g.Authorize(req); req.Header.Get("Authorization") != "Bearer anonymous-token" {
		t.Errorf("Authorization is %q", req.Header.Get("Authorization"))
	}
}

func TestSecretsAreNotWritten(t *testing.T) {
	who := newIdentity("user", "s3cret-pass", "", false)
	q := &Request{Realm: &url.URL{Scheme: "https", Host: "auth.example"}, who: who}
	grant, err := basic(nil, who)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{who, q, grant, readTokenOf(t, "s3cret-token"), Credentials{Username: "user", Password: "s3cret-pass"}} {
		if text := fmt.Sprintf("%v %+v %#v %s", v, v, v, v); strings.Contains(text, "s3cret") || strings.Contains(text, "Basic ") {
			t.Errorf("%T is written as %s", v, text)
		}
	}
}

func readTokenOf(t *testing.T, value string) *Token {
	t.Helper()
	tok, err := readToken(fmt.Appendf(nil, `{"token":%q}`, value), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return tok
}
