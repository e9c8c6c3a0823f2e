// Package hubapi asks Docker Hub's web API, which lists and dates tags.
//
// It promises to log in once for all who ask, and not to ask when the API's budget is spent,
// which is another than that of pulls. What the API says of a tag lags behind the registry:
// a HEAD of the tag must confirm it.
//
// Every error is or wraps a [pull.Error], and none holds a secret.
package hubapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/upstream"
)

// DefaultURL is where the API is.
const DefaultURL = "https://hub.docker.com"

// Options configures a [Client]. Its zero value is anonymous at Docker Hub.
type Options struct {
	// URL is the base of the API, what comes before /v2/. "" means [DefaultURL].
	URL string
	// Registry has the credentials, and how to connect: proxy, certificates, address
	// family, timeouts. Its endpoints mean nothing here.
	Registry upstream.Options
	// MaxWait is the longest wait for a spent budget to return; 0 means to fail at once, with
	// an error of kind [pull.Limited].
	MaxWait time.Duration
}

const (
	// requestTimeout bounds one request with its body.
	requestTimeout = 30 * time.Second
	// bodyMax bounds an answer. A page of 100 tags with 12 platforms each has some 600 KiB.
	bodyMax = 8 << 20
	// redirectsMax bounds the redirects of one request. The API only adds a missing slash.
	redirectsMax = 2
	// attempts bounds how often a request is tried that fails for a moment.
	attempts = 3
	// pauseBetween is the pause after the first attempt; it doubles.
	pauseBetween = 200 * time.Millisecond
)

// Client is one identity at the API. Its methods may be called concurrently.
type Client struct {
	base      *url.URL
	transport *http.Transport
	opts      Options
	now       func() time.Time
	log       *zap.Logger
	budget    budget
	login     login

	stopping context.Context // done after Close: the life of logins, which have no caller
	stop     context.CancelFunc
	work     sync.WaitGroup // logins in progress
}

// New returns a client. Nothing is contacted.
func New(o Options) (*Client, error) {
	if o.URL == "" {
		o.URL = DefaultURL
	}
	base, err := url.Parse(o.URL)
	if err != nil || base.Hostname() == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" ||
		base.Scheme != "https" && base.Scheme != "http" {
		return nil, errors.New("hub API: the URL must be https or http, with a host, and nothing after the path")
	}
	base.Path = strings.TrimSuffix(base.Path, "/")
	transport, err := upstream.Transport(base, o.Registry)
	if err != nil {
		return nil, fmt.Errorf("hub API: %w", err)
	}
	c := &Client{base: base, transport: transport, opts: o, now: o.Registry.Now, log: o.Registry.Log}
	if c.now == nil {
		c.now = time.Now
	}
	if c.log == nil {
		c.log = zap.NewNop()
	}
	c.budget.now = c.now
	c.stopping, c.stop = context.WithCancel(context.Background())
	return c, nil
}

// Close ends a login in progress and closes the connections.
func (c *Client) Close() {
	c.stop()
	c.work.Wait()
	c.transport.CloseIdleConnections()
}

// Budget returns what the API last said that it would still answer.
func (c *Client) Budget() Budget { return c.budget.get() }

// get asks for a URL below the base and returns the body of a 200. op names the request in
// errors. Short failures are tried again, and so are refusals that end within MaxWait.
func (c *Client) get(ctx context.Context, op string, u *url.URL) ([]byte, error) {
	for n := 1; ; n++ {
		body, err := c.authorized(ctx, op, u)
		var fault *pull.Error
		if err == nil || n == attempts || !errors.As(err, &fault) {
			return body, err
		}
		switch {
		case fault.Kind == pull.Unavailable && sleep(ctx, pauseBetween<<(n-1)):
		case fault.Kind == pull.Limited && fault.RetryAfter <= c.opts.MaxWait && fault.RetryAfter > 0: // afford waits
		default:
			return nil, err
		}
	}
}

// authorized asks once, and once more with a new token if the one that it had is refused.
func (c *Client) authorized(ctx context.Context, op string, u *url.URL) ([]byte, error) {
	for renewed := false; ; renewed = true {
		token, err := c.token(ctx, op)
		if err != nil {
			return nil, err
		}
		a, err := c.send(ctx, op, http.MethodGet, u, nil, token)
		if err != nil {
			return nil, err
		}
		if a.status == http.StatusUnauthorized && token != "" && !renewed {
			c.login.drop(token)
			continue
		}
		return a.content(op)
	}
}

// answer is an answer of the API, read to its end.
type answer struct {
	status     int
	body       []byte
	retryAfter time.Duration
	message    string // of an error, without secrets
}

// content returns the body of a success, else the error that the status stands for.
func (a *answer) content(op string) ([]byte, error) {
	if a.status == http.StatusOK {
		return a.body, nil
	}
	return nil, &pull.Error{
		Kind: kindOf(a.status), Upstream: name, Op: op, Status: a.status,
		Message: a.message, RetryAfter: a.retryAfter,
	}
}

// name is that of the API in errors.
const name = "hub.docker.com"

func fail(kind pull.Kind, op string, cause error) error {
	return &pull.Error{Kind: kind, Upstream: name, Op: op, Err: cause}
}

func kindOf(status int) pull.Kind {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return pull.Denied
	case http.StatusNotFound, http.StatusGone:
		return pull.NotFound
	case http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return pull.Unsupported
	case http.StatusTooManyRequests:
		return pull.Limited
	}
	if status >= 500 || status == http.StatusRequestTimeout {
		return pull.Unavailable
	}
	return pull.Invalid
}

// send makes one request inside the budget and reads its answer. A redirect is followed
// only within the API itself, and never by a POST, which carries a password.
func (c *Client) send(ctx context.Context, op, method string, u *url.URL, body []byte, token string) (*answer, error) {
	for range redirectsMax + 1 {
		if err := c.afford(ctx, op); err != nil {
			return nil, err
		}
		a, location, err := c.exchange(ctx, op, method, u, body, token)
		if err != nil || location == "" {
			return a, err
		}
		target, err := u.Parse(location)
		if err == nil {
			err = c.within(target)
		}
		if err == nil && method != http.MethodGet {
			err = errors.New("a login is not sent elsewhere")
		}
		if err != nil {
			return nil, fail(pull.Invalid, op, fmt.Errorf("redirect: %w", err))
		}
		u = target
	}
	return nil, fail(pull.Invalid, op, fmt.Errorf("more than %d redirects", redirectsMax))
}

// within reports why u is not part of the API: what the API says is never a reason to
// visit another host.
func (c *Client) within(u *url.URL) error {
	same := u.Scheme == c.base.Scheme && strings.EqualFold(u.Host, c.base.Host) && u.User == nil
	if !same || !strings.HasPrefix(u.EscapedPath(), c.base.EscapedPath()+"/v2/") {
		return fmt.Errorf("it leads out of the API, to %q", u.Scheme+"://"+u.Host)
	}
	return nil
}

// afford waits until the budget allows a request, or returns why it does not.
func (c *Client) afford(ctx context.Context, op string) error {
	wait := c.budget.take()
	if wait > 0 && wait <= c.opts.MaxWait {
		c.log.Info("waiting for the budget of the hub API", zap.Duration("wait", wait))
		if !sleep(ctx, wait) {
			return fail(pull.Timeout, op, context.Cause(ctx))
		}
		wait = c.budget.take()
	}
	if wait > 0 {
		return &pull.Error{Kind: pull.Limited, Upstream: name, Op: op, RetryAfter: wait, Message: "the budget of the API is spent"}
	}
	return nil
}

// sleep waits for d and reports whether ctx is still alive then.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// secrets are taken out of what a server says, which may echo them.
func hide(text string, secrets ...string) string {
	for _, s := range secrets {
		if len(s) >= 4 { // a shorter one would take ordinary text apart
			text = strings.ReplaceAll(text, s, "…")
		}
	}
	return text
}

func errorMessage(body []byte) string {
	doc := wire.ParseErrorDoc(body)
	return strings.TrimSpace(doc.Code + " " + doc.Message)
}
