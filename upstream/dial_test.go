package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"forebay/internal/pull"
	"forebay/test/hubtest"
)

func TestClassify(t *testing.T) {
	tests := map[addressClass][]string{
		publicAddress: {
			"1.1.1.1", "100.63.255.255", "100.128.0.1", "172.15.0.1", "172.32.0.1", "192.0.1.1", "198.20.0.1", "223.255.255.255",
			"2606:4700::1", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1",
		},
		privateAddress: {
			"10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "192.0.0.8",
			"198.18.0.1", "198.19.255.255", "fc00::1", "fdff::1", "fec0::1",
			"::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "::10.0.0.1", "64:ff9b:1::808:808", "64:ff9b:1:a9fe:a9:fe00:808:808",
			"2001:0:1:1:1:1:f5ff:fffe",                      // Teredo, client 10.0.0.1
			"::ffff:0:10.0.0.1", "2606:4700::5efe:10.0.0.1", // SIIT, ISATAP
		},
		loopbackAddress: {
			"127.0.0.1", "127.255.255.255", "::1", "::ffff:127.0.0.1", "64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1", "2606:4700::200:5efe:127.0.0.1",
		},
		neverAddress: {
			"0.0.0.0", "0.1.2.3", "169.254.169.254", "169.254.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
			"100.100.100.200", "168.63.129.16", "192.0.0.192", "::", "fe80::1", "fe80::1%eth0", "febf::1", "ff02::1", "fd00:ec2::254", "fd20:ce::254",
			"2001:db8::1", "3fff::1", "100::1", "5f00::1", "::ffff:0:169.254.169.254",
			"::ffff:169.254.169.254", "::ffff:0.0.0.0", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::169.254.169.254",
			"2001:0:1:1:1:1:5601:5601", // Teredo, client 169.254.169.254
		},
	}
	for want, list := range tests {
		for _, text := range list {
			if got := classify(netip.MustParseAddr(text)); got != want {
				t.Errorf("classify(%s) = %d, want %d", text, got, want)
			}
		}
	}
	if got := classify(netip.Addr{}); got != neverAddress {
		t.Errorf("classify of no address = %d, want never", got)
	}
}

func FuzzClassify(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1})
	f.Add([]byte("\x00\x64\xff\x9b\x00\x00\x00\x00\x00\x00\x00\x00\xa9\xfe\xa9\xfe"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, valid := netip.AddrFromSlice(b)
		if !valid {
			return
		}
		got := classify(a)
		if a.Is4() && classify(netip.AddrFrom16(a.As16())) != got {
			t.Errorf("classify(%s) differs when it is mapped", a)
		}
		if a.Unmap().IsLinkLocalUnicast() && got != neverAddress {
			t.Errorf("classify(%s) = %d, want never", a, got)
		}
		if (a.Unmap().IsPrivate() || a.Unmap().IsLoopback()) && got == publicAddress {
			t.Errorf("classify(%s) is public", a)
		}
	})
}

// TestRealDialerChecksBeforeItConnects uses no hook: the check runs inside the dial.
func TestRealDialerChecksBeforeItConnects(t *testing.T) {
	hits := 0
	target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	defer target.Close()
	_, port, err := net.SplitHostPort(target.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	base := &url.URL{Scheme: "https", Host: "registry.example"}
	var o Options
	o.setDefaults()
	d := newDialer(base, &o)
	for _, host := range []string{"127.0.0.1", "localhost", "::1"} {
		conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, errRefusedAddress) {
			t.Errorf("dial of %s: %v, want a refused address", host, err)
		}
	}
	if hits != 0 {
		t.Errorf("target saw %d requests, want 0", hits)
	}
	// The operator's own endpoint may be on loopback, and then its redirects too.
	own := newDialer(&url.URL{Scheme: "http", Host: target.Listener.Addr().String()}, &o)
	conn, err := own.DialContext(t.Context(), "tcp", target.Listener.Addr().String())
	if err != nil {
		t.Fatalf("dial of the endpoint: %v", err)
	}
	conn.Close()
}

func TestWhereAnEndpointLeadsIsConfigured(t *testing.T) {
	at := func(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }
	ours := &Ours{}
	ours.Add(&net.TCPAddr{IP: net.IPv4zero, Port: 5001})
	for _, tc := range []struct {
		endpoint string
		private  bool // allow_private
		to       string
		own      bool
		allowed  bool
	}{
		{"https://registry-1.docker.io", false, "10.0.0.1:443", true, false},
		{"https://registry-1.docker.io", false, "10.0.0.1:443", false, false},
		{"https://registry-1.docker.io", false, "1.1.1.1:443", true, true},
		{"https://registry-1.docker.io", true, "10.0.0.1:443", true, true},
		{"https://registry-1.docker.io", true, "127.0.0.1:443", true, false},
		{"https://ghcr.io", false, "127.0.0.1:443", true, false},
		{"https://registry.example.com", false, "10.0.0.1:443", true, true},
		{"https://registry.example.com", false, "10.0.0.1:443", false, false},
		{"https://registry.example.com", true, "10.0.0.1:443", false, true},
		{"https://registry.example.com", true, "127.0.0.1:443", false, false},
		{"https://registry.example.com", false, "127.0.0.1:443", true, false},
		{"https://harbor.corp", false, "10.0.0.1:443", false, true},
		{"https://harbor.corp", false, "127.0.0.1:443", false, false},
		{"https://harbor.corp", false, "127.0.0.1:443", true, true}, // by the hosts file
		{"http://registry:5000", false, "172.17.0.2:5000", false, true},
		{"http://10.0.0.7:5000", false, "10.9.9.9:443", false, true},
		{"http://10.0.0.7:5000", false, "127.0.0.1:443", false, false},
		{"http://10.0.0.7:5000", false, "169.254.169.254:80", false, false},
		{"http://127.0.0.1:5000", false, "127.0.0.1:7000", false, true},
		{"http://127.0.0.1:5000", false, "10.0.0.7:7000", false, true},
		{"http://127.0.0.1:5000", false, "127.0.0.1:5001", false, false}, // that is us
		{"http://localhost:5000", false, "[::1]:5001", false, false},
		{"http://localhost:5000", false, "[::1]:7000", false, true},
	} {
		base, err := url.Parse(tc.endpoint)
		if err != nil {
			t.Fatal(err)
		}
		o := Options{AllowPrivate: tc.private, Ours: ours}
		o.setDefaults()
		d := newDialer(base, &o)
		// What was reached changes nothing.
		for range 2 {
			if err := d.check(at(tc.to), tc.own); (err == nil) != tc.allowed {
				t.Errorf("%s, allow_private %t, to %s (own %t): %v, want allowed %t", tc.endpoint, tc.private, tc.to, tc.own, err, tc.allowed)
			}
		}
	}
}

func TestNumbersAreNoHosts(t *testing.T) {
	base := &url.URL{Scheme: "https", Host: "registry.example.com"}
	e := &endpoint{base: base, dialer: newDialer(base, &Options{})}
	for _, host := range []string{"2130706433", "0x7f.1", "127.1", "0177.0.0.1", "0x7f000001", "1.1.1.1", "localhost", "a.localhost"} {
		if err := e.vet(&url.URL{Scheme: "https", Host: host}); err == nil {
			t.Errorf("a redirect to %s is followed", host)
		}
	}
	for _, host := range []string{"cdn.example.com", "1password.com", "b2.example"} {
		if err := e.vet(&url.URL{Scheme: "https", Host: host}); err != nil {
			t.Errorf("a redirect to %s: %v", host, err)
		}
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
		"both credentials": {Name: "x", Credentials: Credentials{Username: "u", Password: "p", DockerConfig: "/x"}},
		"both passwords":   {Name: "x", Credentials: Credentials{Username: "u", Password: "p", PasswordFile: "/x"}},
		"no user":          {Name: "x", Credentials: Credentials{Password: "p"}},
		"no password":      {Name: "x", Credentials: Credentials{Username: "u"}},
		"CA file":          {Name: "x", TLS: TLS{CAFile: "/does/not/exist"}},
		"client key":       {Name: "x", TLS: TLS{CertFile: "/does/not/exist", KeyFile: "/does/not/exist"}},
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
	o.TLS = TLS{CAFile: writeFile(t, "ca.pem", string(hub.CAPEM()))}
	if _, err := newRegistry(t, o).Resolve(t.Context(), repoAlpine, "latest"); err != nil {
		t.Errorf("Resolve: %v", err)
	}
	o.TLS = TLS{}
	_, err := newRegistry(t, o).Resolve(t.Context(), repoAlpine, "latest")
	wantKind(t, "Resolve without the CA file", err, pull.Unavailable)
}
