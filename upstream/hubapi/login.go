package hubapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"

	"forebay/internal/pull"
	"forebay/upstream/auth"
)

const (
	// tokenFor is how long a token is used. It lives for 10 minutes.
	tokenFor = 9 * time.Minute
	// refusedFor is for how long refused credentials are not tried again. Docker Hub
	// locks accounts that fail often.
	refusedFor = time.Minute
)

// login keeps the one token of a client, and asks for it once, however many wait.
type login struct {
	mu      sync.Mutex
	token   string
	at      time.Time // when the token was given
	running *loginRun // a login in progress, or nil
	refused error     // of the last login, while it is not tried again
	since   time.Time
}

// loginRun is a login in progress. Its fields are set before done is closed.
type loginRun struct {
	done  chan struct{}
	token string
	err   error
}

// drop forgets a token that the API has refused.
func (l *login) drop(token string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.token == token {
		l.token = ""
	}
}

// anonymous reports whether there is nobody to log in as.
func (c *Client) anonymous() bool {
	k := c.opts.Registry.Credentials
	return k.Username == "" && k.DockerConfig == ""
}

// token returns a token, "" for anonymous. The login for it runs on when ctx is done.
func (c *Client) token(ctx context.Context, op string) (string, error) {
	if c.anonymous() {
		return "", nil
	}
	l := &c.login
	l.mu.Lock()
	now := c.now()
	switch {
	case l.token != "" && now.Sub(l.at) < tokenFor:
		defer l.mu.Unlock()
		return l.token, nil
	case l.refused != nil && now.Sub(l.since) < refusedFor:
		defer l.mu.Unlock()
		return "", l.refused
	}
	run := l.running
	if run == nil {
		run = &loginRun{done: make(chan struct{})}
		l.running = run
		c.work.Go(func() { c.logIn(run) }) // ends with the login, or with Close
	}
	l.mu.Unlock()
	select {
	case <-run.done:
		return run.token, run.err
	case <-ctx.Done():
		return "", fail(pull.Timeout, op, context.Cause(ctx))
	}
}

// logIn runs one login in a context of its own: it belongs to all who wait.
func (c *Client) logIn(run *loginRun) {
	ctx, cancel := context.WithTimeout(c.stopping, requestTimeout)
	defer cancel()
	run.token, run.err = c.newToken(ctx)
	l := &c.login
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running, l.refused = nil, nil
	if run.err == nil {
		l.token, l.at = run.token, c.now()
	} else if pull.KindOf(run.err) == pull.Denied {
		l.refused, l.since = run.err, c.now()
	}
	close(run.done)
}

// newToken logs in: by the present route, and by the former one only where there is no
// other, since each failure counts against the account.
func (c *Client) newToken(ctx context.Context) (string, error) {
	const op = "log in"
	user, password, err := auth.Account(ctx, c.opts.Registry.Credentials, "docker.io")
	switch {
	case err != nil:
		return "", fail(pull.Unavailable, op, err)
	case user == "":
		return "", nil // a docker config without an entry
	}
	token, err := c.tokenBy(ctx, op, "/v2/auth/token", map[string]string{"identifier": user, "secret": password}, password)
	if missing(err) {
		token, err = c.tokenBy(ctx, op, "/v2/users/login", map[string]string{"username": user, "password": password}, password)
	}
	return token, err
}

func missing(err error) bool {
	var fault *pull.Error
	if !errors.As(err, &fault) {
		return false
	}
	return fault.Kind == pull.NotFound || fault.Kind == pull.Unsupported
}

func (c *Client) tokenBy(ctx context.Context, op, path string, fields map[string]string, password string) (string, error) {
	body, err := json.Marshal(fields)
	if err != nil {
		return "", fail(pull.Invalid, op, err)
	}
	u := *c.base
	u.Path += path
	a, err := c.send(ctx, op, http.MethodPost, &u, body, "")
	if err != nil {
		return "", err
	}
	a.message = hide(a.message, password)
	if a.status == http.StatusUnauthorized && strings.Contains(strings.ToLower(a.message), "secondary authentication") {
		a.message = "the account has a second factor: use an access token in place of the password"
	}
	text, err := a.content(op)
	if err != nil {
		return "", err
	}
	token, err := parseToken(text)
	if err != nil {
		return "", fail(pull.Invalid, op, err)
	}
	return token, nil
}

// parseToken reads the answer to a login: access_token of the present route, token of
// the former one.
func parseToken(body []byte) (string, error) {
	var reply struct {
		AccessToken string `json:"access_token"`
		Token       string `json:"token"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return "", errors.New("the answer to the login is not the JSON that was expected")
	}
	if reply.AccessToken == "" {
		reply.AccessToken = reply.Token
	}
	if reply.AccessToken == "" || !httpguts.ValidHeaderFieldValue(reply.AccessToken) {
		return "", errors.New("the answer to the login has no usable token")
	}
	return reply.AccessToken, nil
}
