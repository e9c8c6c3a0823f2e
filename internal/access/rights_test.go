package access

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/authn"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// registry answers as it is told, and counts.
type registry struct {
	mu    sync.Mutex
	err   error
	hold  chan struct{}
	asked []string // by whom and for what
}

func (r *registry) ask(ctx context.Context, what string) error {
	r.mu.Lock()
	r.asked = append(r.asked, pull.LoginOf(ctx).User+" "+what)
	err, hold := r.err, r.hold
	r.mu.Unlock()
	if hold != nil {
		<-hold
	}
	return err
}

func (r *registry) Resolve(ctx context.Context, repo, ref string) (v1.Descriptor, error) {
	return v1.Descriptor{}, r.ask(ctx, "head "+repo+":"+ref)
}

func (r *registry) Manifest(ctx context.Context, repo, ref string) (v1.Descriptor, []byte, error) {
	return v1.Descriptor{}, nil, r.ask(ctx, "get "+repo+":"+ref)
}

func (r *registry) StatBlob(ctx context.Context, repo string, _ v1.Hash) (int64, error) {
	return 0, r.ask(ctx, "blob of "+repo)
}

func (r *registry) TagsPage(ctx context.Context, repo, _ string) ([]string, string, error) {
	return nil, "", r.ask(ctx, "tags of "+repo)
}

func (r *registry) says(err error) {
	r.mu.Lock()
	r.err = err
	r.mu.Unlock()
}

func (r *registry) times() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

func to(repo, ref string) *wire.Route {
	return &wire.Route{Resource: wire.Manifests, Upstream: "ghcr.io", Repository: repo, Reference: ref}
}

func newRights(t *testing.T, of *registry) *Rights {
	t.Helper()
	life, end := context.WithCancel(context.Background())
	r, err := NewRights(life, func(context.Context, string, string) (Registry, error) { return of, nil })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(); r.Wait() })
	return r
}

func TestARightHoldsForItsTimeAndItsLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := &registry{}
		r := newRights(t, of)
		alice, other, bob := r.login("alice", "a"), r.login("alice", "b"), r.login("bob", "a")
		prove := func(l *pull.Login, repo string, asks int) error {
			t.Helper()
			before := of.times()
			err := r.Prove(t.Context(), l, time.Minute, to(repo, "1"), nil)
			if n := of.times() - before; n != asks {
				t.Errorf("%s asked for %s: %d requests, want %d", l.User, repo, n, asks)
			}
			return err
		}
		for i, l := range []*pull.Login{alice, r.login("alice", "a"), other, bob, {}} {
			if err := prove(l, "a/b", map[bool]int{true: 0, false: 1}[i == 1]); err != nil {
				t.Errorf("login %d: %v", i, err)
			}
		}
		_ = prove(alice, "a/c", 1)
		if !r.Known(alice, "ghcr.io", "a/b") || r.Known(alice, "quay.io", "a/b") {
			t.Error("a right is not known, or one at another registry is")
		}
		// It has moved on: an outage leaves what was had, a refusal takes it.
		time.Sleep(time.Minute)
		of.says(&pull.Error{Kind: pull.Unavailable})
		if err := prove(alice, "a/b", 1); err != nil {
			t.Errorf("in an outage: %v", err)
		}
		if err := prove(alice, "a/b", 0); err != nil {
			t.Errorf("again in an outage: %v", err)
		}
		if err := prove(bob, "a/new", 1); pull.KindOf(err) != pull.Unavailable {
			t.Errorf("what was never proven, in an outage: %v", err)
		}
		time.Sleep(time.Minute)
		for _, bound := range []error{authn.ErrTooMany, &pull.Error{Kind: pull.Limited, Detail: pull.ClientLimited}, &pull.Error{Kind: pull.Overloaded}} {
			of.says(bound)
			if err := prove(alice, "a/b", 1); !errors.Is(err, bound) {
				t.Errorf("who runs into %v keeps what was had: %v", bound, err)
			}
		}
		of.says(&pull.Error{Kind: pull.Denied})
		if err := prove(alice, "a/b", 1); pull.KindOf(err) != pull.Denied {
			t.Errorf("refused: %v", err)
		}
		_ = prove(alice, "a/b", 0) // which is remembered, for a moment
		of.says(nil)
		time.Sleep(refusedFor)
		if err := prove(alice, "a/b", 1); err != nil {
			t.Errorf("allowed again: %v", err)
		}
		r.Forget()
		_ = prove(alice, "a/b", 1)
	})
}

// Many requests of one login ask once, and the one who came first may leave.
func TestARightIsAskedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		of := &registry{hold: make(chan struct{})}
		r := newRights(t, of)
		first, leave := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if err := r.Prove(first, r.login("a", "b"), time.Hour, to("x/y", "1"), nil); !errors.Is(err, context.Canceled) {
				t.Errorf("who left: %v", err)
			}
		})
		synctest.Wait()
		for range 8 {
			all.Go(func() {
				if err := r.Prove(t.Context(), r.login("a", "b"), time.Hour, to("x/y", "1"), nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(of.hold)
		all.Wait()
		if n := of.times(); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// Wrong passwords at a registry are bounded as those for the mirror are.
func TestGuessesAtARegistryAreBounded(t *testing.T) {
	of := &registry{err: &pull.Error{Kind: pull.Denied, Err: pull.ErrLogin}}
	r := newRights(t, of)
	left := 3
	begin := func(context.Context) (func(bool), bool) {
		return func(right bool) {
			if !right {
				left--
			}
		}, left > 0
	}
	for i := range 5 {
		err := r.Prove(t.Context(), r.login("alice", fmt.Sprint(i)), time.Hour, to("a/b", "1"), begin)
		if errors.Is(err, authn.ErrTooMany) != (i >= 3) {
			t.Errorf("guess %d: %v", i, err)
		}
	}
	if err := r.Prove(t.Context(), r.login("alice", "0"), time.Hour, to("a/c", "2"), begin); !errors.Is(err, pull.ErrLogin) {
		t.Errorf("a wrong password that is known: %v", err)
	}
	if n := of.times(); n != 3 {
		t.Errorf("%d guesses got through, want 3", n)
	}
}

// What a client shows is for a registry only where that is told.
func TestForWhichRegistryALoginIs(t *testing.T) {
	asked := map[string]Asked{"ghcr.io": {}, "docker.io": {}}
	nobody, err := authn.New(authn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		door Door
		to   wire.Route
		want string
	}{
		{Door{Asked: asked}, wire.Route{Upstream: "ghcr.io", Prefix: wire.PathPrefix}, ""},
		{Door{Asked: asked}, wire.Route{Upstream: "docker.io"}, ""},
		{Door{Asked: asked}, wire.Route{Upstream: "docker.io", Namespace: "docker.io"}, "docker.io"},
		{Door{Asked: asked}, wire.Route{Upstream: "ghcr.io", Prefix: wire.RootPrefix}, "ghcr.io"},
		{Door{Asked: asked}, wire.Route{Upstream: "ghcr.io", Host: "ghcr.io"}, "ghcr.io"},
		{Door{Asked: asked}, wire.Route{Host: "ghcr.io"}, "ghcr.io"}, // a ping
		{Door{Asked: asked}, wire.Route{Upstream: "ghcr.io", Host: "docker.io", Prefix: wire.PathPrefix}, ""},
		{Door{Asked: asked}, wire.Route{Upstream: "quay.io", Namespace: "quay.io"}, ""},
		{Door{Asked: asked, Upstreams: []string{"ghcr.io", "quay.io"}}, wire.Route{Upstream: "ghcr.io", Prefix: wire.PathPrefix}, "ghcr.io"},
		{Door{Asked: asked, Upstreams: []string{"ghcr.io"}}, wire.Route{}, "ghcr.io"}, // a ping
		{Door{Asked: asked}, wire.Route{}, ""},
		{Door{Asked: map[string]Asked{"ghcr.io": {}}}, wire.Route{}, "ghcr.io"}, // the mirror itself has no passwords
	} {
		row.door.Auth = nobody
		if got := row.door.meant(&row.to); got != row.want {
			t.Errorf("meant(%+v) at a door to %v = %q, want %q", row.to, row.door.Upstreams, got, row.want)
		}
	}
}

func TestALoginIsNotWritten(t *testing.T) {
	l := newRights(t, &registry{}).login("alice", "pass word")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if text := fmt.Sprintf(verb, l); strings.Contains(text, "alice") || strings.Contains(text, "pass") {
			t.Errorf("%s: %s", verb, text)
		}
	}
}

// Clients behind a proxy are sent to log in where they came from, by what it says if it is believed.
func TestClientsLogInWhereTheyCameFrom(t *testing.T) {
	trusted := &Door{Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, tt := range []struct{ from, proto, host, want string }{
		{"10.1.1.1:9", "", "", "http://mirror.lan"},
		{"10.1.1.1:9", "https", "", "https://mirror.lan"},
		{"10.1.1.1:9", "HTTPS, http", "hub.example:8443, mirror.lan", "https://hub.example:8443"},
		{"10.1.1.1:9", "http,https", "", "http://mirror.lan"},
		{"10.1.1.1:9", "https", `a"b`, "https://mirror.lan"},
		{"127.0.0.1:9", "https", "hub.example", "https://hub.example"},
		{"[::1]:9", "https", "", "https://mirror.lan"},
		{"@", "https", "", "https://mirror.lan"}, // by a Unix socket
		{"192.0.2.1:9", "https", "evil.example", "http://mirror.lan"},
	} {
		r := httptest.NewRequest(http.MethodGet, "http://mirror.lan/v2/", nil)
		r.RemoteAddr = tt.from
		r.Header.Set("X-Forwarded-Proto", tt.proto)
		r.Header.Set("X-Forwarded-Host", tt.host)
		if got := trusted.origin(r); got != tt.want {
			t.Errorf("origin of %+v = %s", tt, got)
		}
	}
}
