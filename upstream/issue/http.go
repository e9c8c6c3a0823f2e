package issue

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"forebay/internal/wire"
)

// replyMost bounds the reply of a platform. Tokens have up to some 8 KiB.
const replyMost = 64 << 10

// Direct asks a platform's metadata service, past every proxy, and decodes its reply.
func Direct(req *http.Request, reply any) error { return Ask(req, nil, reply) }

// Ask asks a service of a platform, through a proxy if proxy gives one, and decodes its reply. No redirect is
// followed, and of a refusal only the status is told: its text may repeat what was sent.
func Ask(req *http.Request, proxy func(*http.Request) (*url.URL, error), reply any) error {
	// It is used a few times a day: no connection is worth keeping.
	transport := &http.Transport{Proxy: proxy, DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("ask %s for a token: %w", req.URL.Host, wire.RedactError(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask %s for a token: status %d", req.URL.Host, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, replyMost))
	if err != nil || json.Unmarshal(body, reply) != nil {
		return errors.New("ask " + req.URL.Host + " for a token: the answer is no token")
	}
	return nil
}
