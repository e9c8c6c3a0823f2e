package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"forebay/internal/pull"
	"forebay/internal/wire"
)

// page is a document that was read whole: a manifest, or one page of a listing.
type page struct {
	header   http.Header
	body     []byte // without its content encoding
	raw      []byte // as it came; the same slice as body when it was not encoded
	endpoint *endpoint
	url      *url.URL // at the registry
}

// fetch reads a document of at most most bytes. A body that breaks off is asked for
// once more.
func (r *Registry) fetch(ctx context.Context, a *ask, most int) (*page, error) {
	for try := 1; ; try++ {
		p, err := r.fetchOnce(ctx, a, most)
		if err == nil || try == 2 || ctx.Err() != nil || !errors.Is(err, errBrokeOff) {
			return p, err
		}
	}
}

// errBrokeOff marks a body that ended early.
var errBrokeOff = errors.New("the body broke off")

func (r *Registry) fetchOnce(ctx context.Context, a *ask, most int) (*page, error) {
	ans, err := r.do(ctx, r.questions, a) // manifests are held by their caller, lists never
	if err != nil {
		return nil, err
	}
	defer ans.Body.Close()
	if ans.ContentLength > int64(most) {
		return nil, r.tooLarge(a, fmt.Sprintf("it has %d bytes, and %d are the most", ans.ContentLength, most))
	}
	raw, err := io.ReadAll(io.LimitReader(ans.Body, int64(most)+1))
	if err != nil {
		kind := pull.Unavailable
		if pull.KindOf(err) == pull.Timeout || errors.Is(context.Cause(ctx), errTooSlow) {
			kind = pull.Timeout
		}
		f := r.fail(a, kind, fmt.Errorf("%w: %w", errBrokeOff, wire.RedactError(err)))
		f.err.Message = "its answer broke off"
		return nil, f.err
	}
	if len(raw) > most {
		return nil, r.tooLarge(a, fmt.Sprintf("it has more than %d bytes", most))
	}
	body, err := wire.Decode(wire.ContentEncoding(ans.Header), raw, most)
	if err != nil {
		return nil, r.broken(a, "%w", err).err
	}
	return &page{header: ans.Header, body: body, raw: raw, endpoint: ans.endpoint, url: ans.url}, nil
}

// tooLarge returns the error of a document that has too many bytes.
func (r *Registry) tooLarge(a *ask, why string) error {
	f := r.fail(a, pull.Invalid, nil)
	f.err.Message, f.err.Detail = why, pull.Refused
	return f.err
}

// next returns the ask for the page after p, or nil if p is the last. Of the link only the query counts: that of
// Nexus and Artifactory has their inner path, and that of a registry behind a proxy its inner host. A link
// that cannot be used is an error: what came so far would look like everything.
func (p *page) next(a *ask) (*ask, error) {
	link, err := wire.NextLink(p.header.Values("Link"))
	if err != nil {
		return nil, err
	}
	if link == "" {
		return nil, nil
	}
	u, err := wire.Locate(p.url, link)
	if err != nil {
		return nil, fmt.Errorf("link to the next page: %w", err)
	}
	if u.RawQuery == "" {
		return nil, fmt.Errorf("link to the next page leads to %s", wire.Redact(u.Host+u.Path))
	}
	further := *a
	further.from, further.query = p.endpoint, u.RawQuery
	return &further, nil
}
