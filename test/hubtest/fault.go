package hubtest

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Fault is one way of misbehaving. The constructors below make them; they are
// values and may be used in several rules. A fault that replaces the answer keeps
// the hub from charging for it; one that damages the answer does not.
type Fault struct {
	Name    string
	before  func(*exchange) // may set the reply, and so skip the handler
	after   func(*exchange) // changes the reply
	finally func(*exchange) // after the reply was sent
}

// Both joins faults: all their effects, in order.
func Both(faults ...Fault) Fault {
	var names []string
	for _, f := range faults {
		names = append(names, f.Name)
	}
	run := func(pick func(Fault) func(*exchange)) func(*exchange) {
		return func(x *exchange) {
			for _, f := range faults {
				if do := pick(f); do != nil {
					do(x)
				}
			}
		}
	}
	return Fault{
		Name:    strings.Join(names, "+"),
		before:  run(func(f Fault) func(*exchange) { return f.before }),
		after:   run(func(f Fault) func(*exchange) { return f.after }),
		finally: run(func(f Fault) func(*exchange) { return f.finally }),
	}
}

// Pass does nothing: the rule only counts, or shields a request from later rules.
func Pass() Fault { return Fault{Name: "pass"} }

// Call runs f before the request is answered.
func Call(f func()) Fault {
	return Fault{Name: "call", before: func(*exchange) { f() }}
}

// CallAfter runs f when the answer was written, and before the client may send the
// next request on this connection.
func CallAfter(f func()) Fault {
	return Fault{Name: "call-after", finally: func(*exchange) { f() }}
}

// Edit changes the answer of the hub in any way.
func Edit(name string, f func(r *http.Request, a *Reply)) Fault {
	return Fault{Name: name, after: func(x *exchange) { f(x.r, x.reply) }}
}

// StatusWith answers code with a body and headers of the caller's choice.
func StatusWith(code int, contentType, body string, header http.Header) Fault {
	return Fault{Name: "status " + strconv.Itoa(code), before: func(x *exchange) {
		a := newReply(code, contentType, []byte(body))
		for k, v := range header {
			a.Header[http.CanonicalHeaderKey(k)] = v
		}
		x.reply = a
	}}
}

// Status answers code with an error document.
func Status(code int) Fault {
	text := http.StatusText(code)
	doc := errorDocument(strings.ToUpper(strings.ReplaceAll(text, " ", "_")), strings.ToLower(text), nil)
	return StatusWith(code, "application/json", string(doc), nil)
}

// StatusHTML answers code with a page of HTML, as a proxy in front of a registry does.
func StatusHTML(code int) Fault {
	return StatusWith(code, "text/html", fmt.Sprintf("<html><body><h1>%d %s</h1></body></html>\n", code, http.StatusText(code)), nil)
}

// StatusEmpty answers code without a body.
func StatusEmpty(code int) Fault { return StatusWith(code, "", "", nil) }

// StatusRetryAfter answers code with a Retry-After of the given text.
func StatusRetryAfter(code int, retryAfter string) Fault {
	return Both(Status(code), Header("Retry-After", retryAfter))
}

// RateLimited is the 429 of the pull limit whatever was pulled. For a limit after
// n pulls use [Hub.SetPlan], Options.Anonymous or a rule with From: n+1.
func RateLimited() Fault {
	return Fault{Name: "rate-limited", before: func(x *exchange) {
		a := x.Hub.limitReply(x)
		x.Hub.rateHeaders(x, a, RepoOpts{})
		for _, k := range []string{"Ratelimit-Remaining", "X-Ratelimit-Remaining"} {
			if a.Header.Get(k) != "" {
				_, w, _ := strings.Cut(a.Header.Get(k), ";")
				a.Header.Set(k, "0;"+w)
			}
		}
		x.reply = a
	}}
}

// Abuse429 is the plain-text 429 of the abuse limit.
func Abuse429() Fault {
	return Fault{Name: "abuse-429", before: func(x *exchange) { x.reply = x.Hub.abuseReply() }}
}

// ExpireToken makes all tokens issued so far invalid, the one of this request included.
func ExpireToken() Fault {
	return Fault{Name: "expire-token", before: func(x *exchange) {
		x.Hub.ExpireTokens()
		x.claim = nil
	}}
}

// RevokeAccount makes an account's tokens and credentials invalid for good.
func RevokeAccount(account string) Fault {
	return Fault{Name: "revoke", before: func(x *exchange) {
		x.Hub.Revoke(account)
		if x.claim != nil && x.claim.Subject == account {
			x.claim = nil
		}
	}}
}

// Delay waits for d before the request is answered.
func Delay(d time.Duration) Fault {
	return Fault{Name: "delay " + d.String(), before: func(x *exchange) {
		if pause(x.r.Context(), d) != nil {
			panic(http.ErrAbortHandler)
		}
	}}
}

// Hang never answers. It ends when the client or the hub gives up.
func Hang() Fault {
	return Fault{Name: "hang", before: func(x *exchange) {
		<-x.r.Context().Done()
		panic(http.ErrAbortHandler)
	}}
}

// Block does not answer until release is closed.
func Block(release <-chan struct{}) Fault {
	return Fault{Name: "block", before: func(x *exchange) {
		select {
		case <-release:
		case <-x.r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}}
}

// NoReply ends the connection without any answer (of a reused one, with When: Reused): closed, or
// reset if how is RST.
func NoReply(how Ending) Fault {
	return Fault{Name: "no-reply " + string(how), before: func(x *exchange) {
		if how == RST {
			x.conn.reset()
		}
		panic(http.ErrAbortHandler)
	}}
}

// Reused is for Rule.When: the request is not the first of its connection.
func Reused(s *State) bool { return s.Reused }

// Drop sends the full header and k body bytes, then ends the connection.
// A negative k counts from the end of the body.
func Drop(k int64, how Ending) Fault {
	return wireFault(fmt.Sprintf("drop at %d %s", k, how), func(x *exchange, w *wire) {
		w.cutAt(x, k)
		w.ending = how
		if how == Clean {
			w.ending = FIN
		}
	})
}

// StallAt sends k body bytes and then nothing more.
func StallAt(k int64) Fault {
	return wireFault(fmt.Sprintf("stall at %d", k), func(x *exchange, w *wire) {
		w.cutAt(x, k)
		w.ending = Stall
	})
}

// Drip sends the body n bytes at a time with a pause in between.
func Drip(n int64, every time.Duration) Fault {
	return wireFault("drip", func(_ *exchange, w *wire) { w.dripBytes, w.dripEvery = n, every })
}

// SlowHeaders sends the header line by line with a pause after each.
func SlowHeaders(every time.Duration) Fault {
	return wireFault("slow headers", func(_ *exchange, w *wire) { w.headEvery = every })
}

// Corrupt flips the lowest bit of the body byte at an offset; the length stays.
// A negative offset counts from the end. For a range the offset is within the part sent.
func Corrupt(offset int64) Fault {
	return wireFault(fmt.Sprintf("corrupt at %d", offset), func(x *exchange, w *wire) {
		w.flip = 1 + fromEnd(offset, x.reply.n)
	})
}

// WrongBytes sends other bytes in place of the body, with their own length.
func WrongBytes(b []byte) Fault {
	return Fault{Name: "wrong bytes", after: func(x *exchange) {
		if carriesContent(x) {
			x.reply.SetBody(b)
		}
	}}
}

// Truncate sends k body bytes and then ends the body as given.
func Truncate(k int64, how TruncateStyle) Fault {
	return wireFault("truncate "+string(how), func(x *exchange, w *wire) {
		w.cutAt(x, k)
		switch how {
		case KeepLength:
			w.ending = FIN
		case CutLength:
			x.reply.Header.Set("Content-Length", strconv.FormatInt(w.keep, 10))
		case UntilClose:
			w.framing = untilClose
		case ChunkedClean:
			w.framing = chunked
		case ChunkedCut:
			w.framing, w.ending = chunked, FIN
		}
	})
}

// TruncateStyle is how a truncated body looks.
type TruncateStyle string

const (
	KeepLength   TruncateStyle = ""               // true Content-Length: unexpected EOF
	CutLength    TruncateStyle = "cut-length"     // Content-Length of what is sent: looks complete
	UntilClose   TruncateStyle = "until-close"    // no length at all: looks complete to Go
	ChunkedClean TruncateStyle = "chunked"        // with a last chunk: looks complete
	ChunkedCut   TruncateStyle = "chunked-no-end" // without one
)

// WrongCL adds n to the announced Content-Length; the body stays. The
// connection is closed after it.
func WrongCL(n int64) Fault {
	return wireFault(fmt.Sprintf("content-length %+d", n), func(x *exchange, w *wire) {
		w.raw = true
		x.reply.Header.Set("Content-Length", strconv.FormatInt(x.reply.n+n, 10))
	})
}

// RawCL replaces the Content-Length header by the given values, which need not be
// numbers; none means no header at all.
func RawCL(values ...string) Fault {
	return wireFault("raw content-length", func(x *exchange, w *wire) {
		w.raw = true
		x.reply.Header.Del("Content-Length")
		for _, v := range values {
			w.lines = append(w.lines, "Content-Length: "+v)
		}
	})
}

// NoDigestHeader leaves Docker-Content-Digest out.
func NoDigestHeader() Fault { return Header("Docker-Content-Digest", "") }

// DigestHeader sends a Docker-Content-Digest of the given text.
func DigestHeader(text string) Fault { return Header("Docker-Content-Digest", text) }

// Sha512DigestHeader sends the sha512 of the body instead of the sha256.
func Sha512DigestHeader() Fault {
	return Fault{Name: "sha512 digest header", after: func(x *exchange) {
		if x.reply.body != nil {
			x.reply.Header.Set("Docker-Content-Digest", DigestBy("sha512", x.reply.Body()))
		}
	}}
}

// Header sets a header of the answer, or removes it if value is "". "{registry}",
// "{auth}", "{evil}" and "{meta}" in value become the base URL of that role.
func Header(name, value string) Fault {
	return Fault{Name: "header " + name, after: func(x *exchange) {
		if value == "" {
			x.reply.Header.Del(name)
			return
		}
		x.reply.Header.Set(name, x.Hub.expand(value))
	}}
}

// TagMoves points a tag elsewhere as soon as the request was answered.
func TagMoves(repo, tag, digest string) Fault {
	return Fault{Name: "tag moves", after: func(x *exchange) { x.Hub.MoveTag(repo, tag, digest) }}
}

// IgnoreRange answers a Range request with 200 and the whole body.
func IgnoreRange() Fault {
	return Fault{Name: "ignore range", before: func(x *exchange) { x.r.Header.Del("Range") }}
}

// WrongRange sends the part that was asked for, but says that it starts by bytes later.
func WrongRange(by int64) Fault {
	return Fault{Name: "wrong range", after: func(x *exchange) {
		a := x.reply
		if a.Status == http.StatusPartialContent {
			a.Header.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", a.off+by, a.off+by+a.n-1, a.body.size()))
		}
	}}
}

// ShiftedRange says truly what part it sends, but the part starts by bytes later than
// was asked for.
func ShiftedRange(by int64) Fault {
	return Fault{Name: "shifted range", after: func(x *exchange) {
		if a := x.reply; a.Status == http.StatusPartialContent && a.off+by >= 0 {
			a.setRange(a.off+by, min(a.n, a.body.size()-a.off-by), a.body.size())
		}
	}}
}

// ShortRange sends at most n bytes of the part that was asked for, correctly labelled.
func ShortRange(n int64) Fault {
	return Fault{Name: "short range", after: func(x *exchange) {
		if a := x.reply; a.Status == http.StatusPartialContent {
			a.setRange(a.off, min(n, a.n), a.body.size())
		}
	}}
}

// Range416 answers 416 to a Range request.
func Range416() Fault {
	return Fault{Name: "range 416", after: func(x *exchange) {
		if x.r.Header.Get("Range") == "" || x.reply.body == nil {
			return
		}
		size := x.reply.body.size()
		x.reply = newReply(http.StatusRequestedRangeNotSatisfiable, "", nil)
		x.reply.Header.Set("Content-Range", fmt.Sprintf("bytes */%d", size))
	}}
}

// HeadNotAllowed answers 405 to HEAD. Other methods are served.
func HeadNotAllowed() Fault { return headFault(http.StatusMethodNotAllowed) }

// HeadUnauthorized answers 401 without a challenge to HEAD, whatever the token, as
// public.ecr.aws does for blobs.
func HeadUnauthorized() Fault { return headFault(http.StatusUnauthorized) }

// HeadStatus answers status without a body to HEAD. Other methods are served.
func HeadStatus(status int) Fault {
	return Fault{Name: "head " + strconv.Itoa(status), before: func(x *exchange) {
		if x.r.Method == http.MethodHead {
			x.reply = newReply(status, "text/html", nil)
		}
	}}
}

func headFault(status int) Fault {
	return Fault{Name: "head " + strconv.Itoa(status), before: func(x *exchange) {
		if x.r.Method == http.MethodHead {
			x.reply = errorReply(status, "UNSUPPORTED", "The operation is unsupported.", nil)
		}
	}}
}

// BadToken400 answers 400 without a challenge to a request with a credential, as
// public.ecr.aws does to an expired token.
func BadToken400() Fault { return TokenExpired(http.StatusBadRequest) }

// TokenExpired answers status without a challenge to a request with any credential: 403
// is what ECR says to an expired one.
func TokenExpired(status int) Fault {
	return Fault{Name: "token expired " + strconv.Itoa(status), before: func(x *exchange) {
		if x.r.Header.Get("Authorization") != "" {
			x.reply = denied(status, "Your authorization token has expired. Reauthenticate and try again.")
		}
	}}
}

// Gzip compresses the body and says so; the digest header stays that of the plain
// bytes. times is how often: 2 is double-encoded.
func Gzip(times int) Fault {
	return Fault{Name: "gzip", after: func(x *exchange) {
		a := x.reply
		if a.body == nil || a.Status >= 300 && a.Status < 400 {
			return
		}
		b := a.Body()
		for range times {
			b = gzipped(b)
			a.Header.Add("Content-Encoding", "gzip")
		}
		a.SetBody(b)
	}}
}

func gzipped(b []byte) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := w.Write(b)
	must(err)
	must(w.Close())
	return z.Bytes()
}

// Encoding claims a Content-Encoding that the plain body does not have, such as zstd.
func Encoding(name string) Fault { return Header("Content-Encoding", name) }

// Chunked sends the body in chunks without a Content-Length; HEAD keeps it.
func Chunked() Fault {
	return wireFault("chunked", func(x *exchange, w *wire) {
		if x.r.Method != http.MethodHead {
			w.framing = chunked
		}
	})
}

// CloseDelimited sends the whole body without a length and closes the connection.
func CloseDelimited() Fault {
	return wireFault("close-delimited", func(_ *exchange, w *wire) { w.framing = untilClose })
}

// Challenge answers 401 with exactly the given WWW-Authenticate values. Role names
// in braces are replaced as in [Header].
func Challenge(values ...string) Fault {
	return Fault{Name: "challenge", before: func(x *exchange) {
		a := unauthorized(nil)
		for _, v := range values {
			a.Header.Add("Www-Authenticate", x.Hub.expand(v))
		}
		x.reply = a
	}}
}

// ChallengeTo is a challenge for the request's own repository with another realm, sent
// to requests without a bearer token only, so that the flow goes on afterwards.
func ChallengeTo(realm string) Fault {
	return Fault{Name: "challenge to", before: func(x *exchange) {
		if x.Bearer {
			return
		}
		a := unauthorized(nil)
		a.Header.Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s",service="%s",scope="repository:%s:pull"`,
			x.Hub.expand(realm), x.Hub.profile().service, x.Repo))
		x.reply = a
	}}
}

// ContentType sends another Content-Type, or none if ct is "".
func ContentType(ct string) Fault { return Header("Content-Type", ct) }

// wireFault makes a fault of an answer that carries content.
func wireFault(name string, change func(*exchange, *wire)) Fault {
	return Fault{Name: name, after: func(x *exchange) { change(x, &x.reply.wire) }}
}

func (w *wire) cutAt(x *exchange, k int64) {
	w.cut, w.keep = true, min(max(fromEnd(k, x.reply.n), 0), x.reply.n)
}

func fromEnd(k, n int64) int64 {
	if k < 0 {
		return n + k
	}
	return k
}

func carriesContent(x *exchange) bool {
	return x.reply.body != nil && x.reply.Status/100 == 2
}

// expand puts the base URLs of roles in place of their names in braces.
func (h *Hub) expand(s string) string {
	for _, site := range roleSites() {
		if token := "{" + string(site.role) + "}"; strings.Contains(s, token) {
			s = strings.ReplaceAll(s, token, h.URL(site.role))
		}
	}
	return s
}
