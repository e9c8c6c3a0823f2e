package admin

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"forebay/cache/image"
	"forebay/cache/store"
	"forebay/cache/upkeep"
	"forebay/internal/authn"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/rules"
	"forebay/internal/session"
	"forebay/internal/wire"
)

// problem is an error with its status and with a code for programs.
type problem struct {
	status  int
	code    string
	message string
}

func (p *problem) Error() string { return p.message }

func badRequest(format string, args ...any) error {
	return &problem{http.StatusBadRequest, "bad_request", fmt.Sprintf(format, args...)}
}

// answer admits a request of who has the role that is needed, and lets handle answer it.
func (a *API) answer(w http.ResponseWriter, r *http.Request, need Role, handle func(http.ResponseWriter, *http.Request) error) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	r, v := visiting(r)
	changes := r.Method != http.MethodGet && r.Method != http.MethodHead
	seen := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	if changes {
		w = seen // what only reads may be a stream, or be sent by the kernel
	}
	err := a.guard.admit(r, need)
	if err == nil {
		if !movesContent(r) {
			r.Body = http.MaxBytesReader(w, r.Body, bodyMostOf(r))
		}
		err = handle(w, r)
	}
	if changes && (err != nil || !movesContent(r)) {
		a.log.Info("admin request", logkey.Method(r.Method), logkey.URLPath(clip(r.URL.Path)), logkey.Addr(r.RemoteAddr), logkey.User(clip(v.who.Name)), logkey.Err(err))
	}
	if err != nil {
		a.refuse(w, r, err)
	} else if changes && a.audit != nil {
		a.audit(r, v.who.Name, seen.status)
	}
}

// statusWriter remembers what was answered.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// Unwrap serves [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// refuse is the only place that writes errors.
func (a *API) refuse(w http.ResponseWriter, r *http.Request, err error) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	p := problemOf(err)
	if p.status == http.StatusInternalServerError {
		a.log.Error("admin request failed", logkey.URLPath(clip(r.URL.Path)), logkey.Err(err))
	}
	if _, v := visiting(r); a.audit != nil && (p.status == http.StatusUnauthorized || p.status == http.StatusForbidden || p.status == http.StatusTooManyRequests || r.Method != http.MethodGet && r.Method != http.MethodHead) {
		a.audit(r, v.who.Name, p.status)
	}
	if errors.Is(err, authn.ErrTooMany) {
		h.Set("Retry-After", strconv.Itoa(int(authn.RetryAfter.Seconds())))
	}
	if p.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="forebay admin"`)
		if a.tokenFile != "" && a.guard.foreign(r) == nil {
			h.Set(TokenFileHeader, a.tokenFile)
		}
	}
	reply(w, p.status, Fault{FaultDetail{p.code, p.message}})
}

// problemOf turns an error into what is answered.
func problemOf(err error) *problem {
	var p *problem
	var route *wire.RouteError
	var up *pull.Error
	if p := contentProblem(err); p != nil {
		return p
	}
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, authn.ErrRefused):
		return &problem{http.StatusUnauthorized, "unauthorized", err.Error()}
	case errors.Is(err, session.ErrTooLong):
		return &problem{http.StatusBadRequest, "bad_request", err.Error()}
	case errors.Is(err, authn.ErrTooMany):
		return &problem{http.StatusTooManyRequests, "too_many_logins", err.Error()}
	case errors.As(err, &route):
		return &problem{http.StatusBadRequest, "bad_reference", route.Text}
	case errors.Is(err, store.ErrQuery):
		return &problem{http.StatusBadRequest, "bad_request", err.Error()}
	case errors.Is(err, store.ErrNotKept):
		return &problem{http.StatusNotFound, "not_kept", err.Error()}
	case errors.Is(err, image.ErrUnreadable):
		return &problem{http.StatusInternalServerError, "unreadable", err.Error()}
	case errors.Is(err, rules.ErrDenied):
		return &problem{http.StatusConflict, "denied_by_policy", err.Error()}
	case errors.Is(err, upkeep.ErrPinned):
		return &problem{http.StatusConflict, "pinned", err.Error()}
	case errors.Is(err, image.ErrPinsTooLarge):
		return &problem{http.StatusConflict, "pins_too_large", err.Error()}
	case errors.As(err, &up):
		return upstreamProblem(up, err)
	case errors.Is(err, context.DeadlineExceeded):
		return &problem{http.StatusGatewayTimeout, "timeout", "it took too long: " + err.Error()}
	case errors.Is(err, context.Canceled):
		return &problem{http.StatusServiceUnavailable, "stopping", "it was ended before it was done"}
	}
	return &problem{http.StatusInternalServerError, "internal", err.Error()}
}

// upstreamProblem is that an upstream did not give what was needed.
func upstreamProblem(up *pull.Error, err error) *problem {
	switch up.Kind {
	case pull.NotFound:
		return &problem{http.StatusNotFound, "upstream_not_found", err.Error()}
	case pull.Denied:
		return &problem{http.StatusBadGateway, "upstream_denied", err.Error()}
	case pull.Limited:
		return &problem{http.StatusTooManyRequests, "upstream_limited", err.Error()}
	case pull.Timeout:
		return &problem{http.StatusGatewayTimeout, "upstream_timeout", err.Error()}
	}
	return &problem{http.StatusBadGateway, "upstream_unavailable", err.Error()}
}

// reply writes v as JSON.
func reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic("admin: answer cannot be JSON: " + err.Error()) // a type of ours is wrong
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // the client may be gone
}

// zipFrom is from how many bytes on an answer is sent in fewer.
const zipFrom = 4 << 10

// replyZipped is reply to a request for what may be long.
func replyZipped(w http.ResponseWriter, r *http.Request, v any) {
	w.Header().Add("Vary", "Accept-Encoding")
	b, err := json.Marshal(v)
	if err != nil || len(b) < zipFrom || !wire.AcceptsGzip(r.Header.Get("Accept-Encoding")) {
		reply(w, http.StatusOK, v)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Encoding", "gzip")
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is one
	_, _ = z.Write(append(b, '\n'))                // the client may be gone
	_ = z.Close()
}

// bodyMost bounds the body of a request: names and lists of platforms.
const bodyMost = 64 << 10

// bodyMostOf bounds the body of a request. Lists of images are longer than all else.
func bodyMostOf(r *http.Request) int64 {
	switch r.URL.Path {
	case prefix + "/prefetch", prefix + "/lock":
		return listMost
	case prefix + "/imports":
		return proofMost
	}
	return bodyMost
}

// decode reads the one JSON value of a request.
func decode(r *http.Request, to any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return badRequest("the body is not what is expected: %s", decodeError(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return badRequest("the body has more than one JSON value")
	}
	return nil
}

func decodeError(err error) string {
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return fmt.Sprintf("it has more than %d bytes", large.Limit)
	case errors.Is(err, io.EOF):
		return "it is empty, and should be a JSON object"
	}
	return clip(strings.TrimPrefix(err.Error(), "json: "))
}

// query reads the parameters of a request, of which only the given ones may be there.
func query(r *http.Request, names ...string) (map[string]string, error) {
	values := map[string]string{}
	for name, all := range r.URL.Query() {
		known := false
		for _, n := range names {
			known = known || n == name
		}
		if !known {
			return nil, badRequest("there is no parameter %q here%s", clip(name), instead(names))
		}
		if len(all) > 1 {
			return nil, badRequest("parameter %q is there %d times", name, len(all))
		}
		values[name] = all[0]
	}
	return values, nil
}

// part is query for a part of a list, which has a name to go on after and a length; 0 means the usual one.
func part(r *http.Request, names ...string) (q map[string]string, limit int, err error) {
	if q, err = query(r, append(names, "after", "limit")...); err == nil {
		limit, err = number("limit", q["limit"])
	}
	return q, limit, err
}

// instead says which parameters there are.
func instead(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return ": use " + strings.Join(names, ", ")
}

func number(name, s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n <= 0 {
		return 0, badRequest("%s is %q: use a number above 0", name, clip(s))
	}
	return n, nil
}

func truth(name, s string) (bool, error) {
	switch s {
	case "", "false", "0":
		return false, nil
	case "true", "1":
		return true, nil
	}
	return false, badRequest("%s is %q: use true or false", name, clip(s))
}

// clip bounds what a request can make us answer and log.
func clip(s string) string { return wire.Clip(s, 120) }

// askTimeout bounds what asks an upstream a few questions.
const askTimeout = time.Minute

// purgeTimeout bounds a purge; one of a repository with 100,000 layers takes seconds.
const purgeTimeout = 10 * time.Minute
