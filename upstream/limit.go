package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"forebay/config/unit"
	"forebay/internal/lane"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/upstream/governor"
)

// limitKind says what a 429 limits, and so what has to stop.
type limitKind uint8

const (
	notLimited limitKind = iota
	pullLimit            // the pulls of one credential: other requests may go on
	allLimit             // everything from our address
	slowLimit            // requests a second: everything, for a moment
	storeLimit           // the blob store: the registry itself may go on
	tokenLimit           // the token server: whoever has a token may go on
	repoLimit            // one repository: others may go on
	gateClosed           // we know that it would be refused, and did not ask
)

// String names the kind for logs and metrics.
func (k limitKind) String() string {
	switch k {
	case pullLimit:
		return "pulls"
	case allLimit:
		return "requests"
	case slowLimit:
		return "rate"
	case storeLimit:
		return "blobs"
	case tokenLimit:
		return "tokens"
	case repoLimit:
		return "repository"
	case gateClosed:
		return "held"
	}
	return "none"
}

// kindOfLimit reads a 429 of the registry itself. Docker Hub's pull limit is a document,
// and nothing remains; its abuse limit is plain text without either. A HEAD has no
// body: then the content type must do. untold says that no header tells of a limit.
func kindOfLimit(a *ask, h http.Header, doc wire.ErrorDoc) (kind limitKind, untold bool) {
	rate, ok := wire.ParseRateLimit(h)
	structured := doc.Document || (a.method == http.MethodHead && strings.HasSuffix(wire.MediaType(h.Get("Content-Type")), "json"))
	switch {
	case a.manifest && ok && rate.Remaining == 0:
		return pullLimit, false
	case wire.NamesRepository(doc.Message, a.repo):
		return repoLimit, false
	case !structured:
		return allLimit, !ok
	case a.manifest:
		return pullLimit, !ok
	}
	return slowLimit, !ok
}

// passes are what one request needs to be sent: a pass of each gate on its way. Whoever got
// them must report how the request went, by [Registry.report] or to each pass.
type passes struct {
	all, repo, store, own governor.Pass
}

// enter gets the passes that hold for all accounts.
func (s *site) enter(ctx context.Context, a *ask) (p passes, err error) {
	if p.all, err = s.all.Enter(ctx); err != nil {
		return p, err
	}
	if p.repo, err = s.repos.Known(a.repo).Enter(ctx); err == nil && a.forBlob() {
		p.store, err = s.store.Enter(ctx)
	}
	if err == nil {
		err = s.pace.Enter(ctx)
	}
	if err != nil {
		p.unclear()
	}
	return p, err
}

func (p *passes) unclear() {
	p.all.Unclear()
	p.repo.Unclear()
	p.store.Unclear()
	p.own.Unclear()
}

// report tells the gates how a request went, and closes those that its 429 is about.
func (r *Registry) report(e *endpoint, a *ask, p passes, fail *failure) {
	switch {
	case fail == nil:
		p.all.Through()
		p.repo.Through()
		p.store.Through()
		p.own.Through()
		return
	case fail.limit == gateClosed, fail.limit == tokenLimit, fail.err.Status == 0 && fail.limit == notLimited:
		p.unclear() // the registry said nothing
		return
	}
	wait := fail.err.RetryAfter
	if wait > 0 {
		wait = max(wait, time.Second)
	}
	if fail.untold {
		if most := e.site.pace.Refused(fail.allowed); most > 0 {
			r.log.Info("limit learned", logkey.Host(e.base.Host), logkey.PerMinute(most))
		}
	}
	var news bool
	switch fail.limit {
	case repoLimit:
		p.all.Through()
		p.own.Unclear()
		p.store.Unclear()
		news = e.site.repos.Refused(a.repo, p.repo, wait, "it refuses so many requests for "+a.repo)
	case pullLimit:
		p.all.Through()
		p.store.Unclear()
		news = p.own.Refused(wait, a.who.spent(r.opts.Now()))
	case allLimit:
		p.own.Unclear()
		p.store.Unclear()
		news = p.all.Refused(wait, "it refuses all requests of our address")
	case slowLimit:
		p.own.Unclear()
		p.store.Unclear()
		if wait == 0 {
			wait = slowDown
		}
		news = p.all.Refused(wait, "it refuses so many requests at once")
	case storeLimit:
		p.all.Through()
		p.own.Through()
		news = p.store.Refused(wait, "its blob store refuses so many requests")
	default: // an answer, if not the one that was hoped for
		p.all.Through()
		p.repo.Through()
		p.own.Through()
		if errors.Is(fail.err, errTarget) {
			p.store.Unclear()
		} else {
			p.store.Through()
		}
		return
	}
	r.counts.limits[fail.limit].Add(1)
	if news {
		r.log.Warn("upstream limits us", logkey.Host(e.base.Host), logkey.Limit(fail.limit.String()),
			logkey.User(a.who.name()), logkey.Op(a.op), logkey.RetryAfter(fail.err.RetryAfter))
	}
}

// spent returns a text: that the pulls of an account are used up, and when there will be more.
func (a *account) spent(now time.Time) string {
	s := a.budget.Statement(now)
	text := "the pull limit is reached"
	if s.Limit >= 0 && s.Window > 0 {
		text = fmt.Sprintf("the limit of %d pulls in %s is reached", s.Limit, unit.FormatDuration(s.Window))
	}
	if s.Returns.After(now) {
		text += ", and more are expected by " + s.Returns.UTC().Format(time.RFC3339)
	}
	return text
}

// notSent returns the failure of a request that is not sent, since a gate is closed.
func (r *Registry) notSent(ctx context.Context, a *ask, err error) *failure {
	var closed *governor.ClosedError
	if !errors.As(err, &closed) { // ctx is done
		return r.transportFailure(ctx, a, err, false)
	}
	f := r.fail(a, pull.Limited, nil)
	f.err.Code = "TOOMANYREQUESTS"
	f.err.Message = closed.Error()
	f.err.RetryAfter = max(closed.Until.Sub(r.opts.Now()), time.Second)
	f.limit, f.remedies = gateClosed, tryEndpoint
	return f
}

// tellWhen adds to the error of a 429 when we ask again. Requests that come before that are
// told the same.
func (r *Registry) tellWhen(f *failure, g *governor.Gate) {
	closed := g.Closed()
	if closed == nil {
		return
	}
	if wait := closed.Until.Sub(r.opts.Now()); f.err.RetryAfter <= 0 || f.helps(tryAgain) {
		f.err.RetryAfter = max(wait, time.Second)
	}
	if f.err.Message == "" {
		f.err.Message = closed.Why
	}
	f.err.Message += "; next try at " + closed.Until.UTC().Format(time.RFC3339)
}

// probe asks by a HEAD, which costs nothing, whether a GET of the same manifest would get
// through. It returns nil if so, else why not.
func (r *Registry) probe(ctx context.Context, e *endpoint, a *ask) *failure {
	head := *a
	head.method, head.op = http.MethodHead, "probe by head of "+a.op
	r.counts.probes.Add(1)
	since := head.who.budget.Asking()
	resp, g, fail := r.authenticated(ctx, e, &head, e.url(head.path(), ""))
	if fail != nil {
		return fail
	}
	defer discard(resp)
	r.noteBudget(ctx, &head, resp, since)
	if resp.StatusCode == http.StatusTooManyRequests {
		return r.statusFailure(ctx, &head, resp, g)
	}
	if rate, ok := wire.ParseRateLimit(resp.Header); ok && rate.Remaining == 0 {
		f := r.fail(a, pull.Limited, nil)
		f.err.Code, f.err.Message = "TOOMANYREQUESTS", a.who.spent(r.opts.Now())
		f.limit, f.remedies = pullLimit, tryEndpoint
		f.err.RetryAfter = pullPause // however often: it costs nothing, and the end is known soon after it
		return f
	}
	return nil
}

// limitWait is how long a request may be held that the registry limits. It is no time at
// all unless the configuration says so.
type limitWait struct {
	r     *Registry
	until time.Time
}

func (r *Registry) limitWait() limitWait {
	return limitWait{r: r, until: r.opts.Now().Add(r.opts.LimitedWait)}
}

// doHeld is do for requests that may be held.
func (r *Registry) doHeld(ctx context.Context, l *lane.Lane, a *ask) (*answer, error) {
	for w := r.limitWait(); ; {
		ans, err := r.do(ctx, l, a)
		if err == nil || !w.sitOut(ctx, err) {
			return ans, err
		}
	}
}

// sitOut waits until the limit that err tells of is over, and reports whether the request
// is worth another try. It does not wait for a limit that ends too late.
func (w limitWait) sitOut(ctx context.Context, err error) bool {
	var e *pull.Error
	if w.r.opts.LimitedWait <= 0 || !errors.As(err, &e) || e.Kind != pull.Limited || e.RetryAfter <= 0 {
		return false
	}
	if w.r.opts.Now().Add(e.RetryAfter).After(w.until) {
		return false
	}
	select {
	case <-time.After(e.RetryAfter):
		return true
	case <-ctx.Done():
	case <-w.r.stopping.Done():
	}
	return false
}
