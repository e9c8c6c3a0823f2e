// Package server is the HTTP server of both listeners.
//
// It promises to serve a client of any speed as long as the client makes progress, and to
// cut off one that makes none. An answer as a whole has no timeout; the wait for a request's
// headers and every single write have one.
//
// Files that a handler copies to its response go out by sendfile. Do not put a
// connection wrapper without ReadFrom between net/http and [conn].
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"forebay/internal/logkey"
)

// Options configures a [Server]. Addr and Handler are required.
type Options struct {
	// Addr is host:port, where an empty host means all addresses, IPv4 and IPv6; or
	// "unix:" with the path of a socket; or "systemd:" with the name of one that systemd made.
	Addr    string
	Handler http.Handler

	// TLSCert and TLSKey are PEM files; both or neither. They are read again when they change.
	TLSCert, TLSKey string
	// Config is how the server and its clients know each other, in place of files. nil: by these.
	Config *tls.Config
	// ACME certifies the server in their place, if it has hosts.
	ACME ACME
	// ClientCAs is a PEM file of those who sign certificates of clients. A client may show one
	// then, which must be good. It is read again when it changes.
	ClientCAs string
	// Proxies are networks from which connections begin with a line of the PROXY protocol, which
	// says who the client is.
	Proxies []netip.Prefix
	// HTTP2 offers HTTP/2, over TLS and as prior knowledge over plain TCP. The common
	// clients speak HTTP/1.1 only, where files go out by sendfile.
	HTTP2 bool

	ReadHeaderTimeout time.Duration // for the headers of a request, and a TLS handshake; 0 means 20 s
	// IdleTimeout closes a connection without requests. 0 means 180 s. It should be
	// 150 s or more: the server must not be the first to close, and BuildKit keeps its
	// idle connections for 120 s.
	IdleTimeout    time.Duration
	MaxHeaderBytes int // of a request; 0 means 64 KiB
	// MaxConnections bounds those that are open, of which one address may have half. 0 means
	// what the process has descriptors for beside everything else.
	MaxConnections int
	// Sharing is how many servers have a part each of what MaxConnections is by default. 0 means 1.
	Sharing   int
	WriteIdle time.Duration // how long a client may take nothing of what is sent to it; 0 means 60 s

	// ShutdownGrace is how long running answers may go on after the end of Serve's
	// context. 0 means 30 s.
	ShutdownGrace time.Duration
	// Draining is called, once, before anything else when Serve's context ends, for
	// readiness to say no. It may be nil.
	Draining func()

	Log *zap.Logger // nil means no logging
}

func (o *Options) encrypted() bool {
	return o.TLSCert != "" || len(o.ACME.Hosts) > 0 || o.Config != nil
}

func (o *Options) setDefaults() {
	orElse := func(d *time.Duration, standard time.Duration) {
		if *d <= 0 {
			*d = standard
		}
	}
	orElse(&o.ReadHeaderTimeout, 20*time.Second)
	orElse(&o.IdleTimeout, 180*time.Second)
	orElse(&o.WriteIdle, 60*time.Second)
	orElse(&o.ShutdownGrace, 30*time.Second)
	if o.MaxConnections <= 0 {
		o.MaxConnections = max(connectionsMost(descriptors())/max(o.Sharing, 1), 1)
	}
	if o.MaxHeaderBytes <= 0 {
		o.MaxHeaderBytes = 64 << 10
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
}

// closingGrace is how long handlers may take to notice that their connections are cut.
const closingGrace = 10 * time.Second

// silentGrace is how long the first request of a connection may be under way at a stop.
const silentGrace = 250 * time.Millisecond

// Server is one listener with its HTTP server.
type Server struct {
	opts     Options
	http     *http.Server
	listener net.Listener
	running  running
	silent   sync.Map  // of net.Conn: those that have sent nothing yet
	buffers  sync.Pool // of *[streamPiece]byte, for HTTP/2
	// wrap stands between conn and the TCP connection in tests, to count.
	wrap func(stream) stream
}

// New returns a server that does nothing yet. With TLS, the certificate must be readable.
func New(o Options) (*Server, error) {
	if o.Handler == nil {
		return nil, errors.New("server: no handler given")
	}
	if (o.TLSCert == "") != (o.TLSKey == "") {
		return nil, errors.New("server: a TLS certificate and its key must be given together")
	}
	if o.ClientCAs != "" && !o.encrypted() {
		return nil, errors.New("server: certificates of clients need TLS")
	}
	o.setDefaults()
	s := &Server{opts: o}
	s.buffers.New = func() any { return new([streamPiece]byte) }
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	s.http = &http.Server{
		Handler:           s.track(o.Handler),
		ReadHeaderTimeout: o.ReadHeaderTimeout,
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.MaxHeaderBytes,
		ErrorLog:          errorLog(o.Log),
		Protocols:         &protocols,
		ConnState: func(c net.Conn, now http.ConnState) {
			if now == http.StateNew {
				s.silent.Store(c, nil)
			} else if _, was := s.silent.Load(c); was {
				s.silent.Delete(c)
			}
		},
	}
	if o.HTTP2 {
		s.http.HTTP2 = &http.HTTP2Config{
			MaxConcurrentStreams: 250, // as many as net/http would allow, but said here
			SendPingTimeout:      30 * time.Second,
			PingTimeout:          15 * time.Second,
			WriteByteTimeout:     o.WriteIdle,
		}
	}
	if !o.encrypted() {
		protocols.SetUnencryptedHTTP2(o.HTTP2)
		return s, nil
	}
	protocols.SetHTTP2(o.HTTP2)
	s.http.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if o.HTTP2 {
		s.http.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	}
	switch {
	case o.Config != nil:
		config := o.Config.Clone()
		config.NextProtos = s.http.TLSConfig.NextProtos
		s.http.TLSConfig = config
	case len(o.ACME.Hosts) > 0:
		manager, err := newACME(o.ACME)
		if err != nil {
			return nil, err
		}
		o.ACME.certify(s.http.TLSConfig, manager, o.Log)
	default:
		pair, err := newKeyPair(o.TLSCert, o.TLSKey, o.Log)
		if err != nil {
			return nil, err
		}
		s.http.TLSConfig.GetCertificate = pair.get
	}
	if o.ClientCAs == "" {
		return s, nil
	}
	cas, err := newClientCAs(o.ClientCAs, s.http.TLSConfig, o.Log)
	if err != nil {
		return nil, err
	}
	s.http.TLSConfig.GetConfigForClient = cas.config
	return s, nil
}

// Listen opens the port. Serve does it if it has not been done.
func (s *Server) Listen() error {
	if s.listener != nil {
		return nil
	}
	l, err := listen(s.opts.Addr)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.opts.Addr, err)
	}
	s.listener = &listener{Listener: l, idle: s.opts.WriteIdle, headers: s.opts.ReadHeaderTimeout, proxies: s.opts.Proxies, wrap: s.wrap,
		guests: &guests{most: s.opts.MaxConnections, refuse: rate.Sometimes{Interval: time.Minute}}, log: s.opts.Log}
	return nil
}

// Addr returns where the server listens; nil before Listen.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Serve answers requests until ctx is done, then stops gracefully: Draining is called,
// the port is closed, running answers may finish within the grace, and what is left is
// cut. It returns nil after such a stop, when no handler runs any more.
func (s *Server) Serve(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	// A request outlives ctx by the grace; what ends it is its connection.
	s.http.BaseContext = func(net.Listener) context.Context { return context.WithoutCancel(ctx) }
	overTLS := s.opts.encrypted() // http.TLSConfig is net/http's own once it serves
	ended := make(chan error, 1)
	go func() { // ends with the listener, which stop closes
		if overTLS {
			ended <- s.http.ServeTLS(s.listener, "", "")
		} else {
			ended <- s.http.Serve(s.listener)
		}
	}()
	s.opts.Log.Info("listening", logkey.Addr(s.listener.Addr().String()), zap.Bool("tls", overTLS))
	select {
	case err := <-ended:
		_ = s.http.Close() // its error is that of closing the listener once more
		return errors.Join(fmt.Errorf("serve %s: %w", s.listener.Addr(), err), s.awaitHandlers())
	case <-ctx.Done():
	}
	err := s.stop(ctx)
	if ended := <-ended; !errors.Is(ended, http.ErrServerClosed) {
		err = errors.Join(err, ended)
	}
	return err
}

// stop ends the server within its grace.
func (s *Server) stop(ctx context.Context) error {
	if s.opts.Draining != nil {
		s.opts.Draining()
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.ShutdownGrace)
	defer cancel()
	// Shutdown waits five seconds for a connection without a request, and clients open some to spare.
	cut := time.AfterFunc(silentGrace, func() {
		s.silent.Range(func(c, _ any) bool {
			_ = c.(net.Conn).Close() // nobody waits for it
			return true
		})
	})
	defer cut.Stop()
	if err := s.http.Shutdown(grace); err != nil {
		s.opts.Log.Warn("running answers cut off", logkey.Addr(s.listener.Addr().String()), logkey.Count(s.running.count()))
		_ = s.http.Close() // closes what Shutdown left; there is nothing to do about an error
	}
	return s.awaitHandlers()
}

// awaitHandlers waits until no handler runs: their connections are closed.
func (s *Server) awaitHandlers() error {
	late := time.NewTimer(closingGrace)
	defer late.Stop()
	select {
	case <-s.running.none():
		return nil
	case <-late.C:
		return fmt.Errorf("serve %s: %d handlers go on after their connections were closed", s.listener.Addr(), s.running.count())
	}
}

// track counts the requests in next. It also ends HTTP/2 streams that stall, whose
// connection may make progress with others.
func (s *Server) track(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.running.add(1)
		defer s.running.add(-1)
		if r.ProtoMajor >= 2 {
			w = &streamWriter{ResponseWriter: w, control: http.NewResponseController(w), idle: s.opts.WriteIdle, buffers: &s.buffers}
		}
		next.ServeHTTP(w, r)
	})
}

// running counts handlers. It is no WaitGroup, since requests may begin while somebody
// waits for the end.
type running struct {
	mu   sync.Mutex
	n    int           // guarded by mu
	idle chan struct{} // guarded by mu; closed when n falls to 0
}

func (r *running) add(d int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n += d
	if r.n == 0 && r.idle != nil {
		close(r.idle)
		r.idle = nil
	}
}

func (r *running) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// none returns a channel that is closed when no handler runs.
func (r *running) none() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	idle := make(chan struct{})
	if r.n == 0 {
		close(idle)
		return idle
	}
	if r.idle == nil {
		r.idle = idle
	}
	return r.idle
}
