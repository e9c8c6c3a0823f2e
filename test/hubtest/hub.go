package hubtest

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Hub is a running test hub. All methods may be called at any time from any goroutine.
//
// Lock order: setMu, mu, then the locks inside limiter, book, rules, pacer.
type Hub struct {
	options atomic.Pointer[Options]
	setMu   sync.Mutex
	fixed   Options // as given at the start

	advanced atomic.Int64 // nanoseconds; see Advance
	key      [32]byte     // signs tokens and URLs
	ca       *authority   // nil without TLS
	backend  *backend     // nil without Options.Backend
	servers  map[Role]*server
	denials  *dialer
	limiter  *limiter
	book     *book
	rules    *ruleSet
	style    *profile
	line     pacer // shared by all connections
	names    names
	tokens   tokenState
	api      hubAPIState
	turn     atomic.Uint64 // of CDNRotate and CDNRandom

	generation atomic.Uint64 // of signed URLs; see ExpireURLs

	ctx    context.Context // ends when the hub closes
	cancel context.CancelFunc
	closed sync.Once
	wg     sync.WaitGroup // serving goroutines

	mu       sync.RWMutex
	repos    map[string]*repo
	contents map[string]content // blobs by digest, shared by all repositories
	users    map[string]*User
	holders  map[string]string // blob digest to a repository that holds it at the backend
}

// New starts a hub for a test. It is closed, and its ledger printed if the test
// failed, when the test ends.
func New(t testing.TB, o Options) *Hub {
	t.Helper()
	h, err := Start(o)
	if err != nil {
		t.Fatalf("start test hub: %s", err)
	}
	t.Cleanup(func() {
		h.Close()
		for _, problem := range h.book.problems() {
			t.Errorf("test hub: %s", problem)
		}
		if t.Failed() {
			t.Logf("test hub saw:\n%s", h.Ledger())
		}
	})
	return h
}

// Start starts a hub outside a test. The caller must close it.
func Start(o Options) (*Hub, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &Hub{
		fixed:    o,
		key:      sha256.Sum256(fmt.Appendf(nil, "hubtest key %d", o.Seed)),
		servers:  map[Role]*server{},
		limiter:  newLimiter(),
		book:     newBook(),
		rules:    &ruleSet{},
		ctx:      ctx,
		cancel:   cancel,
		repos:    map[string]*repo{},
		contents: map[string]content{},
		users:    map[string]*User{},
		holders:  map[string]string{},
	}
	if h.style = profiles()[o.Profile]; h.style == nil {
		cancel()
		return nil, fmt.Errorf("no profile %q", o.Profile)
	}
	h.options.Store(&o)
	h.denials = &dialer{hub: h, faults: map[string]DialFault{}}
	if o.Backend != "" {
		h.backend = newBackend(o.Backend, h.book.problem)
	}
	if o.TLS || o.Named {
		ca, err := newAuthority(h.Now())
		if err != nil {
			return nil, err
		}
		h.ca = ca
	}
	for _, site := range roleSites() {
		if name := o.Names[site.role]; name != "" {
			site.name = name
		}
		s := &server{hub: h, site: site}
		h.servers[site.role] = s
		if err := s.start(); err != nil {
			h.Close()
			return nil, fmt.Errorf("start role %s: %w", site.role, err)
		}
	}
	return h, nil
}

// Close stops all servers, ends every request, and waits until they have ended.
func (h *Hub) Close() {
	h.closed.Do(func() {
		h.cancel()
		for _, s := range h.servers {
			s.stop(false)
		}
		h.wg.Wait()
		h.book.waitIdle(time.Minute) // a handler may compress megabytes, on a busy machine
		h.backend.close()
	})
}

// Now returns the hub's time.
func (h *Hub) Now() time.Time {
	return h.fixed.Now().Add(time.Duration(h.advanced.Load()))
}

// Advance moves the hub's time forward by d. It does not end any running wait.
func (h *Hub) Advance(d time.Duration) { h.advanced.Add(int64(d)) }

// RegistryURL returns the base URL of the registry, without a trailing slash.
func (h *Hub) RegistryURL() string { return h.URL(RoleRegistry) }

// RegistryHost returns host or host:port of the registry, as it is written in an image name.
func (h *Hub) RegistryHost() string { return h.servers[RoleRegistry].host() }

// URL returns the base URL of a role, without a trailing slash.
func (h *Hub) URL(role Role) string {
	s := h.servers[role]
	if s == nil {
		panic(fmt.Sprintf("hubtest: no role %q", role))
	}
	return s.scheme() + "://" + s.host()
}

// SwitchOff closes the listeners and all connections of the given roles, of all
// roles if none is given: connections are refused until [Hub.SwitchOn].
func (h *Hub) SwitchOff(roles ...Role) {
	for _, s := range h.chosen(roles) {
		s.stop(true)
	}
}

// SwitchOn opens the listeners again, at the same addresses.
func (h *Hub) SwitchOn(roles ...Role) error {
	for _, s := range h.chosen(roles) {
		if err := s.start(); err != nil {
			return fmt.Errorf("switch role %s on: %w", s.site.role, err)
		}
	}
	return nil
}

// DropConnections closes every open connection of the given roles, of all roles if
// none is given. Listeners stay open.
func (h *Hub) DropConnections(roles ...Role) {
	for _, s := range h.chosen(roles) {
		s.dropConns()
	}
}

func (h *Hub) chosen(roles []Role) []*server {
	var list []*server
	for _, site := range roleSites() {
		if len(roles) == 0 {
			list = append(list, h.servers[site.role])
		}
		for _, r := range roles {
			if r.covers(site.role) {
				list = append(list, h.servers[site.role])
			}
		}
	}
	return list
}

// server is one role's listener and HTTP server.
type server struct {
	hub  *Hub
	site roleSite

	mu    sync.Mutex
	addr  string // of the listener, once known; kept while switched off
	ln    net.Listener
	http  *http.Server
	conns map[*conn]bool
	hold  io.Closer // keeps the port while switched off
	pipes *pipeListener
}

func (s *server) tls() bool { return s.hub.ca != nil && s.site.role != RoleMeta }

func (s *server) scheme() string {
	if s.tls() {
		return "https"
	}
	return "http"
}

// host returns what stands between scheme and path in this role's URLs.
func (s *server) host() string {
	if s.hub.fixed.Named {
		if s.site.port == "443" || s.site.port == "80" {
			return s.site.name
		}
		return net.JoinHostPort(s.site.name, s.site.port)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.addr
}

// start opens the listener and serves. It does nothing when already started.
func (s *server) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ln != nil {
		return nil
	}
	if err := s.listen(); err != nil {
		return err
	}
	s.conns = map[*conn]bool{}
	s.http = &http.Server{
		Handler:     http.HandlerFunc(s.serve),
		ErrorLog:    log.New(io.Discard, "", 0),
		BaseContext: func(net.Listener) context.Context { return s.hub.ctx },
		ConnContext: withConn,
		// A client that never sends a request must not keep a test from ending.
		ReadHeaderTimeout: time.Minute,
	}
	srv, ln := s.http, &listener{Listener: s.ln, server: s}
	if !s.tls() {
		s.hub.wg.Go(func() { _ = srv.Serve(ln) })
		return nil
	}
	srv.TLSConfig = s.hub.ca.serverConfig(s)
	if !s.hub.fixed.HTTP2 {
		srv.TLSNextProto = noHTTP2()
	}
	s.hub.wg.Go(func() { _ = srv.ServeTLS(ln, "", "") })
	return nil
}

// listen is called with s.mu held.
func (s *server) listen() error {
	if s.hub.fixed.InMemory {
		if s.addr == "" {
			port := "80"
			if s.site.role == RoleAlt {
				port = "8080"
			}
			s.addr = net.JoinHostPort(s.site.ip, port)
		}
		s.pipes = newPipeListener(s.addr)
		s.ln = s.pipes
		return nil
	}
	addr := s.addr
	if addr == "" {
		addr = net.JoinHostPort(s.site.ip, "0")
		if s.hub.fixed.IPv6 {
			addr = "[::1]:0"
		}
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	if s.hold != nil {
		_ = s.hold.Close()
		s.hold = nil
	}
	s.addr, s.ln = ln.Addr().String(), ln
	return nil
}

// stop closes listener and connections. With keep, the port stays taken.
func (s *server) stop(keep bool) {
	s.mu.Lock()
	srv, ln := s.http, s.ln
	s.http, s.ln, s.pipes = nil, nil, nil
	if s.hold != nil && !keep {
		_ = s.hold.Close()
		s.hold = nil
	}
	s.mu.Unlock()
	if ln == nil {
		return
	}
	_ = ln.Close()
	if keep && !s.hub.fixed.InMemory {
		s.mu.Lock()
		s.hold = holdPort(s.addr)
		s.mu.Unlock()
	}
	s.dropConns()
	_ = srv.Close()
	s.dropConns() // those accepted meanwhile
}

func (s *server) dropConns() {
	s.mu.Lock()
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}
