// Package mirrortest runs a whole mirror inside a test: real registries, real cache, real
// handler, real listener on loopback, in front of a test hub.
//
// It promises that what a test sees over HTTP is what the shipped program does. It leaves
// out only the configuration file and the command line.
//
//	hub := hubtest.New(t, hubtest.Options{})
//	m := mirrortest.New(t, mirrortest.Options{Hub: hub})
//	res, err := client.Get(m.URL + "/v2/library/alpine/manifests/latest")
//	m.Restart()                              // the same URL and folder
//	m.AssertNoSecret(t, "hunter2")           // in anything that was logged
package mirrortest

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"forebay/cache"
	"forebay/cache/upkeep"
	"forebay/internal/wire"
	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/upstream"
)

// Loopback is where all clients in tests are.
var Loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// Options configures a [Mirror]. One of Hub and Upstreams is required.
type Options struct {
	Hub       *hubtest.Hub        // stands for docker.io
	Upstreams map[string]Upstream // others by public name; "docker.io" replaces Hub

	Dir      string        // storage folder; "" means one of the test's own
	TagTTL   time.Duration // 0 means a minute, as in the configuration; negative means always ask
	Fallback proxy.Fallback
	Hosts    map[string]string // Host header to upstream
	// Grace is how long running answers may go on when the mirror stops. 0 cuts them off.
	Grace time.Duration

	// Instance is the mirror's name among others; "" makes one of its own.
	Instance string
	// Trusted are the networks whose clients are told of budgets and may choose their traces;
	// [Loopback] is that of all tests.
	Trusted []netip.Prefix

	// Cache has what is given to the cache beside folder, upstreams and log.
	Cache  cache.Options
	Upkeep upkeep.Options
	// Gate is before the handler; nil lets everybody have everything.
	Gate proxy.Gate
	// Observe is told of every request, as by the handler.
	Observe func(*proxy.Request)
	Tracer  trace.Tracer // nil means no traces
}

// Upstream is one registry behind the mirror.
type Upstream struct {
	Hub     *hubtest.Hub // dialled for every address; required
	Aliases []string
	// Registry is given to the upstream; what is empty gets a value that suits the hub.
	Registry upstream.Options
	// Fetch says how blobs are fetched; its registry and TagTTL are set here.
	Fetch cache.UpstreamOptions
}

// Mirror is a running mirror. Its methods that start and stop it must not be called
// concurrently.
type Mirror struct {
	URL string // base URL without a trailing slash; stays the same when it starts again
	Dir string // storage folder

	t       testing.TB
	opts    Options
	entries *observer.ObservedLogs
	log     *zap.Logger
	running *instance // nil while stopped
}

// New starts a mirror, which is stopped when the test ends.
func New(t testing.TB, o Options) *Mirror {
	t.Helper()
	core, entries := observer.New(zapcore.DebugLevel)
	m := &Mirror{t: t, opts: o, entries: entries, log: zap.New(core), Dir: o.Dir}
	if m.Dir == "" {
		m.Dir = filepath.Join(t.TempDir(), "forebay")
	}
	t.Cleanup(func() {
		m.Stop()
		if t.Failed() {
			t.Logf("mirror logged:\n%s", m.Log())
		}
	})
	m.Start()
	return m
}

// Start starts a mirror that was stopped, on its folder and at its URL.
func (m *Mirror) Start() {
	m.t.Helper()
	run, err := start(m)
	if err != nil {
		m.t.Fatalf("start mirror: %s", err)
	}
	m.running, m.URL = run, "http://"+run.addr
}

// Stop ends the mirror as SIGTERM does. It does nothing when the mirror is stopped.
func (m *Mirror) Stop() {
	m.t.Helper()
	if m.running == nil {
		return
	}
	if err := m.running.stop(); err != nil {
		m.t.Errorf("stop mirror: %s", err)
	}
	m.running = nil
}

// Restart stops the mirror and starts it again.
func (m *Mirror) Restart() { m.RestartWith(func(*Options) {}) }

// RestartWith stops the mirror, changes its options, and starts it again. Options.Dir
// has no effect any more.
func (m *Mirror) RestartWith(change func(*Options)) {
	m.t.Helper()
	m.Stop()
	change(&m.opts)
	m.Start()
}

// Settle waits until all that was served so far is on the disk under its name.
func (m *Mirror) Settle() {
	m.t.Helper()
	for start := time.Now(); len(m.Cache().Fills().List()) > 0; <-time.After(time.Millisecond) {
		if time.Since(start) > time.Minute {
			m.t.Fatal("fills do not end")
		}
	}
	if err := m.Cache().Store().Settle(); err != nil {
		m.t.Errorf("settle: %s", err)
	}
}

// Crash starts the mirror again from what its folder holds at this moment, as after a
// kill -9: nothing is written back and no fill is ended in good order. Clients see their
// connections close, unless there is a Grace.
func (m *Mirror) Crash() {
	m.t.Helper()
	after := filepath.Join(m.t.TempDir(), "forebay")
	if err := snapshot(m.Dir, after); err != nil {
		m.t.Fatalf("copy the folder of a mirror about to crash: %s", err)
	}
	m.Stop()
	m.Dir = after
	m.Start()
}

// snapshot copies a storage folder in use. The index comes first and the blobs come
// last, the reverse of the order in which they are written, so that the copy has no
// knowledge of bytes that it lacks.
func snapshot(from, to string) error {
	order := []string{"index", "refs.journal", "partial", "blobs"}
	for _, part := range order {
		if err := copyTree(filepath.Join(from, part), filepath.Join(to, part)); err != nil {
			return err
		}
	}
	return nil
}

func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			if os.IsNotExist(err) {
				return nil // renamed away meanwhile
			}
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if strings.EqualFold(d.Name(), "lock") {
			return nil // a dead process holds none
		}
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, rel), b, 0o644)
	})
}

// Keeper returns what keeps the mirror's cache in order. It is good until it stops.
func (m *Mirror) Keeper() *upkeep.Keeper { return m.running.keeper }

// Cache returns the cache of the mirror, which is good until it stops.
func (m *Mirror) Cache() *cache.Cache { return m.running.cache }

// Registries returns the registries of the mirror, which are good until it stops.
func (m *Mirror) Registries() []*upstream.Registry { return m.running.registries }

// Log returns all lines logged so far as JSON, at every level, over all starts.
func (m *Mirror) Log() string {
	enc := zapcore.NewJSONEncoder(zapcore.EncoderConfig{
		MessageKey: "msg", LevelKey: "level", NameKey: "logger",
		EncodeLevel: zapcore.LowercaseLevelEncoder, EncodeName: zapcore.FullNameEncoder,
		EncodeDuration: zapcore.StringDurationEncoder, EncodeTime: zapcore.ISO8601TimeEncoder,
	})
	var b strings.Builder
	for _, e := range m.entries.All() {
		line, err := enc.EncodeEntry(e.Entry, e.Context)
		if err != nil {
			b.WriteString("unencodable entry: " + err.Error() + "\n")
			continue
		}
		b.Write(line.Bytes())
		line.Free()
	}
	return b.String()
}

// Entries returns the log entries with the given message.
func (m *Mirror) Entries(message string) []observer.LoggedEntry {
	return m.entries.FilterMessage(message).All()
}

// AssertNoSecret fails t when one of the texts stands in the log, or in a file of the
// folder that is not a blob. It stops the mirror, so that all is written.
func (m *Mirror) AssertNoSecret(t testing.TB, secrets ...string) {
	t.Helper()
	m.Stop()
	for line := range strings.Lines(m.Log()) {
		for _, s := range secrets {
			if strings.Contains(line, s) {
				t.Errorf("%q was logged: %s", s, line)
			}
		}
	}
	for _, part := range []string{"index", "partial"} {
		if err := searchTree(t, filepath.Join(m.Dir, part), secrets); err != nil {
			t.Errorf("search for secrets: %s", err)
		}
	}
}

func searchTree(t testing.TB, dir string, secrets []string) error {
	t.Helper()
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, s := range secrets {
			if strings.Contains(string(b), s) {
				t.Errorf("%q stands in the file %q", s, path)
			}
		}
		return nil
	})
}

// aliases returns the upstreams by name with their other names.
func (o *Options) aliases() map[string][]string {
	names := map[string][]string{}
	for name, u := range o.upstreams() {
		names[name] = u.Aliases
	}
	return names
}

func (o *Options) upstreams() map[string]Upstream {
	all := map[string]Upstream{}
	if o.Hub != nil {
		all[wire.Hub] = Upstream{Hub: o.Hub}
	}
	for name, u := range o.Upstreams {
		all[name] = u
	}
	return all
}
