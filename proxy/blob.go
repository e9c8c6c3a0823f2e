package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"os"
	"slices"
	"strconv"
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
	asked := x.r.Header.Get("Range")
	if cond := x.r.Header.Get("If-Range"); cond != "" && cond != `"`+x.route.Digest.String()+`"` {
		asked = "" // of something else: the whole, as RFC 9110, 13.1.5 has it
	}
	ranges := wire.ParseRange(asked)
	b, err := h.source.openBlob(&x.deadline, x.repo(), x.route.Digest, ranges...)
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

// sendBlob sends the whole blob, or the ranges of it.
func (h *Handler) sendBlob(x *exchange, b blob, ranges []wire.ByteRange) error {
	size := b.Size()
	body := blobBody{x: x, status: http.StatusOK, length: size, parts: []part{{off: 0, end: -1}}}
	switch spans := wire.Spans(ranges, size); {
	case len(ranges) == 0, size == 0:
		// A range from the start of nothing: the whole is a valid answer to that.
	case size < 0:
		if len(ranges) == 1 && ranges[0].First != 0 {
			// Without the end there can be no 206, and containerd would take the whole for the
			// part that it asked for, and fail for good. After an error it asks the registry.
			return unavailable(x, "get blob "+x.route.Repository+"@"+x.route.Reference, "its size is not known yet")
		}
	case len(spans) == 0:
		return outside(x, size)
	case len(spans) == 1:
		p := part{off: spans[0].Off, end: spans[0].End}
		body.status, body.length = http.StatusPartialContent, p.end-p.off
		body.rangeOf = contentRange(p.off, p.end, size)
		if !bounded(ranges) {
			p.end = -1
		}
		body.parts[0] = p
	default:
		body.setParts(spans, size, bounded(ranges))
	}
	if f := b.File(); f != nil && len(body.parts) == 1 {
		return body.copyFile(f)
	}
	return body.send(b)
}

// bounded reports whether no range goes on to the end of the blob, wherever that is: its last
// byte then goes out as soon as it is there.
func bounded(ranges []wire.ByteRange) bool {
	return !slices.ContainsFunc(ranges, func(r wire.ByteRange) bool { return r.First >= 0 && r.Last < 0 })
}

// blobBody writes one answer's body. Its header goes out with the first byte, so that a fill
// that fails before that can still be answered with an error.
type blobBody struct {
	x       *exchange
	status  int
	length  int64  // of the body; -1 while unknown
	rangeOf string // Content-Range; empty for the whole and for several parts
	kind    string // Content-Type of several parts
	parts   []part
	head    []byte      // of the part that is being sent, until its first byte
	tail    []byte      // after the last part
	tooLate *time.Timer // ends the wait for the first byte
}

// part is the bytes [off, end) of the blob, end -1 being its end.
type part struct {
	head     []byte
	off, end int64
}

// setParts makes the body one of several parts (RFC 9110, 14.6), for podman's partial pulls and stargz.
func (b *blobBody) setParts(spans []wire.Span, size int64, bounded bool) {
	var text bytes.Buffer
	w := multipart.NewWriter(&text)
	b.status, b.length, b.parts = http.StatusPartialContent, 0, nil
	for _, s := range spans {
		// Neither can fail: they write to memory.
		_, _ = w.CreatePart(textproto.MIMEHeader{"Content-Type": b.x.w.Header()["Content-Type"], "Content-Range": {contentRange(s.Off, s.End, size)}})
		b.parts = append(b.parts, part{head: bytes.Clone(text.Bytes()), off: s.Off, end: s.End})
		b.length += int64(text.Len()) + s.End - s.Off
		if s.End == size && !bounded {
			b.parts[len(b.parts)-1].end = -1 // its last byte waits for the digest, as that of one range
		}
		text.Reset()
	}
	_ = w.Close()
	b.tail = text.Bytes()
	b.length += int64(text.Len())
	b.kind = "multipart/byteranges; boundary=" + w.Boundary()
}

// copyFile sends one part of a complete blob. The file reaches the response as a file: sendfile.
func (b *blobBody) copyFile(f *os.File) error {
	if off := b.parts[0].off; off > 0 {
		if _, err := f.Seek(off, io.SeekStart); err != nil {
			return fmt.Errorf("serve blob %s: %w", b.x.route.Reference, err)
		}
	}
	b.writeHeader()
	n, err := io.CopyN(&b.x.w, f, b.length)
	return b.ended(n, err)
}

// errTooSlow is the cause of a context whose fill gave no first byte in time.
var errTooSlow = errors.New("no byte arrived in time")

// send sends a blob that is still arriving, or several parts of one.
func (b *blobBody) send(from blob) error {
	ctx, cancel := context.WithCancelCause(b.x.r.Context())
	defer cancel(nil)
	b.tooLate = time.AfterFunc(time.Until(b.x.began.Add(headersWithin)), func() { cancel(errTooSlow) })
	defer b.tooLate.Stop()
	var n int64
	var err error
	for _, p := range b.parts {
		b.head = p.head
		var sent int64
		sent, err = from.Send(ctx, b, p.off, p.end)
		if n += int64(len(p.head)) + sent; err != nil {
			break
		}
	}
	if len(b.tail) > 0 && err == nil {
		var sent int
		sent, err = b.x.w.Write(b.tail)
		n += int64(sent)
	}
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
	if err == nil && b.length >= 0 && n != b.length {
		err = fmt.Errorf("serve blob %s: %d bytes instead of %d", b.x.route.Reference, n, b.length)
	}
	if err != nil && b.length < 0 {
		return errors.Join(err, errAborted)
	}
	return err
}

func (b *blobBody) writeHeader() {
	header := b.x.w.Header()
	if b.length >= 0 {
		setLength(header, b.length)
	}
	if b.rangeOf != "" {
		header["Content-Range"] = []string{b.rangeOf}
	}
	if b.kind != "" {
		header["Content-Type"] = []string{b.kind}
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
	if !b.x.w.wroteHeader() {
		if !b.tooLate.Stop() {
			return errTooSlow
		}
		b.writeHeader()
		// The header must not wait in a buffer for bytes that may be slow to come.
		if err := http.NewResponseController(b.x.w.ResponseWriter).Flush(); err != nil {
			return err
		}
	}
	if b.head == nil {
		return nil
	}
	head := b.head
	b.head = nil
	_, err := b.x.w.Write(head)
	return err
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
