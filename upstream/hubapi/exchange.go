package hubapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/upstream/dial"
)

// exchange makes one request and reads its answer, or returns where it redirects to.
func (c *Client) exchange(ctx context.Context, op, method string, u *url.URL, body []byte, token string) (*answer, string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	req := (&http.Request{
		Method: method, URL: u, Host: u.Host,
		Header: http.Header{
			"User-Agent": {c.userAgent()}, "Accept": {"application/json"}, "Accept-Encoding": {"identity"},
		},
	}).WithContext(ctx)
	if body != nil {
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	start := time.Now()
	// A RoundTripper follows no redirect, keeps no cookie and adds no Referer.
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, "", c.transportError(ctx, op, err)
	}
	defer resp.Body.Close()
	c.log.Debug("hub API answered", logkey.Op(op), logkey.Status(resp.StatusCode), logkey.Took(time.Since(start)))
	c.budget.see(resp.Header, resp.StatusCode)
	if location := resp.Header.Get("Location"); location != "" && resp.StatusCode/100 == 3 {
		return nil, location, nil
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, bodyMax+1))
	switch {
	case err != nil:
		return nil, "", c.transportError(ctx, op, err)
	case len(text) > bodyMax:
		return nil, "", fail(pull.Invalid, op, errors.New("the answer is too large"))
	}
	a := &answer{status: resp.StatusCode, body: text}
	if a.status != http.StatusOK {
		a.message = hide(errorMessage(text), token)
		a.retryAfter = wire.ParseRetryAfter(resp.Header, "", serverTime(resp.Header, c.now()))
		if a.status == http.StatusTooManyRequests && a.retryAfter == 0 {
			a.retryAfter = c.budget.wait()
		}
	}
	return a, "", nil
}

func (c *Client) userAgent() string {
	if agent := c.opts.Registry.UserAgent; agent != "" {
		return agent
	}
	return "forebay"
}

// transportError classifies an error of a connection. Its text names hosts and
// addresses, never headers or bodies.
func (c *Client) transportError(ctx context.Context, op string, err error) error {
	var n net.Error
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded), errors.As(err, &n) && n.Timeout():
		return fail(pull.Timeout, op, errors.New("no answer in time"))
	case ctx.Err() != nil:
		return fail(pull.Unavailable, op, context.Cause(ctx))
	case errors.Is(err, dial.ErrRefused):
		return fail(pull.Invalid, op, err)
	}
	return fail(pull.Unavailable, op, err)
}
