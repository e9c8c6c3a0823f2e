package admin

import (
	"context"
	_ "embed"
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"forebay/cache/event"
	"forebay/cache/upkeep"
	"forebay/internal/activity"
	"forebay/internal/fleet"
	"forebay/internal/imageset"
	"forebay/internal/prefetch"
	"forebay/internal/rules"
	"forebay/internal/session"
	"forebay/internal/trouble"
	"forebay/internal/wire"
)

// APIOptions configures an [API]. Keeper and Registries are required.
type APIOptions struct {
	Keeper     *upkeep.Keeper
	Registries func() *wire.Registries // what names of images mean
	// Upstream returns what is known of the registry of that name. It may be nil.
	Upstream func(name string) RegistryStatus
	// Replicas returns what this mirror is to its fleet. It may be nil.
	Replicas func() []fleet.Replica
	Version  string
	// Name is that of the mirror, Address the base URL at which clients reach it.
	Name, Address string
	// Rules are the policy. It may be nil.
	Rules *rules.Rules
	// Sets are the prefetch sets of the configuration. It may be nil.
	Sets *prefetch.Sets
	// Trouble says what is wrong. It may be nil: then it is found out when somebody asks.
	Trouble *trouble.Watch
	// Activity remembers who asked for what. nil means that nothing is known of that.
	Activity *activity.Recorder
	// Price of a GiB from a registry, in Currency; 0 means that none is shown.
	Price    float64
	Currency string
	// Loopback is whether the listener is reachable from this machine only.
	Loopback bool
	// Token is required of everybody who uses the API. Without it a Loopback API answers
	// whoever calls, which is for use within a process, and any other answers nobody.
	Token string
	// Operators returns who else sends a request, and its role; the error is authn's. It may be nil.
	Operators func(r *http.Request) (Operator, error)
	// SessionKey is what logins are sealed by; without one they end with the process. Logouts are
	// kept in SessionsOver.
	SessionKey, SessionsOver string
	// Audit is told who asked for a change or was refused, and how that was answered. It may be nil.
	Audit func(r *http.Request, who string, status int)
	// TokenFile is where Token is kept that the mirror made for itself; "" for a configured one.
	TokenFile string
	// Support returns what is needed to help from afar. It may be nil.
	Support func() (Support, error)
	// Names are needed unless everybody is served.
	Names Names
	Log   *zap.Logger // nil means no logging
}

// Names are what settings are called where they are made, for answers that say what to change.
type Names struct {
	Listen    string // the address of the listener
	TokenFile string // names the file with the token
	Token     string // where the token is, in words
}

// API is the JSON API for operators, below /api/v1/. openapi.json describes it.
//
// Its input comes from people and programs: every name is checked, and every list, body and
// number of jobs has a bound.
type API struct {
	keeper     *upkeep.Keeper
	registries func() *wire.Registries
	upstream   func(name string) RegistryStatus
	replicas   func() []fleet.Replica
	version    string
	name       string
	address    string
	helped     func() (Support, error)
	activity   *activity.Recorder
	trouble    *trouble.Watch
	price      float64
	currency   string
	streams    atomic.Int64 // that are open
	started    time.Time
	guard      guard
	audit      func(r *http.Request, who string, status int)
	tokenFile  string // told to who lacks the token; "" for none
	jobs       *jobs
	sets       *prefetch.Sets
	rules      *rules.Rules
	log        *zap.Logger
	mux        *http.ServeMux
}

//go:embed openapi.json
var openAPI []byte

// NewAPI returns the API. Its owner calls Close once nothing is served any more.
func NewAPI(o APIOptions) (*API, error) {
	if o.Keeper == nil || o.Registries == nil {
		return nil, errors.New("admin API: no cache or no registries given")
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Replicas == nil {
		o.Replicas = func() []fleet.Replica { return nil }
	}
	if o.Activity == nil {
		o.Activity = activity.New(activity.Options{})
	}
	if o.Trouble == nil {
		o.Trouble = trouble.New(trouble.Sources{Keeper: o.Keeper})
	}
	a := &API{
		keeper: o.Keeper, registries: o.Registries, upstream: o.Upstream, replicas: o.Replicas, version: o.Version, name: o.Name, address: o.Address, started: time.Now(),
		helped: o.Support, activity: o.Activity, trouble: o.Trouble, price: o.Price, currency: o.Currency,
		guard: guard{loopback: o.Loopback, operators: o.Operators, sessions: session.New(o.SessionKey, prefix+"/", o.SessionsOver), origin: http.NewCrossOriginProtection(), names: o.Names},
		audit: o.Audit, jobs: newJobs(), sets: o.Sets, rules: o.Rules, log: o.Log, mux: http.NewServeMux(), tokenFile: o.TokenFile,
	}
	if o.Token != "" {
		a.SetToken(o.Token)
	}
	for _, r := range a.routes() {
		a.mux.HandleFunc(r.method+" "+prefix+r.path, func(w http.ResponseWriter, req *http.Request) {
			a.answer(w, req, r.need, r.handle)
		})
	}
	a.mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		a.answer(w, req, Read, func(http.ResponseWriter, *http.Request) error { return a.noRoute(req) })
	})
	return a, nil
}

// prefix is where the API begins.
const prefix = "/api/v1"

// route is one thing that can be asked for, and the role that it needs; "" for none.
type route struct {
	method, path string
	need         Role
	handle       func(http.ResponseWriter, *http.Request) error
}

// routes are all of them. openapi.json has the same, which a test keeps.
func (a *API) routes() []route {
	return append(a.policyRoutes(), []route{
		{"GET", "/openapi.json", Read, a.describe},
		{"GET", "/session", Read, a.session},
		{"POST", "/session", "", a.logIn},
		{"DELETE", "/session", "", a.logOut},
		{"GET", "/status", Read, finding(a.glance)},
		{"GET", "/stats", Read, finding(a.stats)},
		{"GET", "/series", Read, a.series},
		{"GET", "/support", Operate, a.support},
		{"GET", "/clients", Read, a.clients},
		{"GET", "/replicas", Read, telling(func() any { return ReplicaList{orNone(a.replicas())} })},
		{"GET", "/events", Read, a.events},
		{"GET", "/repositories", Read, a.repositories},
		{"GET", "/images", Read, a.images},
		{"GET", "/image", Read, a.image},
		{"GET", "/history", Read, a.history},
		{"POST", "/refresh", Operate, a.refresh},
		{"POST", "/purge", Operate, a.purge},
		{"POST", "/purges", Operate, a.purgeLater},
		{"DELETE", "/fills/{digest}", Operate, a.cancelFill},
		{"GET", "/pins", Read, finding(a.pins)},
		{"POST", "/pins", Operate, a.pin},
		{"DELETE", "/pins", Operate, a.unpin},
		{"POST", "/repair", Operate, a.repair},
		{"POST", "/verify", Operate, a.verify},
		{"POST", "/gc", Operate, a.collect},
		{"GET", "/contents", Read, a.contents},
		{"GET", "/content/{digest}", Operate, a.content},
		{"GET", "/stored", Read, a.stored},
		{"POST", "/imports", Admin, a.beginImport},
		{"DELETE", "/imports/{id}", Admin, a.endImport},
		{"POST", "/imports/{id}/lacking", Admin, a.lacking},
		{"POST", "/imports/{id}/content", Admin, a.takeIn},
		{"POST", "/imports/{id}/content/{digest}", Admin, a.takeIn},
		{"POST", "/imports/{id}/admit", Admin, a.admit},
		{"GET", "/prefetch", Read, telling(func() any { return PrefetchSets{a.listSets()} })},
		{"POST", "/prefetch", Operate, a.prefetch},
		{"GET", "/prefetch/{set}", Read, a.prefetchSet},
		{"POST", "/prefetch/{set}/run", Operate, a.runSet},
		{"POST", "/lock", Operate, a.lock},
		{"GET", "/registries", Read, telling(func() any { g := a.registries(); return Registries{g.Default, g.Names, g.Hosts} })},
		{"GET", "/wanted", Read, telling(func() any { return imageset.WantedList{Wanted: each(a.keeper.Wanted(), wantedOf)} })},
		{"DELETE", "/wanted", Operate, a.clearWanted},
		{"GET", "/vanished", Read, telling(func() any { return VanishedList{each(a.keeper.Cache.Gone().All(), vanishedOf)} })},
		{"DELETE", "/vanished", Operate, a.forgetVanished},
		{"GET", "/jobs", Read, telling(func() any { return JobList{a.jobs.all()} })},
		{"GET", "/drill", Read, telling(func() any { return a.activity.Rehearsal() })},
		{"POST", "/drill", Operate, a.beginDrill},
		{"DELETE", "/drill", Operate, a.endDrill},
		{"GET", "/around", Read, telling(func() any { return AroundList{a.activity.Around()} })},
		{"GET", "/jobs/{id}", Read, a.job},
		{"DELETE", "/jobs/{id}", Operate, a.cancelJob},
	}...)
}

// telling answers a request without parameters by what f returns.
func telling(f func() any) func(http.ResponseWriter, *http.Request) error {
	return finding(func() (any, error) { return f(), nil })
}

// finding is telling of what may not be known.
func finding[T any](f func() (T, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		_, err := query(r)
		if err != nil {
			return err
		}
		answer, err := f()
		if err == nil {
			reply(w, http.StatusOK, answer)
		}
		return err
	}
}

// ServeHTTP answers what begins with /api/.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// Stop ends the jobs and what is being changed, as soon as it can. It does not wait.
func (a *API) Stop() { a.jobs.stop() }

// Close is Stop, and waits until nothing uses the cache any more but requests in progress.
func (a *API) Close() {
	a.jobs.stop()
	a.jobs.running.Wait()
}

// noRoute tells a wrong method from a wrong path.
func (a *API) noRoute(r *http.Request) error {
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		if _, pattern := a.mux.Handler(other); pattern != "/" {
			return &problem{http.StatusMethodNotAllowed, "bad_method", clip(r.Method) + " is not for this path: see " + prefix + "/openapi.json"}
		}
	}
	return &problem{http.StatusNotFound, "no_route", "there is no " + clip(r.URL.Path) + ": see " + prefix + "/openapi.json"}
}

func (a *API) describe(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(openAPI) // the client may be gone
	return nil
}

// changing returns a context for a change, which goes on when its client leaves, and ends
// with the API.
func (a *API) changing(r *http.Request, timeout time.Duration) (context.Context, context.CancelFunc) {
	_, v := visiting(r)
	return context.WithTimeout(event.By(a.jobs.ctx, v.who.Name), timeout)
}
