package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

func (h *Handler) blob(x *exchange) error {
	if x.head() {
		return h.statBlob(x)
	}
	if sent, err := h.sendRedirect(x); sent || err != nil {
		return err
	}
	b, err := h.source.openBlob(&x.deadline, x.repo(), x.route.Digest)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }() // only read from: nothing is lost with its error
	x.result = b.Result()
	header := x.w.Header()
	h.setBlob(header, x.route.Digest)
	digest := header["Docker-Content-Digest"][0]
	if err := x.unlessMatch(x.route.Digest); err != nil {
		return err
	}
	if wire.MatchesETag(x.r.Header["If-None-Match"], digest) {
		return x.notModified()
	}
	asked := x.r.Header.Get("Range")
	if cond := x.r.Header.Get("If-Range"); cond != "" && cond != header["Etag"][0] {
		asked = "" // of something else: the whole, as RFC 9110, 13.1.5 has it
	}
	ranges := wire.ParseRange(asked)
	if len(ranges) > 1 && b.File() != nil {
		return sendParts(x, b, ranges)
	}
	return h.sendBlob(x, b, ranges)
}

// sendRedirect redirects a client that GETs a blob to the bucket, if that is configured. Whoever
// has the URL can read the blob for a while: it goes to the client and nowhere else.
func (h *Handler) sendRedirect(x *exchange) (bool, error) {
	if h.redirect == nil {
		return false, nil
	}
	url, err := h.redirect(&x.deadline, x.repo(), x.route.Digest)
	if url == "" || err != nil {
		return false, err
	}
	header := x.w.Header()
	setContent(header, x.route.Digest)
	header.Set("Cache-Control", "no-store")
	header.Set("Location", url)
	header.Set("Content-Length", "0")
	x.result = cache.Hit
	x.w.WriteHeader(http.StatusTemporaryRedirect)
	return true, nil
}

// sendParts sends several parts of a complete blob, for podman's partial pulls and stargz.
func sendParts(x *exchange, b blob, ranges []wire.ByteRange) error {
	spans := wire.Spans(ranges, b.Size())
	if len(spans) == 0 {
		return outside(x, b.Size())
	}
	asked := make([]string, len(spans))
	for i, s := range spans {
		asked[i] = fmt.Sprintf("%d-%d", s.Off, s.End-1)
	}
	r := x.r.WithContext(x.r.Context()) // a copy
	r.Header = http.Header{"Range": {"bytes=" + strings.Join(asked, ",")}}
	http.ServeContent(&x.w, r, "", time.Time{}, b.File())
	return nil
}

// outside is the error of a range that lies outside of a blob.
func outside(x *exchange, size int64) error {
	x.w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
	return errRange
}

// setBlob sets the headers that HEAD and GET of a blob have in common.
func (h *Handler) setBlob(to http.Header, d v1.Hash) {
	setContent(to, d)
	to["Content-Type"] = h.static.octetStream
	to["Accept-Ranges"] = h.static.bytes
	to["Cache-Control"] = h.static.immutable
}

// statBlob answers HEAD. Range means nothing to it (RFC 9110, 14.2).
func (h *Handler) statBlob(x *exchange) error {
	size, result, err := h.source.StatBlob(&x.deadline, x.repo(), x.route.Digest)
	if err != nil {
		return err
	}
	x.result = result
	if size < 0 {
		return unavailable(x, "stat blob "+x.route.Repository+"@"+x.route.Reference, "its size is not known yet")
	}
	header := x.w.Header()
	h.setBlob(header, x.route.Digest)
	if err := x.unlessMatch(x.route.Digest); err != nil {
		return err
	}
	if wire.MatchesETag(x.r.Header["If-None-Match"], header["Docker-Content-Digest"][0]) {
		return x.notModified()
	}
	setLength(header, size)
	x.w.WriteHeader(http.StatusOK)
	return nil
}

// sendBlob sends the whole blob, or the range of it if there is just one.
func (h *Handler) sendBlob(x *exchange, b blob, ranges []wire.ByteRange) error {
	size := b.Size()
	body := blobBody{x: x, status: http.StatusOK, off: 0, end: size, size: size}
	if len(ranges) == 1 {
		switch off, end, ok := ranges[0].Resolve(size); {
		case size < 0 && ranges[0].First != 0:
			// Without the end there can be no 206, and containerd would take the whole for the
			// part that it asked for, and fail for good. After an error it asks the registry.
			return unavailable(x, "get blob "+x.route.Repository+"@"+x.route.Reference, "its size is not known yet")
		case size <= 0:
			// A range from the start: the whole is a valid answer to that.
		case !ok:
			return outside(x, size)
		default:
			body.status, body.off, body.end = http.StatusPartialContent, off, end
		}
	}
	if f := b.File(); f != nil {
		return body.copyFile(f)
	}
	return body.send(b)
}

// blobBody writes one answer's body. Its header goes out with the first byte, so that a fill
// that fails before that can still be answered with an error.
type blobBody struct {
	x        *exchange
	status   int
	off, end int64       // bytes [off, end) of the blob; end -1 while unknown
	size     int64       // -1 while unknown
	tooLate  *time.Timer // ends the wait for the first byte
}

// copyFile sends a complete blob. The file reaches the response as a file: sendfile.
func (b *blobBody) copyFile(f *os.File) error {
	if b.off > 0 {
		if _, err := f.Seek(b.off, io.SeekStart); err != nil {
			return fmt.Errorf("serve blob %s: %w", b.x.route.Reference, err)
		}
	}
	b.writeHeader()
	n, err := io.CopyN(&b.x.w, f, b.end-b.off)
	return b.ended(n, err)
}

// errTooSlow is the cause of a context whose fill gave no first byte in time.
var errTooSlow = errors.New("no byte arrived in time")

// send sends a blob that is still arriving.
func (b *blobBody) send(from blob) error {
	ctx, cancel := context.WithCancelCause(b.x.r.Context())
	defer cancel(nil)
	b.tooLate = time.AfterFunc(time.Until(b.x.began.Add(headersWithin)), func() { cancel(errTooSlow) })
	defer b.tooLate.Stop()
	n, err := from.Send(ctx, b, b.off, b.end)
	if !b.x.w.wroteHeader() {
		if err == nil {
			b.writeHeader() // an empty blob
			return b.ended(n, nil)
		}
		if errors.Is(context.Cause(ctx), errTooSlow) {
			return &pull.Error{Kind: pull.Timeout, Upstream: b.x.route.Upstream,
				Op: "get blob " + b.x.route.Repository + "@" + b.x.route.Reference, Err: errTooSlow}
		}
		return err
	}
	return b.ended(n, err)
}

// ended makes the client see whether the body is whole. With a known length a plain return
// is enough: net/http closes the connection when the body ended short, and the client sees
// an unexpected EOF and resumes. Without one the response must be aborted.
func (b *blobBody) ended(n int64, err error) error {
	if err == nil && b.end >= 0 && n != b.end-b.off {
		err = fmt.Errorf("serve blob %s: %d bytes instead of %d", b.x.route.Reference, n, b.end-b.off)
	}
	if err != nil && b.end < 0 {
		return errors.Join(err, errAborted)
	}
	return err
}

func (b *blobBody) writeHeader() {
	header := b.x.w.Header()
	if b.end >= 0 {
		setLength(header, b.end-b.off)
	}
	if b.status == http.StatusPartialContent {
		header["Content-Range"] = []string{contentRange(b.off, b.end, b.size)}
	}
	b.x.w.WriteHeader(b.status)
}

// contentRange spells the bytes [off, end) of size.
func contentRange(off, end, size int64) string {
	text := append(make([]byte, 0, 64), "bytes "...)
	text = strconv.AppendInt(text, off, 10)
	text = append(text, '-')
	text = strconv.AppendInt(text, end-1, 10)
	text = append(text, '/')
	return string(strconv.AppendInt(text, size, 10))
}

// begin lets the header go out before the first byte. It fails when the first byte
// came after the deadline for headers.
func (b *blobBody) begin() error {
	if b.x.w.wroteHeader() {
		return nil
	}
	if !b.tooLate.Stop() {
		return errTooSlow
	}
	b.writeHeader()
	// The header must not wait in a buffer for bytes that may be slow to come.
	return http.NewResponseController(b.x.w.ResponseWriter).Flush()
}

// Write is for the cache that sends the blob.
func (b *blobBody) Write(p []byte) (int, error) {
	if err := b.begin(); err != nil {
		return 0, err
	}
	return b.x.w.Write(p)
}

// ReadFrom is for the cache that sends the blob from a file.
func (b *blobBody) ReadFrom(r io.Reader) (int64, error) {
	if err := b.begin(); err != nil {
		return 0, err
	}
	return b.x.w.ReadFrom(r)
}
