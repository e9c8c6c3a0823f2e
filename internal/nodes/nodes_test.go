package nodes

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// cluster speaks the API of Kubernetes over TLS, as far as nodes go: with pages, a token that is
// exchanged, and rights.
type cluster struct {
	*httptest.Server
	dir     string // of the service account
	token   atomic.Pointer[string]
	allowed atomic.Bool
	nodes   []string // JSON
	asked   atomic.Int64
}

func newCluster(t *testing.T, nodes ...string) *cluster {
	t.Helper()
	c := &cluster{dir: t.TempDir(), nodes: nodes}
	c.allowed.Store(true)
	c.Server = httptest.NewTLSServer(c)
	t.Cleanup(c.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(c.dir, "ca.crt"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	c.turn(t, "first")
	return c
}

// turn gives the account another token, as the kubelet does.
func (c *cluster) turn(t *testing.T, token string) {
	t.Helper()
	c.token.Store(&token)
	if err := os.WriteFile(filepath.Join(c.dir, "token"), []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.asked.Add(1)
	switch {
	case r.Header.Get("Authorization") != "Bearer "+*c.token.Load():
		w.WriteHeader(http.StatusUnauthorized)
	case !c.allowed.Load():
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"kind":"Status","status":"Failure","reason":"Forbidden","code":403}`)
	case r.Method != http.MethodGet || r.URL.Path != "/api/v1/nodes":
		w.WriteHeader(http.StatusNotFound)
	default:
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
		to, next := min(from+limit, len(c.nodes)), ""
		if to < len(c.nodes) {
			next = strconv.Itoa(to)
		}
		fmt.Fprintf(w, `{"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"7","continue":%q},"items":[%s]}`, next, strings.Join(c.nodes[from:to], ","))
	}
}

func node(i int) string {
	return fmt.Sprintf(`{"metadata":{"name":"node-%d","creationTimestamp":"2026-11-01T12:00:00Z"},"spec":{"podCIDR":"10.42.%d.0/24","podCIDRs":["10.42.%d.0/24"]},
"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.%d"},{"type":"Hostname","address":"node-%d"}],"images":[{"names":["nginx"],"sizeBytes":7}]}}`, i, i%256, i%256, i%256, i)
}

func TestNodesOfAClusterAreRead(t *testing.T) {
	var all []string
	for i := range 450 { // three pages
		all = append(all, node(i))
	}
	c := newCluster(t, all...)
	l, err := newList(c.Listener.Addr().String(), c.dir, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer l.client.CloseIdleConnections()
	got, err := l.read(t.Context())
	if err != nil || len(got) != 450 || c.asked.Load() != 3 {
		t.Fatalf("%d nodes after %d requests, %v, want 450 after 3", len(got), c.asked.Load(), err)
	}
	want := Node{"node-7", time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("10.42.7.0/24")}}
	if diff := cmp.Diff(want, got[7], cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
		t.Errorf("node 7 (-want +got):\n%s", diff)
	}
	c.turn(t, "second") // the token is read each time
	if _, err := l.read(t.Context()); err != nil {
		t.Errorf("with a new token: %v", err)
	}
	c.nodes = []string{`{"metadata":7}`}
	if _, err := l.read(t.Context()); err == nil || !strings.Contains(err.Error(), "list of nodes") {
		t.Errorf("what is no list = %v", err)
	}
}

// An account that lacks the right is told of once, and what was known stays.
func TestWhoMayNotListNodesIsToldOnce(t *testing.T) {
	c := newCluster(t, node(1))
	core, logged := observer.New(zap.WarnLevel)
	l, err := newList(c.Listener.Addr().String(), c.dir, zap.New(core))
	if err != nil {
		t.Fatal(err)
	}
	run := func(until func() bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		for end := time.Now().Add(time.Minute); !until(); <-time.After(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("nothing was read")
			}
		}
		cancel()
		<-done
	}
	run(func() bool { return len(l.Nodes()) == 1 })
	c.allowed.Store(false)
	run(func() bool { return logged.Len() == 1 })
	if entry := logged.All()[0]; !strings.Contains(fmt.Sprint(entry.ContextMap()), "may not list nodes") || strings.Contains(fmt.Sprint(entry.ContextMap()), "first") {
		t.Errorf("logged %v, want why and no token", entry.ContextMap())
	}
	if len(l.Nodes()) != 1 {
		t.Errorf("%d nodes are known after a refusal, want that of before", len(l.Nodes()))
	}
}

// Outside of a cluster, and in a pod without a token, nobody is asked.
func TestWithoutAnAccountNobodyIsAsked(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if l := InCluster(zap.NewNop()); l != nil || l.Nodes() != nil {
		t.Error("there is a list outside of a cluster")
	}
	if l, err := newList("127.0.0.1:1", t.TempDir(), zap.NewNop()); l != nil || !os.IsNotExist(err) {
		t.Errorf("without a token: %v, %v", l, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (*List)(nil).Run(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Run of none = %v", err)
	}
}
