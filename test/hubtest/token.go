package hubtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// claims are what a token of the hub says. Its form is that of Docker Hub's JWT, but
// signed with a key of the hub: clients must treat tokens as opaque.
type claims struct {
	Issuer   string   `json:"iss"`
	Audience string   `json:"aud"`
	Subject  string   `json:"sub"` // "" is anonymous
	IssuedAt int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	ID       uint64   `json:"jti"`
	Access   []access `json:"access"`
	// Narrow says that the credential's own scope was too small (repo:public_read).
	Narrow bool `json:"narrow,omitempty"`
}

type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

func (c *claims) allows(typ, name, action string) bool {
	return slices.ContainsFunc(c.Access, func(a access) bool {
		return a.Type == typ && a.Name == name && slices.Contains(a.Actions, action)
	})
}

// tokenState numbers tokens, so that those issued so far can be made invalid.
type tokenState struct {
	mu      sync.Mutex
	issued  uint64
	expired uint64 // tokens up to this number are no longer good
	revoked map[string]bool
}

// ExpireTokens makes every token issued so far invalid, as if its time were over.
func (h *Hub) ExpireTokens() {
	h.tokens.mu.Lock()
	defer h.tokens.mu.Unlock()
	h.tokens.expired = h.tokens.issued
}

// Revoke makes the credentials of an account, and all its tokens, invalid for good.
func (h *Hub) Revoke(account string) {
	h.tokens.mu.Lock()
	defer h.tokens.mu.Unlock()
	if h.tokens.revoked == nil {
		h.tokens.revoked = map[string]bool{}
	}
	h.tokens.revoked[account] = true
}

func (h *Hub) revoked(account string) bool {
	h.tokens.mu.Lock()
	defer h.tokens.mu.Unlock()
	return account != "" && h.tokens.revoked[account]
}

const (
	tokenIssuer   = "auth.docker.io"
	tokenAudience = "registry.docker.io"
)

// mint returns a signed token.
func (h *Hub) mint(c claims) string {
	h.tokens.mu.Lock()
	h.tokens.issued++
	c.ID = h.tokens.issued
	h.tokens.mu.Unlock()
	enc := base64.RawURLEncoding
	body := enc.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + enc.EncodeToString(encode(c))
	return body + "." + enc.EncodeToString(h.mac("token", body))
}

func (h *Hub) mac(purpose, text string) []byte {
	m := hmac.New(sha256.New, h.key[:])
	fmt.Fprintf(m, "%s\n%s", purpose, text)
	return m.Sum(nil)
}

var errNoToken = errors.New("no bearer token")

// checkToken returns what a good bearer token says.
func (h *Hub) checkToken(authorization string) (*claims, error) {
	scheme, token, ok := strings.Cut(authorization, " ")
	if !ok || !strings.EqualFold(scheme, "bearer") {
		return nil, errNoToken
	}
	cut := strings.LastIndexByte(token, '.')
	if cut < 0 {
		return nil, errors.New("not a token of this hub")
	}
	enc := base64.RawURLEncoding
	sig, err := enc.DecodeString(token[cut+1:])
	if err != nil || !hmac.Equal(sig, h.mac("token", token[:cut])) {
		return nil, errors.New("bad signature")
	}
	_, body, _ := strings.Cut(token[:cut], ".")
	raw, err := enc.DecodeString(body)
	if err != nil {
		return nil, err
	}
	var c claims
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, err
	}
	return &c, h.checkClaims(&c)
}

func (h *Hub) checkClaims(c *claims) error {
	h.tokens.mu.Lock()
	gone := c.ID <= h.tokens.expired || c.Subject != "" && h.tokens.revoked[c.Subject]
	h.tokens.mu.Unlock()
	switch {
	case gone, h.Now().Unix() >= c.Expires:
		return errors.New("token expired")
	case c.Audience != h.profile().service:
		return errors.New("wrong audience")
	}
	return nil
}

// Token returns a token that the hub accepts: for an account, or anonymous if account
// is "", good for pulling the given repositories, whether it may or not.
func (h *Hub) Token(account string, ttl time.Duration, repos ...string) string {
	now := h.Now()
	c := claims{
		Issuer: tokenIssuer, Audience: h.profile().service, Subject: account,
		IssuedAt: now.Unix(), Expires: now.Add(ttl).Unix(),
	}
	for _, r := range repos {
		c.Access = append(c.Access, access{"repository", r, []string{"pull"}})
	}
	return h.mint(c)
}
