package e2e

import (
	"net/http"
	"testing"
	"time"

	"forebay/test/hubtest"
)

// answerWithin bounds how long the mirror tries before it gives up on a blob.
const answerWithin = 10 * time.Second

// T42 of docs/clients.md: dockerd tries a blob five times, with 77 s of sleep, before it
// leaves a mirror that answers 5xx. So it must be told 404 whatever is wrong upstream, and
// then be at Docker Hub within two seconds. Before it says so, the mirror has tried
// again for a few seconds itself.
func TestDockerGoesToHubSoon(t *testing.T) {
	for _, c := range []struct {
		name string
		role hubtest.Role
		do   hubtest.Fault
	}{
		{"500", hubtest.RoleRegistry, hubtest.Status(http.StatusInternalServerError)},
		{"503", hubtest.CDN, hubtest.StatusHTML(http.StatusServiceUnavailable)},
		{"429", hubtest.RoleRegistry, hubtest.Abuse429()},
		{"404", hubtest.RoleRegistry, hubtest.Status(http.StatusNotFound)},
		{"403", hubtest.CDN, hubtest.Status(http.StatusForbidden)},
		{"reset", hubtest.CDN, hubtest.NoReply(hubtest.RST)},
		{"closed", hubtest.RoleRegistry, hubtest.NoReply(hubtest.FIN)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, d, hub := fallbackWorld(t)
			tap := openTap(t, w.mirror)
			w.hub.AddRule(hubtest.Rule{Role: c.role, Route: hubtest.RouteBlob, Do: c.do})
			s := d(tap.addr)
			start := time.Now()
			pull(t, s, plainDocker+":"+catalogueTag, w.images[plainDocker])
			t.Logf("pulled round the mirror in %s", time.Since(start).Round(time.Millisecond))

			var told time.Time // of the first blob that the mirror could not give
			for _, e := range tap.take() {
				if !e.isBlob() || e.status == http.StatusOK {
					continue
				}
				if e.status != http.StatusNotFound {
					t.Errorf("%s %s = %d, want 404", e.method, e.path, e.status)
				}
				took := e.answered.Sub(e.asked)
				t.Logf("mirror said %d after %s", e.status, took.Round(time.Millisecond))
				if took > answerWithin {
					t.Errorf("%s %s was answered after %s, want within %s", e.method, e.path, took, answerWithin)
				}
				if told.IsZero() {
					told = e.answered
				}
			}
			if told.IsZero() {
				t.Fatal("the mirror refused no blob")
			}
			calls := w.front.take()
			if len(calls) == 0 {
				t.Fatal("dockerd did not go to Docker Hub")
			}
			if took := calls[0].at.Sub(told); took > 10*time.Second {
				t.Errorf("dockerd was at Docker Hub %s after the mirror's answer, want within 10 s", took)
			}
			if n := hub.Count(hubtest.Query{Route: hubtest.RouteBlob}); n == 0 {
				t.Error("Docker Hub was asked for no blob")
			}
			w.hub.AssertAllFired(t)
			w.hub.AssertClean(t)
		})
	}
}

// fallbackWorld is a world with a Docker Hub for clients to go to: a second hub, with
// the same images, where the names of Docker Hub lead. It returns a function that
// starts a dockerd that trusts it.
func fallbackWorld(t *testing.T) (*world, func(addr string) store, *hubtest.Hub) {
	t.Helper()
	w := newWorld(t, worldOptions{})
	hub := hubtest.New(t, hubtest.Options{Named: true, Backend: w.registry.url, Anonymous: hubtest.Unlimited()})
	w.front.close()
	w.front = openFront(t, hub)
	ca := writeFile(t, stateDir(t), "ca.pem", string(hub.CAPEM()))
	return w, func(addr string) store {
		return startDocker(t, addr, []string{"SSL_CERT_FILE=" + ca})
	}, hub
}
