// Package webhook receives what registries post after a push.
//
// It promises to treat a payload only as a hint that a tag may have moved: it believes no
// digest in it and calls no URL in it. Whoever knows the secret can make the mirror ask an
// upstream about tags that the mirror knows, and nothing else.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"forebay/internal/logkey"
)

// Path is where the handler expects to be, with what is below it. A sender proves that it knows the
// secret by the last part of the path, /webhooks/SECRET, since some can do no more. A path is written
// down by proxies on the way, so that others post to Path itself: with the secret in Authorization,
// as Harbor, ACR and distribution can, or with a signature of the payload, as GitHub makes it.
const Path = "/webhooks"

// signatureHeader has "sha256=" and the HMAC-SHA256 of the payload by the secret, in hex (GitHub,
// "Validating webhook deliveries").
const signatureHeader = "X-Hub-Signature-256"

// Options configures a handler. All but Log are required.
type Options struct {
	Secret string
	// Hint is told of each tag. registry is the host that the payload names, or the name
	// in the query ?upstream=, which has precedence; it reports whether that is an
	// upstream of ours. It must not block.
	Hint func(registry, repository, tag string) bool
	Log  *zap.Logger
}

const (
	// bodyMax bounds a payload. Docker Hub's have some 2 KiB, those of GitHub 20 KiB.
	bodyMax = 64 << 10
	// bodyTimeout bounds how long a payload may take to arrive.
	bodyTimeout = 10 * time.Second
)

// handler compares hashes of secrets, so that the time that it takes tells neither the
// content nor the length of the right one.
type handler struct {
	opts   Options
	secret [sha256.Size]byte
}

// Is reports whether a path is the handler's.
func Is(path string) bool { return path == Path || strings.HasPrefix(path, Path+"/") }

// New returns the handler for [Path] and what is below it.
func New(o Options) http.Handler {
	if o.Secret == "" || o.Hint == nil {
		panic("webhook: no secret or nobody to hint")
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &handler{opts: o, secret: sha256.Sum256([]byte(o.Secret))}
}

// ServeHTTP answers 202 to a payload that it understands, whether anything comes of it or not.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, err := h.receive(w, r)
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	if status == http.StatusMethodNotAllowed {
		header.Set("Allow", http.MethodPost)
	}
	text := http.StatusText(status)
	if err != nil {
		text = err.Error()
		level := zap.InfoLevel
		if status == http.StatusNotFound {
			level = zap.DebugLevel // any stranger can have as many as it likes
		}
		h.opts.Log.Log(level, "webhook refused", logkey.Status(status), logkey.Addr(r.RemoteAddr), logkey.Err(err))
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // the client may be gone
}

func (h *handler) receive(w http.ResponseWriter, r *http.Request) (int, error) {
	if !h.knows(r) {
		return http.StatusNotFound, errNotFound
	}
	if r.Method != http.MethodPost {
		return http.StatusMethodNotAllowed, errors.New("a webhook is a POST")
	}
	// Not every writer has deadlines; the server's own bounds hold then.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyMax))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return http.StatusRequestEntityTooLarge, fmt.Errorf("the payload has more than %d bytes", bodyMax)
	case err != nil:
		return http.StatusBadRequest, errors.New("the payload did not arrive")
	case bare(r) && r.Header.Get("Authorization") == "" && !h.signed(r, body):
		return http.StatusNotFound, errNotFound
	}
	tags, err := Parse(body)
	if err != nil {
		return http.StatusBadRequest, err
	}
	for _, t := range tags {
		h.hint(t, r.URL.Query().Get("upstream"))
	}
	return http.StatusAccepted, nil
}

// errNotFound is all that is told to who does not know the secret.
var errNotFound = errors.New("not found")

// bare reports whether a request has no secret in its path.
func bare(r *http.Request) bool { return strings.TrimSuffix(r.URL.Path, "/") == Path }

// knows reports whether a request has the secret, or a signature that is still to be looked at.
func (h *handler) knows(r *http.Request) bool {
	if !bare(r) {
		return h.is(strings.TrimPrefix(r.URL.Path, Path+"/"))
	}
	given := r.Header.Get("Authorization")
	if given == "" {
		return r.Header.Get(signatureHeader) != ""
	}
	if scheme, token, found := strings.Cut(given, " "); found && strings.EqualFold(scheme, "Bearer") {
		given = token // Harbor sends the bare text
	}
	return h.is(given)
}

func (h *handler) is(secret string) bool {
	given := sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(given[:], h.secret[:]) == 1
}

// signed reports whether the signature of a request is that of its body.
func (h *handler) signed(r *http.Request, body []byte) bool {
	text, ok := strings.CutPrefix(r.Header.Get(signatureHeader), "sha256=")
	given, err := hex.DecodeString(text)
	mac := hmac.New(sha256.New, []byte(h.opts.Secret))
	mac.Write(body)
	return ok && err == nil && hmac.Equal(given, mac.Sum(nil))
}

func (h *handler) hint(t Tag, upstream string) {
	if upstream != "" {
		t.Registry = upstream
	}
	ours := h.opts.Hint(t.Registry, t.Repository, t.Tag)
	h.opts.Log.Debug("webhook received", logkey.Upstream(t.Registry), logkey.Repository(t.Repository),
		logkey.Reference(t.Tag), zap.Bool("ours", ours))
}
