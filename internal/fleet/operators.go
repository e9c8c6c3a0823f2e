package fleet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"forebay/cache/tier"
	"forebay/internal/fleet/answers"
)

const (
	// apiPrefix is where the admin API begins, on the admin listener and on that for other mirrors.
	apiPrefix = "/api/v1"
	// readMost is how long the others may take to answer a question, and changeMost to do what was asked.
	readMost   = time.Second
	changeMost = time.Minute
	// bodyMost bounds what an operator sends that goes to all, and replyMost what one mirror answers.
	bodyMost  = 64 << 10
	replyMost = 16 << 20

	// Who asks, as the mirror vouches for that he asked first. Only a mirror can send these.
	nameHeader      = "Forebay-Operator"
	roleHeader      = "Forebay-Role"
	operationHeader = "Forebay-Operation"
)

// OperatorsOptions configures [Operators]. All but Files are required.
type OperatorsOptions struct {
	// Local answers the admin API of this mirror. It decides who may ask for what.
	Local http.Handler
	// Who returns who sent a request that Local has answered; As returns one that Local answers as if that
	// operator had sent it.
	Who   func(*http.Request) (name, role string)
	As    func(r *http.Request, name, role string) *http.Request
	Dir   string     // the storage folder, where operations are remembered
	Files tier.Files // of the bucket that all mirrors share, where they are, too; nil without
}

// Operators is the admin API of the whole fleet: what is asked of one mirror is answered for all, and what
// is changed is changed on all, by those that are away when they start.
type Operators struct {
	fleet *Fleet
	o     OperatorsOptions
	log   operations
	life  context.Context // ends with Run
	end   context.CancelFunc
	work  sync.WaitGroup // that Run waits for
}

// Operators returns the admin API of the fleet as this mirror answers it. Its owner calls CatchUp before
// clients are answered, and Run.
func (f *Fleet) Operators(o OperatorsOptions) *Operators {
	all := &Operators{fleet: f, o: o, log: operations{known: map[string]*operation{}}}
	all.life, all.end = context.WithCancel(context.Background())
	return all
}

// reply is what one mirror answered.
type reply struct {
	from   Member
	name   string
	status int
	header http.Header
	body   bytes.Buffer
	err    error // without an answer
}

func (a *reply) Header() http.Header         { return a.header }
func (a *reply) WriteHeader(status int)      { a.status = status }
func (a *reply) Write(b []byte) (int, error) { return a.body.Write(b) }
func (a *reply) ok() bool                    { return a.err == nil && a.status < 300 }

// fault is why a mirror did not do what it was asked for; "" if it did.
func (a *reply) fault() string {
	var told struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	switch {
	case a.err != nil:
		return a.err.Error()
	case a.ok():
		return ""
	case json.Unmarshal(a.body.Bytes(), &told) == nil && told.Error.Message != "":
		return told.Error.Message
	}
	return http.StatusText(a.status)
}

// Answered says in an answer for the whole fleet what a mirror has to do with it.
type Answered struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	OK    bool   `json:"ok"`              // it answered, or did what it was asked for
	Later bool   `json:"later,omitempty"` // it does so when it is there again
	Error string `json:"error,omitempty"` // why not
}

// ServeHTTP answers what is below /api/ for the fleet, or for this mirror with the parameter scope=local.
func (o *Operators) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	scope := q.Get("scope")
	if q.Has("scope") {
		q.Del("scope")
		r = withQuery(r, q)
	}
	switch scope {
	case "", "fleet", "local":
	default:
		refuse(w, http.StatusBadRequest, "bad_request", "scope is not fleet or local")
		return
	}
	path := strings.TrimPrefix(r.URL.Path, apiPrefix)
	if id, name, ok := strings.Cut(path, "@"); ok && strings.HasPrefix(id, "/jobs/") {
		o.elsewhere(w, r, apiPrefix+id, name)
		return
	}
	if r.Method == http.MethodPost && path == purgesPath && scope != "local" {
		o.purgeLater(w, r)
		return
	}
	to, known := answers.Of(r.Method, path)
	if scope == "local" || !known || len(o.others()) == 0 && !to.Kept {
		o.o.Local.ServeHTTP(w, r)
		return
	}
	if path == "/events" && strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		o.stream(w, r)
		return
	}
	to.Prepare(q)
	r = withQuery(r, q)
	body, err := io.ReadAll(io.LimitReader(r.Body, bodyMost))
	if err != nil {
		return // the client is gone
	}
	kept := to.Kept && !dryRun(body)
	if kept {
		o.log.work.Lock() // what another asks for meanwhile comes after it
	}
	mine := o.here(r, io.MultiReader(bytes.NewReader(body), r.Body))
	good := mine.ok() || mine.status == http.StatusNotFound
	ask := errand{method: r.Method, path: r.URL.RequestURI(), body: body, bound: readMost}
	ask.name, ask.role = o.o.Who(r)
	if kept {
		if good {
			ask.operation = o.newOperation(ask)
		}
		o.log.work.Unlock()
	}
	if !good {
		mine.write(w)
		return
	}
	if to.Changes {
		ask.bound = changeMost
	}
	later := ask.operation != nil && o.keep(r.Context(), ask.operation)
	all := append([]*reply{mine}, o.ask(r.Context(), ask)...)
	o.write(w, to, all, later)
}

// withQuery returns r with other parameters.
func withQuery(r *http.Request, q url.Values) *http.Request {
	r2 := r.Clone(r.Context())
	r2.URL.RawQuery = q.Encode()
	return r2
}

// refuse writes an error as the admin API does.
func refuse(w http.ResponseWriter, status int, code, message string) {
	send(w, status, map[string]any{"error": map[string]any{"code": code, "message": message}})
}

func send(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

// write passes an answer on as it is.
func (a *reply) write(w http.ResponseWriter) {
	for name, values := range a.header {
		w.Header()[name] = values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // the client may be gone
}

// here has this mirror answer.
func (o *Operators) here(r *http.Request, body io.Reader) *reply {
	self, name := o.self()
	a := &reply{from: self, name: name, status: http.StatusOK, header: http.Header{}}
	// Only what is changed is: who sends it is noted on the request that came.
	local := *r
	local.Body = io.NopCloser(body)
	local.Header = r.Header.Clone()
	local.Header.Del("Accept-Encoding") // it is put together with others
	o.o.Local.ServeHTTP(a, &local)
	return a
}

// errand is what is asked of the others.
type errand struct {
	method, path string // with parameters
	body         []byte
	name, role   string     // of the operator
	operation    *operation // if it is one that is kept
	bound        time.Duration
}

// ask asks all others at once, and returns what they say in the order of their names.
func (o *Operators) ask(ctx context.Context, q errand) []*reply {
	all := o.others()
	var work sync.WaitGroup
	for _, a := range all {
		if a.err == nil {
			work.Go(func() { o.askOne(ctx, q, a) })
		}
	}
	work.Wait()
	return all
}

// askOne asks a mirror. A client that leaves does not end what it asked for.
func (o *Operators) askOne(ctx context.Context, q errand, a *reply) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), q.bound)
	defer cancel()
	res, err := o.request(ctx, q, a.from, nil)
	if err != nil {
		a.err = errors.New("it does not answer")
		o.fleet.log.Debug("a mirror did not answer an operator", zap.String("mirror", a.name), zap.Error(err))
		return
	}
	defer func() { _ = res.Body.Close() }() // only read from
	a.status, a.header = res.StatusCode, res.Header
	if _, err := io.Copy(&a.body, io.LimitReader(res.Body, replyMost)); err != nil {
		a.err = errors.New("its answer broke off")
	}
}

func (o *Operators) request(ctx context.Context, q errand, to Member, more http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, q.method, "https://"+to.Address+q.path, bytes.NewReader(q.body))
	if err != nil {
		return nil, err
	}
	for name, values := range more {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Forebay-Request", "1")
	req.Header.Set(nameHeader, url.QueryEscape(q.name))
	req.Header.Set(roleHeader, q.role)
	if q.operation != nil {
		req.Header.Set(operationHeader, url.QueryEscape(q.operation.signed))
	}
	return o.fleet.peers.client.Do(req)
}

// Peers answers the other mirrors what their operators ask, and passes all else on.
func (o *Operators) Peers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == operationsPath {
			send(w, http.StatusOK, o.log.signed())
			return
		}
		if !strings.HasPrefix(r.URL.Path, "/api/") {
			next.ServeHTTP(w, r)
			return
		}
		name, err := url.QueryUnescape(r.Header.Get(nameHeader))
		if err != nil {
			refuse(w, http.StatusBadRequest, "bad_request", "the operator's name cannot be read")
			return
		}
		r2 := o.o.As(r, name, r.Header.Get(roleHeader))
		if strings.TrimPrefix(r.URL.Path, apiPrefix) == purgesPath {
			_, a := o.purgeHere(r2)
			a.write(w)
			return
		}
		signed, err := url.QueryUnescape(r.Header.Get(operationHeader))
		if err == nil && signed != "" {
			if one := o.add(signed); one != nil {
				o.perform(one, r2).write(w)
				return
			}
		}
		o.o.Local.ServeHTTP(w, r2)
	})
}

// write answers for all.
func (o *Operators) write(w http.ResponseWriter, to answers.Route, all []*reply, later bool) {
	var good []*reply
	list := make([]Answered, len(all))
	for i, a := range all {
		list[i] = Answered{ID: a.from.ID, Name: a.name, OK: true}
		if !a.ok() && a.status != http.StatusNotFound { // who has it not has nothing to do with it
			list[i].OK, list[i].Error, list[i].Later = false, a.fault(), later && !settled(a.status)
		}
		if a.ok() {
			good = append(good, a)
		}
	}
	if len(good) == 0 {
		all[0].write(w) // it is not there either
		return
	}
	var values []any
	var names []string
	for _, a := range good {
		if a.body.Len() == 0 {
			continue
		}
		v, err := answers.Decode(a.body.Bytes())
		if _, ok := v.(map[string]any); !ok || err != nil {
			list[slices.Index(all, a)].Error = "its answer cannot be read"
			continue
		}
		values, names = append(values, v), append(names, a.name)
	}
	out := to.One(names, values)
	if out["replicas"] != nil {
		addAway(o, out)
	}
	out["mirrors"] = list
	status := good[0].status
	if status == http.StatusNoContent {
		status = http.StatusOK
	}
	send(w, status, out)
}

// elsewhere has the mirror answer that a job is of.
func (o *Operators) elsewhere(w http.ResponseWriter, r *http.Request, path, name string) {
	r2 := r.Clone(r.Context())
	r2.URL.Path, r2.URL.RawPath = path, ""
	if _, mine := o.self(); name == mine {
		o.o.Local.ServeHTTP(w, r2)
		return
	}
	// Whoever may not ask here may not ask there.
	probe := r2.Clone(r2.Context())
	probe.Method, probe.URL.Path, probe.URL.RawQuery = http.MethodGet, apiPrefix+"/session", ""
	if a := o.here(probe, http.NoBody); !a.ok() {
		a.write(w)
		return
	}
	for _, a := range o.others() {
		if a.name != name {
			continue
		}
		if a.err == nil {
			who, role := o.o.Who(r2)
			o.askOne(r.Context(), errand{method: r.Method, path: r2.URL.RequestURI(), name: who, role: role, bound: readMost}, a)
		}
		if a.err != nil {
			refuse(w, http.StatusBadGateway, "mirror_away", name+": "+a.err.Error())
			return
		}
		a.write(w)
		return
	}
	refuse(w, http.StatusNotFound, "no_mirror", "there is no mirror of that name")
}

// others returns all other mirrors, with an error for those that are away.
func (o *Operators) others() (list []*reply) {
	for _, one := range o.fleet.known() {
		if one.Self {
			continue
		}
		a := &reply{from: one.Member, name: one.Called}
		if !one.Here {
			a.err = fmt.Errorf("it is away, and was here %s ago", time.Since(one.Seen).Round(time.Second))
		}
		list = append(list, a)
	}
	return list
}

// self returns this mirror, and what it is called.
func (o *Operators) self() (Member, string) {
	for _, one := range o.fleet.known() {
		if one.Self {
			return one.Member, one.Called
		}
	}
	return Member{ID: o.fleet.me, Self: true}, o.fleet.name
}
