package hubtest

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// pickCDN returns the role that the next redirect leads to.
func (h *Hub) pickCDN() Role {
	three := []Role{RoleCF, RoleR2, RoleCFR}
	switch choice := h.opts().CDN; choice {
	case "", CDNRotate:
		return three[(h.turn.Add(1)-1)%3]
	case CDNRandom:
		return three[rand.New(rand.NewPCG(h.fixed.Seed, h.turn.Add(1))).IntN(3)]
	default:
		return Role(choice)
	}
}

// signedTTL is how long a signed URL lives: 1200 s at R2 in captures of 2025-10 to
// 2026-03; about an hour at Cloudflare, minutes at CloudFront.
func (h *Hub) signedTTL(role Role) time.Duration {
	if d := h.opts().SignedTTL; d != 0 {
		return d
	}
	switch role {
	case RoleR2:
		return 1200 * time.Second
	case RoleCFR:
		return 900 * time.Second
	}
	return 3600 * time.Second
}

// signedURL returns where a CDN gives a blob to a request with the given method.
func (h *Hub) signedURL(role Role, method, digest string) string {
	path := cdnPath(digest)
	if h.profile().doubleSlash {
		path = doubleSlash + path
	}
	return h.URL(role) + path + "?" + h.signQuery(role, method, path)
}

// SignedURL returns a URL at a CDN role that is good for a GET of a blob.
func (h *Hub) SignedURL(role Role, digest string) string {
	return h.signedURL(role, http.MethodGet, digest)
}

// ExpireURLs makes every signed URL issued so far count as expired.
func (h *Hub) ExpireURLs() { h.generation.Add(1) }

const r2Time = "20060102T150405Z"

// signQuery returns the query that makes a path good for a while. A generation is
// part of what is signed, so that ExpireURLs can end all lives at once.
func (h *Hub) signQuery(role Role, method, path string) string {
	now, ttl, generation := h.Now(), h.signedTTL(role), h.generation.Load()
	switch role {
	case RoleR2:
		v := url.Values{
			"X-Amz-Algorithm":     {"AWS4-HMAC-SHA256"},
			"X-Amz-Credential":    {"hubtest/" + now.UTC().Format("20060102") + "/auto/s3/aws4_request"},
			"X-Amz-Date":          {now.UTC().Format(r2Time)},
			"X-Amz-Expires":       {strconv.Itoa(int(ttl / time.Second))},
			"X-Amz-SignedHeaders": {"host"},
		}
		v.Set("X-Amz-Signature", h.r2Signature(generation, method, path, v))
		return v.Encode()
	case RoleCFR:
		expires := strconv.FormatInt(now.Add(ttl).Unix(), 10)
		v := url.Values{
			"Expires":     {expires},
			"Signature":   {h.plainSignature(generation, role, path, expires)},
			"Key-Pair-Id": {"HUBTEST"},
		}
		return v.Encode()
	}
	expires := strconv.FormatInt(now.Add(ttl).Unix(), 10)
	return url.Values{"verify": {expires + "-" + h.plainSignature(generation, role, path, expires)}}.Encode()
}

func (h *Hub) plainSignature(generation uint64, role Role, path, expires string) string {
	return base64.StdEncoding.EncodeToString(h.mac(string(role), fmt.Sprint(generation, path, expires))[:20])
}

// r2Signature covers method, host and all parameters.
func (h *Hub) r2Signature(generation uint64, method, path string, v url.Values) string {
	text := strings.Join([]string{
		method, h.servers[RoleR2].host(), path, v.Get("X-Amz-Credential"), v.Get("X-Amz-Date"), v.Get("X-Amz-Expires"),
	}, "\n")
	return hex.EncodeToString(h.mac("r2", fmt.Sprint(generation, text)))
}

// verdict is what a CDN thinks of a URL.
type verdict int

const (
	good verdict = iota
	expired
	forged
)

func (h *Hub) judge(x *exchange) verdict {
	q, path := x.r.URL.Query(), rawPath(x.r)
	var until time.Time
	var got string
	want := func(generation uint64) string { return h.r2Signature(generation, x.r.Method, path, q) }
	switch x.Role {
	case RoleR2:
		got = q.Get("X-Amz-Signature")
		start, _ := time.Parse(r2Time, q.Get("X-Amz-Date"))
		life, _ := strconv.Atoi(q.Get("X-Amz-Expires"))
		until = start.Add(time.Duration(life) * time.Second)
		if x.r.Host != h.servers[RoleR2].host() {
			return forged
		}
	default:
		expires := q.Get("Expires")
		got = q.Get("Signature")
		if x.Role != RoleCFR {
			expires, got, _ = strings.Cut(q.Get("verify"), "-")
		}
		until = unixTime(expires)
		want = func(generation uint64) string { return h.plainSignature(generation, x.Role, path, expires) }
	}
	now := h.generation.Load()
	for generation := now; ; generation-- {
		if hmac.Equal([]byte(got), []byte(want(generation))) {
			if generation < now || !h.Now().Before(until) {
				return expired
			}
			return good
		}
		if generation == 0 {
			return forged
		}
	}
}

func unixTime(s string) time.Time {
	n, _ := strconv.ParseInt(s, 10, 64)
	return time.Unix(n, 0)
}

func xmlError(status int, code, message string) *Reply {
	return newReply(status, "application/xml", fmt.Appendf(nil,
		"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>%s</Message></Error>", code, message))
}

// answerCDN serves a signed blob.
func (h *Hub) answerCDN(x *exchange) *Reply {
	a := h.cdnReply(x)
	switch x.Role {
	case RoleCFR:
		a.Header.Set("Server", "AmazonS3")
	default:
		a.Header.Set("Server", "cloudflare")
	}
	if c := h.profile().cdnCacheControl; c != "" {
		a.Header.Set("Cache-Control", c)
	}
	return a
}

func (h *Hub) cdnReply(x *exchange) *Reply {
	switch {
	case x.Route != RouteBlob:
		return xmlError(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	case x.r.Method != http.MethodGet && x.r.Method != http.MethodHead:
		h.book.wrote()
		return xmlError(http.StatusMethodNotAllowed, "MethodNotAllowed", "The specified method is not allowed.")
	case x.Role != RoleRegistry && (x.r.Header.Get("Authorization") != "" || x.r.Header.Get("Cookie") != ""):
		return xmlError(http.StatusBadRequest, "InvalidArgument", "Only one auth mechanism allowed")
	}
	switch h.judge(x) {
	case forged:
		return xmlError(http.StatusForbidden, "SignatureDoesNotMatch", "The request signature we calculated does not match.")
	case expired:
		if x.Role == RoleR2 {
			status := h.opts().R2ExpiredStatus
			if status == 0 {
				status = http.StatusForbidden
			}
			return xmlError(status, "ExpiredRequest", "Request has expired.")
		}
		return xmlError(http.StatusForbidden, "AccessDenied", "Request has expired")
	}
	c, ok := h.anyBlob(x.r.Context(), x.Ref)
	if !ok {
		return xmlError(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	}
	return blobBody(x, c, cdnETag(x.Role, x.Ref))
}

// ownBlob serves a signed blob from the registry's own host, where relative redirects lead.
func (h *Hub) ownBlob(x *exchange) *Reply { return h.cdnReply(x) }

// anyBlob finds a blob without regard to repositories: the signature is the right to it.
func (h *Hub) anyBlob(ctx context.Context, digest string) (content, bool) {
	h.mu.RLock()
	c, holder := h.contents[digest], h.holders[digest]
	h.mu.RUnlock()
	if c != nil {
		return c, true
	}
	return h.backend.blob(ctx, holder, digest)
}

// cdnETag is an MD5 in quotes that differs between CDNs, never the digest.
func cdnETag(role Role, digest string) string {
	sum := md5.Sum([]byte(string(role) + digest))
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// blobBody is the blob or the part of it that Range asks for.
func blobBody(x *exchange, c content, etag string) *Reply {
	a := newReply(http.StatusOK, "application/octet-stream", nil)
	a.setBody(c)
	a.digest = x.Ref
	a.Header.Set("Etag", etag)
	a.Header.Set("Accept-Ranges", "bytes")
	a.Header.Set("Vary", "Accept-Encoding")
	spec := x.r.Header.Get("Range")
	if cond := x.r.Header.Get("If-Range"); spec == "" || cond != "" && cond != etag {
		return a
	}
	off, n, kind := parseRange(spec, c.size())
	switch kind {
	case rangeNone:
		return a
	case rangeUnsatisfiable:
		bad := newReply(http.StatusRequestedRangeNotSatisfiable, "application/xml", []byte("<Error><Code>InvalidRange</Code></Error>"))
		bad.Header.Set("Content-Range", fmt.Sprintf("bytes */%d", c.size()))
		return bad
	}
	a.setRange(off, n, c.size())
	return a
}

func (a *Reply) setRange(off, n, size int64) {
	a.Status, a.off, a.n = http.StatusPartialContent, off, n
	a.Header.Set("Content-Length", strconv.FormatInt(n, 10))
	a.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, size))
}

type rangeKind int

const (
	rangeNone rangeKind = iota // absent, not understood, or several: the whole
	rangeOne
	rangeUnsatisfiable
)

// parseRange reads one byte range of RFC 9110 section 14.1.2.
func parseRange(spec string, size int64) (off, n int64, kind rangeKind) {
	set, ok := strings.CutPrefix(spec, "bytes=")
	if !ok || strings.Contains(set, ",") {
		return 0, 0, rangeNone
	}
	first, last, ok := strings.Cut(strings.TrimSpace(set), "-")
	if !ok {
		return 0, 0, rangeNone
	}
	if first == "" {
		n, err := strconv.ParseInt(last, 10, 64)
		if err != nil || n < 0 {
			return 0, 0, rangeNone
		}
		if n = min(n, size); n == 0 {
			return 0, 0, rangeUnsatisfiable
		}
		return size - n, n, rangeOne
	}
	off, err := strconv.ParseInt(first, 10, 64)
	if err != nil || off < 0 {
		return 0, 0, rangeNone
	}
	end := size - 1
	if last != "" {
		if end, err = strconv.ParseInt(last, 10, 64); err != nil || end < off {
			return 0, 0, rangeNone
		}
		end = min(end, size-1)
	}
	if off >= size {
		return 0, 0, rangeUnsatisfiable
	}
	return off, end - off + 1, rangeOne
}
