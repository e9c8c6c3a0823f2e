package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/pull"
	"forebay/test/hubtest"
	"forebay/upstream/auth"
	"forebay/upstream/dial"
)

// tunnels is a proxy that knows CONNECT and nothing else, and asks for a password.
type tunnels struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)

	mu   sync.Mutex
	to   []string // targets of the tunnels, in order
	rest []string // other requests
	work sync.WaitGroup
}

const tunnelsUser, tunnelsSecret = "proxy-user", "proxy-secret"

func (p *tunnels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte(tunnelsUser+":"+tunnelsSecret))
	switch {
	case r.Method != http.MethodConnect:
		p.mu.Lock()
		p.rest = append(p.rest, r.Method+" "+r.URL.String())
		p.mu.Unlock()
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	case r.Header.Get("Proxy-Authorization") != want:
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	p.mu.Lock()
	p.to = append(p.to, r.Host)
	p.mu.Unlock()
	there, err := p.dial(context.Background(), "tcp", r.Host) // outlives the request
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	w.WriteHeader(http.StatusOK)
	here, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		there.Close()
		return
	}
	p.work.Go(func() { _, _ = io.Copy(there, buffered); there.Close() }) // ends with either side
	p.work.Go(func() { _, _ = io.Copy(here, there); here.Close() })
}

func (p *tunnels) targets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(p.to)))
}

// TestProxyTunnelsTLS pulls through a proxy that alone can resolve and reach the
// registry, its token server and its blob stores.
func TestProxyTunnelsTLS(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Named: true})
	img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	p := &tunnels{dial: hub.DialContext}
	server := httptest.NewServer(p)
	t.Cleanup(func() { server.Close(); hub.Close(); p.work.Wait() })
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	at.User = url.UserPassword(tunnelsUser, tunnelsSecret)
	o := hubOptions(hub)
	o.Dial, o.Proxy = nil, at
	r := newRegistry(t, o)
	pullImage(t, hub, r, img)
	want := []string{"auth.docker.io:443", "production.cloudflare.docker.com:443", "registry-1.docker.io:443"}
	for _, host := range want {
		if !slices.Contains(p.targets(), host) {
			t.Errorf("tunnels went to %q, want %s among them", p.targets(), host)
		}
	}
	if len(p.rest) != 0 {
		t.Errorf("the proxy saw %q outside of tunnels", p.rest)
	}
	hub.AssertClean(t)

	o.Proxy = &url.URL{Scheme: at.Scheme, Host: at.Host, User: url.UserPassword(tunnelsUser, "proxy-wrong")}
	_, err = newRegistry(t, o).Resolve(t.Context(), repoAlpine, "latest")
	fail := wantKind(t, "Resolve through a proxy that refuses the password", err, pull.Unavailable)
	if text := fail.Error(); strings.Contains(text, "proxy-wrong") || !strings.Contains(text, "Proxy Authentication Required") {
		t.Errorf("error is %q, want what the proxy said and no password", text)
	}
}

func TestClientCertificateIsShown(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{TLS: true, ClientCerts: true})
	img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	o := hubOptions(hub)
	cert, key := hub.ClientPair()
	o.TLS.CertFile, o.TLS.KeyFile = writeFile(t, "client.pem", string(cert)), writeFile(t, "client.key", string(key))
	pullImage(t, hub, newRegistry(t, o), img)

	o.TLS.CertFile, o.TLS.KeyFile = "", ""
	_, err := newRegistry(t, o).Resolve(t.Context(), repoAlpine, "latest")
	wantKind(t, "Resolve without a client certificate", err, pull.Unavailable)
}

// A certificate says who we are. Where the registry redirects to, and who stands in for
// it, ask for one in vain.
func TestClientCertificateIsShownToTheRegistryOnly(t *testing.T) {
	data := []byte("a blob of no importance")
	d, _, err := v1.SHA256(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	type seen struct {
		mu    sync.Mutex
		shown []int // certificates, by request
	}
	serve := func(answer func(w http.ResponseWriter, r *http.Request)) (*httptest.Server, *seen) {
		s := &seen{}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.mu.Lock()
			s.shown = append(s.shown, len(r.TLS.PeerCertificates))
			s.mu.Unlock()
			answer(w, r)
		}))
		server.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		server.StartTLS()
		t.Cleanup(server.Close)
		return server, s
	}
	blob := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) }
	store, atStore := serve(blob)
	standIn, atStandIn := serve(blob)
	registry, atRegistry := serve(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, store.URL+"/blob", http.StatusTemporaryRedirect)
	})
	trusted := x509.NewCertPool()
	for _, s := range []*httptest.Server{store, standIn, registry} {
		trusted.AddCert(s.Certificate())
	}
	hub := hubtest.New(t, hubtest.Options{TLS: true, ClientCerts: true})
	cert, key := hub.ClientPair()
	o := Options{
		Name: "registry.test", Endpoints: endpointsOf(registry.URL),
		TLS: dial.TLS{RootCAs: trusted, CertFile: writeFile(t, "client.pem", string(cert)), KeyFile: writeFile(t, "client.key", string(key))},
	}
	wantBlob(t, newRegistry(t, o), "a/b", d, data)
	o.Endpoints = []Endpoint{{URL: standIn.URL, StandIn: &StandIn{Tags: true}}}
	wantBlob(t, newRegistry(t, o), "a/b", d, data)
	for name, test := range map[string]struct {
		*seen
		want int
	}{"registry": {atRegistry, 1}, "redirect target": {atStore, 0}, "stand-in": {atStandIn, 0}} {
		if len(test.shown) == 0 || slices.ContainsFunc(test.shown, func(n int) bool { return n != test.want }) {
			t.Errorf("%s was shown %v certificates, want %d each time", name, test.shown, test.want)
		}
	}
}

func TestAddressFamily(t *testing.T) {
	hits := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits++
		w.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		family dial.Family
		host   string
		lookup string // how the name is looked up; "" if there is no name
		want   pull.Kind
	}{
		{dial.AnyFamily, "registry.corp", "ip", pull.NotFound},
		{dial.IPv4Only, "registry.corp", "ip4", pull.NotFound},
		{dial.IPv6Only, "registry.corp", "ip6", pull.Invalid},
		{dial.AnyFamily, "127.0.0.1", "", pull.NotFound},
		{dial.IPv4Only, "127.0.0.1", "", pull.NotFound},
		{dial.IPv6Only, "127.0.0.1", "", pull.Invalid},
	} {
		t.Run(string(test.family)+" "+test.host, func(t *testing.T) {
			hits = 0
			asked := ""
			r := newRegistry(t, Options{
				Name: "corp", Endpoints: endpointsOf("http://" + test.host + ":" + port), Family: test.family,
				Lookup: func(_ context.Context, network, _ string) ([]netip.Addr, error) {
					asked = network
					return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil // whatever was asked for
				},
			})
			_, err := r.Resolve(t.Context(), "a/b", "latest")
			wantKind(t, "Resolve", err, test.want)
			if asked != test.lookup {
				t.Errorf("looked up %q, want %q", asked, test.lookup)
			}
			if reached := hits > 0; reached != (test.want == pull.NotFound) {
				t.Errorf("server saw %d requests", hits)
			}
		})
	}
	if r, err := New(Options{Name: "corp", Family: "ipv5"}); err == nil {
		r.Close()
		t.Error("New takes address family ipv5")
	}
}

// TestPlainHTTPOnlyWhereTheEndpointSaysSo: nothing that a registry says makes an https
// endpoint, or what it leads to, plain.
func TestPlainHTTPOnlyWhereTheEndpointSaysSo(t *testing.T) {
	plain := hubtest.New(t, hubtest.Options{Profile: hubtest.Plain})
	plain.PushImage("acme/app", "latest", hubtest.ImageSpec{})
	for _, route := range []hubtest.Route{hubtest.RouteManifest, hubtest.RouteBlob} {
		secure := hubtest.New(t, hubtest.Options{TLS: true})
		img := secure.PushImage("acme/app", "latest", hubtest.ImageSpec{})
		secure.AddRule(hubtest.Rule{
			Role: hubtest.RoleRegistry, Route: route,
			Do: hubtest.RedirectTo(307, plain.RegistryURL()+"/v2/acme/app/manifests/latest"),
		})
		r := newRegistry(t, hubOptions(secure))
		var err error
		if route == hubtest.RouteBlob {
			_, _, err = readBlob(t.Context(), r, "acme/app", digest(t, img.Blobs()[0].Digest), 0, -1)
		} else {
			_, err = r.Resolve(t.Context(), "acme/app", "latest")
		}
		wantKind(t, "redirect of a "+string(route)+" to http", err, pull.Invalid)
	}
	// A listener that speaks no TLS is an error, never a reason to try without.
	o := hubOptions(plain)
	o.Endpoints = endpointsOf(strings.Replace(plain.RegistryURL(), "http:", "https:", 1))
	_, err := newRegistry(t, o).Resolve(t.Context(), "acme/app", "latest")
	wantKind(t, "Resolve over https where only http is spoken", err, pull.Unavailable)
	if n := plain.Count(hubtest.Query{}); n != 0 {
		t.Errorf("the plain registry saw %d requests, want none", n)
	}
}

func TestDialTriesEachAddress(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", hubtest.OCIIndex)
		fmt.Fprint(w, `{"schemaVersion":2,"manifests":[]}`)
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	r := newRegistry(t, Options{
		Name: "corp", Endpoints: endpointsOf("http://registry.corp:" + port),
		Lookup: func(_ context.Context, network, host string) ([]netip.Addr, error) {
			if network != "ip" || host != "registry.corp" {
				return nil, fmt.Errorf("lookup of %s %s", network, host)
			}
			return []netip.Addr{
				netip.MustParseAddr("169.254.169.254"), // never
				netip.MustParseAddr("127.0.0.77"),      // nobody listens
				netip.MustParseAddr("127.0.0.1"),
			}, nil
		},
	})
	if _, _, err := r.Manifest(t.Context(), "a/b", "latest"); err != nil {
		t.Errorf("Manifest: %v", err)
	}
}

func TestProxyCarriesEverything(t *testing.T) {
	var seen []string
	var password string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		seen = append(seen, req.Method+" "+req.URL.String())
		password = req.Header.Get("Proxy-Authorization")
		if strings.Contains(req.URL.Path, "/blobs/") {
			http.Redirect(w, req, "http://169.254.169.254/latest", http.StatusTemporaryRedirect)
			return
		}
		w.Header().Set("Content-Type", hubtest.OCIIndex)
		fmt.Fprint(w, `{"schemaVersion":2,"manifests":[]}`)
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	at.User = url.UserPassword("proxy-user", "proxy-secret")
	r := newRegistry(t, Options{Name: "corp", Endpoints: endpointsOf("http://registry.corp"), Proxy: at})
	if _, _, err := r.Manifest(t.Context(), "a/b", "latest"); err != nil {
		t.Errorf("Manifest: %v", err)
	}
	if len(seen) != 1 || seen[0] != "GET http://registry.corp/v2/a/b/manifests/latest" || !strings.HasPrefix(password, "Basic ") {
		t.Errorf("proxy saw %q with authorization %q", seen, password)
	}
	_, _, err = readBlob(t.Context(), r, "a/b", digestOf("", nil), 0, -1)
	wantKind(t, "OpenBlob that is redirected to the metadata address", err, pull.Invalid)
	if len(seen) != 2 {
		t.Errorf("proxy saw %q, want no request for the metadata address", seen)
	}
}

func TestNewRefusesBadOptions(t *testing.T) {
	tests := map[string]Options{
		"no name":          {},
		"scheme":           {Name: "x", Endpoints: endpointsOf("ftp://x")},
		"no scheme":        {Name: "x", Endpoints: endpointsOf("x")},
		"user":             {Name: "x", Endpoints: endpointsOf("https://u:secret@x")},
		"query":            {Name: "x", Endpoints: endpointsOf("https://x?y")},
		"no host":          {Name: "x", Endpoints: endpointsOf("https:///v2")},
		"bad URL":          {Name: "x", Endpoints: endpointsOf("https://%zz")},
		"both credentials": {Name: "x", Credentials: auth.Credentials{Username: "u", Password: "p", DockerConfig: "/x"}},
		"both passwords":   {Name: "x", Credentials: auth.Credentials{Username: "u", Password: "p", PasswordFile: "/x"}},
		"no user":          {Name: "x", Credentials: auth.Credentials{Password: "p"}},
		"no password":      {Name: "x", Credentials: auth.Credentials{Username: "u"}},
		"CA file":          {Name: "x", TLS: dial.TLS{CAFile: "/does/not/exist"}},
		"client key":       {Name: "x", TLS: dial.TLS{CertFile: "/does/not/exist", KeyFile: "/does/not/exist"}},
	}
	for name, o := range tests {
		r, err := New(o)
		if err == nil {
			r.Close()
			t.Errorf("%s: New gives no error", name)
			continue
		}
		if !strings.Contains(err.Error(), "upstream") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: error is %q", name, err)
		}
	}
}

func TestCAFileIsTrusted(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Named: true})
	hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	o := hubOptions(hub)
	o.TLS = dial.TLS{CAFile: writeFile(t, "ca.pem", string(hub.CAPEM()))}
	if _, err := newRegistry(t, o).Resolve(t.Context(), repoAlpine, "latest"); err != nil {
		t.Errorf("Resolve: %v", err)
	}
	o.TLS = dial.TLS{}
	_, err := newRegistry(t, o).Resolve(t.Context(), repoAlpine, "latest")
	wantKind(t, "Resolve without the CA file", err, pull.Unavailable)
}
