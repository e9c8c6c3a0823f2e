package hubtest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"time"
)

// Audiences of the API's own tokens. They are no registry tokens, nor the reverse.
const (
	hubAPIAudience    = "hub.docker.com"
	secondAudience    = "hub.docker.com second factor"
	hubAPITokenLife   = 10 * time.Minute
	secondFactorWants = "Require secondary authentication on MFA enabled account"
)

// hubAPILogin serves the three login routes: token, login and 2fa-login.
func (h *Hub) hubAPILogin(x *exchange, route string) *Reply {
	if x.r.Method != http.MethodPost {
		return hubAPIError(http.StatusMethodNotAllowed, `Method "`+x.r.Method+`" not allowed.`)
	}
	raw, err := io.ReadAll(io.LimitReader(x.r.Body, 64<<10))
	if err != nil {
		return hubAPIError(http.StatusBadRequest, "body cannot be read")
	}
	var body map[string]string
	if err := json.Unmarshal(raw, &body); err != nil {
		return hubAPIError(http.StatusBadRequest, "JSON parse error")
	}
	switch route {
	case "token":
		if h.opts().HubAPI.LegacyOnly {
			return objectNotFound()
		}
		return h.firstFactor(body["identifier"], body["secret"], "access_token")
	case "login":
		return h.firstFactor(body["username"], body["password"], "token")
	}
	return h.secondFactor(body["login_2fa_token"], body["code"])
}

func wrongCredentials() *Reply {
	return hubAPIError(http.StatusUnauthorized, "Incorrect authentication credentials")
}

// firstFactor checks a password, or an access token, which needs no second factor.
func (h *Hub) firstFactor(name, secret, key string) *Reply {
	id, ok := h.login(name, secret)
	if !ok || id.user == nil {
		return wrongCredentials()
	}
	if id.user.SecondFactor != "" && !strings.HasPrefix(secret, "dckr_") {
		body := map[string]string{"detail": secondFactorWants}
		if key == "token" {
			body["login_2fa_token"] = h.hubAPIToken(secondAudience, name, time.Minute)
		}
		return jsonReply(http.StatusUnauthorized, body)
	}
	return h.loggedIn(name, key)
}

func (h *Hub) secondFactor(token, code string) *Reply {
	name, ok := h.hubAPISubject(secondAudience, token)
	if !ok || name == "" {
		return wrongCredentials()
	}
	h.mu.RLock()
	u := h.users[name]
	h.mu.RUnlock()
	if u == nil || u.SecondFactor != code {
		return wrongCredentials()
	}
	return h.loggedIn(name, "token")
}

func (h *Hub) loggedIn(name, key string) *Reply {
	o := h.opts().HubAPI
	if o.LoginBody != "" {
		return newReply(http.StatusOK, "application/json", []byte(o.LoginBody))
	}
	ttl := o.TokenTTL
	if ttl == 0 {
		ttl = hubAPITokenLife
	}
	body := map[string]string{key: h.hubAPIToken(hubAPIAudience, name, ttl)}
	if key == "token" {
		body["refresh_token"] = h.RefreshToken(name)
	}
	return jsonReply(http.StatusOK, body)
}

func (h *Hub) hubAPIToken(audience, name string, ttl time.Duration) string {
	now := h.Now()
	return h.mint(claims{
		Issuer: "hub.docker.com", Audience: audience, Subject: name,
		IssuedAt: now.Unix(), Expires: now.Add(ttl).Unix(),
	})
}

// hubAPISubject returns whom a token of the API is for, if it is good.
func (h *Hub) hubAPISubject(audience, token string) (string, bool) {
	c, _ := h.checkToken("Bearer " + token) // which wants the registry's audience
	if c == nil || c.Audience != audience || h.Now().Unix() >= c.Expires || h.revoked(c.Subject) {
		return "", false
	}
	h.tokens.mu.Lock()
	defer h.tokens.mu.Unlock()
	return c.Subject, c.ID > h.tokens.expired
}

// hubAPIUser returns who asks, nil for anonymous. It reports false for a bad token.
func (h *Hub) hubAPIUser(r *http.Request) (*User, bool) {
	text := r.Header.Get("Authorization")
	if text == "" {
		return nil, true
	}
	scheme, token, _ := strings.Cut(text, " ")
	if scheme != "Bearer" && scheme != "JWT" {
		return nil, false
	}
	name, ok := h.hubAPISubject(hubAPIAudience, token)
	if !ok {
		return nil, false
	}
	h.mu.RLock()
	defer h.mu.RUnlock()
	u := h.users[name]
	return u, u != nil
}
