package upstream

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/upstream/heads"
	"forebay/upstream/stall"
)

// StatBlob returns the size of a blob that repo holds, or -1 if the registry holds the blob
// and does not say its size. Where a HEAD does not work, or is not to be believed, the first
// byte is asked for.
func (r *Registry) StatBlob(ctx context.Context, repo string, d v1.Hash) (int64, error) {
	a, err := r.blobAsk(http.MethodHead, repo, d)
	if err != nil {
		return 0, err
	}
	worth := r.heads.Worth(repo, heads.Blob)
	if worth == heads.Useless {
		return r.statByRange(ctx, repo, d)
	}
	ans, err := r.doHeld(ctx, r.questions, a)
	if err == nil {
		ans.Body.Close() // before the next request, which needs a place in the same lane
		if tellsSize(ans, d) {
			r.heads.Learn(repo, heads.Blob, heads.Good)
			return ans.ContentLength, nil
		}
	} else if !headRefused(err) || worth == heads.Good && pull.KindOf(err) == pull.NotFound {
		return 0, err
	}
	size, err := r.statByRange(ctx, repo, d)
	if err == nil {
		r.heads.Learn(repo, heads.Blob, heads.Useless)
	}
	return size, err
}

// tellsSize reports whether the answer to a HEAD gives the size of the blob d.
func tellsSize(ans *answer, d v1.Hash) bool {
	named, err := wire.ParseDigest(ans.Header.Get(digestHeader))
	if err == nil && named.Algorithm == d.Algorithm && named != d {
		return false
	}
	return wire.ContentEncoding(ans.Header) == "" && (ans.ContentLength > 0 || ans.ContentLength == 0 && digestOf(d.Algorithm, nil) == d)
}

// headRefused reports whether err, of a HEAD, may be about the HEAD and not about what was asked
// for: public.ecr.aws answers 401 to a good token, Cloudflare R2 403 because the URL was
// signed for GET, Nexus 404, and proxies 405 or 500.
func headRefused(err error) bool {
	var e *pull.Error
	if !errors.As(err, &e) || e.Status == 0 || e.Kind == pull.Limited {
		return false
	}
	if errors.Is(err, errTarget) {
		return e.Status < 500
	}
	// With a cause it is about who we are, or it comes from the token server.
	return (e.Err == nil || errors.Is(e.Err, errNoScheme)) && (!pull.Failing(err) || e.Kind == pull.Invalid || e.Status == http.StatusInternalServerError)
}

// statByRange asks for the first byte of a blob and looks at the size of the whole.
func (r *Registry) statByRange(ctx context.Context, repo string, d v1.Hash) (int64, error) {
	a, err := r.blobAsk(http.MethodGet, repo, d)
	if err != nil {
		return 0, err
	}
	a.op, a.byteRange, a.needsRegistry = "stat blob "+repo+"@"+d.String(), "bytes=0-0", true
	ans, err := r.doHeld(ctx, r.questions, a)
	if err != nil {
		return 0, err
	}
	defer ans.Body.Close()
	span, err := wire.ParseContentRange(ans.Header.Get("Content-Range"))
	switch {
	case ans.StatusCode == http.StatusOK && wire.ContentEncoding(ans.Header) == "":
		return ans.ContentLength, nil
	case ans.StatusCode == http.StatusOK, err != nil, ans.StatusCode == http.StatusRequestedRangeNotSatisfiable && span.Size != 0:
		return -1, nil
	}
	return span.Size, nil
}

// OpenBlob opens the bytes [off, end) of a blob, end -1 being its end. off 0 with end -1
// asks without a range. The caller closes the body and verifies the bytes. A registry
// may ignore the range: look at Body.Offset.
func (r *Registry) OpenBlob(ctx context.Context, repo string, d v1.Hash, off, end int64) (*pull.Body, error) {
	a, err := r.blobAsk(http.MethodGet, repo, d)
	if err != nil {
		return nil, err
	}
	b, err := r.open(ctx, a, off, end)
	if pull.KindOf(err) != pull.NotFound {
		return b, err
	}
	for _, text := range pull.URLs(ctx) {
		u, bad := url.Parse(text)
		if bad != nil || !slices.Contains(r.opts.ForeignHosts, strings.ToLower(u.Host)) || u.User != nil {
			continue
		}
		there := *a
		there.byteRange, there.elsewhere = "", u
		if b, err = r.open(ctx, &there, off, end); err == nil {
			return b, nil
		}
	}
	return nil, err
}

// open sends a for the bytes [off, end).
func (r *Registry) open(ctx context.Context, a *ask, off, end int64) (*pull.Body, error) {
	if off < 0 || (end != -1 && end <= off) {
		return nil, r.broken(a, "range %d to %d is empty", off, end).err
	}
	if a.byteRange = wire.FormatRange(off, end); a.byteRange == "" {
		return r.openWhole(ctx, a)
	}
	ans, err := r.doHeld(ctx, r.blobs, a)
	if err != nil {
		return nil, err
	}
	b, err := rangedBody(ans, off, end)
	switch {
	case err == nil:
		return b, nil
	case errors.Is(err, errUnsatisfiable):
		ans.Body.Close()
		f := r.broken(a, "%w", err)
		f.err.Status, f.err.Detail = ans.StatusCode, pull.OutOfRange
		return nil, f.err
	}
	// A wrong or refused range is treated as an ignored one: the whole is asked for.
	ans.Body.Close()
	r.places.Drop(ans.endpoint.place(ans.ask))
	a.byteRange = ""
	return r.openWhole(ctx, a)
}

func (r *Registry) openWhole(ctx context.Context, a *ask) (*pull.Body, error) {
	ans, err := r.doHeld(ctx, r.blobs, a)
	if err != nil {
		return nil, err
	}
	if encoding := wire.ContentEncoding(ans.Header); encoding != "" {
		plain, err := wire.DecodedBlob(encoding, ans.Body)
		if err != nil {
			ans.Body.Close()
			return nil, r.broken(a, "%w", err).err
		}
		return &pull.Body{ReadCloser: plain, End: -1, Size: -1}, nil
	}
	return wholeBody(ans), nil
}

func (r *Registry) blobAsk(method, repo string, d v1.Hash) (*ask, error) {
	verb := "get"
	if method == http.MethodHead {
		verb = "head"
	}
	a := &ask{
		op: verb + " blob " + repo + "@" + d.String(), method: method, repo: repo,
		tail: "/blobs/" + d.String(), blob: d, byDigest: true,
	}
	if err := validRepo(repo); err != nil {
		return nil, r.broken(a, "%w", err).err
	}
	if _, err := wire.ParseDigest(d.String()); err != nil {
		return nil, r.broken(a, "%w", err).err
	}
	return a, nil
}

func wholeBody(ans *answer) *pull.Body {
	return &pull.Body{ReadCloser: ans.Body, End: ans.ContentLength, Size: ans.ContentLength}
}

var (
	errUnsatisfiable = errors.New("range begins after the blob's end") // the one that was asked for
	errBadRange      = errors.New("answer does not fit the range")
)

// rangedBody makes the body of an answer to a request for [off, end).
func rangedBody(ans *answer, off, end int64) (*pull.Body, error) {
	if encoding := wire.ContentEncoding(ans.Header); encoding != "" {
		return nil, errBadRange // only the whole can be decoded
	}
	if ans.StatusCode == http.StatusOK {
		return wholeBody(ans), nil
	}
	span, err := wire.ParseContentRange(ans.Header.Get("Content-Range"))
	if err != nil {
		return nil, errBadRange
	}
	if ans.StatusCode == http.StatusRequestedRangeNotSatisfiable {
		return unsatisfied(ans, span, off)
	}
	length := span.End - span.Start
	switch {
	case span.Start != off, end >= 0 && span.End > end:
		return nil, errBadRange
	case ans.ContentLength >= 0 && ans.ContentLength != length:
		return nil, errBadRange
	}
	if b, ok := ans.Body.(*stall.Body); ok {
		b.Left = length // chunked bodies announce nothing themselves
	}
	return &pull.Body{ReadCloser: ans.Body, Offset: off, End: span.End, Size: span.Size, Ranged: true}, nil
}

// unsatisfied reads a 416. A blob without bytes satisfies no range, and some servers
// refuse every range of any blob.
func unsatisfied(ans *answer, span wire.ContentRange, off int64) (*pull.Body, error) {
	switch {
	case span.Size == 0 && off == 0:
		if b, ok := ans.Body.(*stall.Body); ok {
			b.Left = 0 // what follows is the text of an error
		}
		return &pull.Body{ReadCloser: ans.Body, End: 0, Size: 0}, nil
	case span.Size >= 0 && off >= span.Size:
		return nil, errUnsatisfiable
	}
	return nil, errBadRange
}
