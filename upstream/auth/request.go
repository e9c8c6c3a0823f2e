package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"forebay/internal/registries"
)

// Request is a request to a token server for one token.
type Request struct {
	Realm *url.URL // which is trusted if somebody is named
	Scope string
	who   Identity
	key   tokenKey
	now   func() time.Time
}

// Op names the request in errors.
func (q *Request) Op() string { return "get token from " + q.Realm.Host }

// User tells people who asks.
func (q *Request) User() string { return q.who.Name() }

// Format writes no secret, for every verb.
func (q *Request) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, q.Op()+" as "+q.User()) }

// HTTP makes the HTTP request: GET, with Basic if we are someone; POST
// only for an identity token, which is no password.
func (q *Request) HTTP() (*http.Request, error) { return q.to(q.Realm) }

// Follow makes the request that the token server redirected to u, if that is trusted: by the
// endpoint or, where nobody is named, by the token server.
func (q *Request) Follow(s *Realms, u *url.URL, status int) (*http.Request, error) {
	kept := status == http.StatusTemporaryRedirect || status == http.StatusPermanentRedirect
	switch err := s.Vet(u); {
	case err != nil:
		return nil, err
	case !s.Trust.trusts(u) && !(q.who.Anonymous() && NewTrust(q.Realm, registries.Registry{}, nil).trusts(u)):
		return nil, untrusted(u)
	case q.who.refresh && !kept:
		return nil, fmt.Errorf("redirect %d, with which a POST becomes a GET", status)
	}
	return q.to(u)
}

func (q *Request) to(realm *url.URL) (*http.Request, error) {
	u, who := *realm, q.who
	if who.refresh {
		form := url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {who.secret}, "client_id": {"forebay"},
			"service": {q.key.service}, "scope": {q.key.scope},
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
	if q.key.service != "" {
		query.Set("service", q.key.service)
	}
	query.Set("scope", q.key.scope)
	u.RawQuery = query.Encode()
	req := &http.Request{Method: http.MethodGet, URL: &u, Host: u.Host, Header: http.Header{}}
	if !who.Anonymous() {
		req.SetBasicAuth(who.user, who.secret)
	}
	return req, nil
}

// Sent returns what req, made by HTTP, authenticates with. req may be nil.
func (q *Request) Sent(req *http.Request) *Grant {
	g := &Grant{who: q.who}
	if req != nil {
		g.header = req.Header.Get("Authorization")
	}
	return g
}

// Refuses reports whether an answer with that status and error code says that the
// credentials are wrong, and not only that they have no right.
func (q *Request) Refuses(status int, code string) bool {
	switch {
	case q.who.refresh && status == http.StatusBadRequest:
		return code == "invalid_grant"
	case status == http.StatusUnauthorized:
		return !q.who.Anonymous() && code != "DENIED" // which GHCR and Artifact Registry say for a repository
	}
	return false
}

// Token reads a token server's reply.
func (q *Request) Token(body []byte) (*Token, error) { return readToken(body, q.now()) }

// readToken reads a token server's reply. Its life counts from now, by our clock: what
// the server's clock says of issued_at may be wrong.
func readToken(body []byte, now time.Time) (*Token, error) {
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
	return &Token{value: value, refreshAt: now.Add(life * 4 / 5), expires: now.Add(life)}, nil
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

// headerSafe reports whether s can be a header value as it is.
func headerSafe(s string) bool { return s != "" && httpguts.ValidHeaderFieldValue(s) }
