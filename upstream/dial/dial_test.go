package dial

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"testing"
	"time"
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
	o := Options{Connect: 3 * time.Second}
	d, err := New(base, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "::1"} {
		conn, err := d.DialContext(t.Context(), "tcp", net.JoinHostPort(host, port))
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, ErrRefused) {
			t.Errorf("dial of %s: %v, want a refused address", host, err)
		}
	}
	if hits != 0 {
		t.Errorf("target saw %d requests, want 0", hits)
	}
	// The operator's own endpoint may be on loopback, and then its redirects too.
	own, err := New(&url.URL{Scheme: "http", Host: target.Listener.Addr().String()}, o)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := own.DialContext(t.Context(), "tcp", target.Listener.Addr().String())
	if err != nil {
		t.Fatalf("dial of the endpoint: %v", err)
	}
	conn.Close()
}

// Who listens on one address leaves its port on the others of the machine to others.
func TestOursAreWhereWeListen(t *testing.T) {
	listening := func(text string) *Ours {
		o := &Ours{}
		o.Add(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(text)))
		return o
	}
	for _, tc := range []struct {
		listen, to string
		ours       bool
	}{
		{"127.0.0.1:5001", "127.0.0.1:5001", true},
		{"127.0.0.1:5001", "[::ffff:127.0.0.1]:5001", true},
		{"127.0.0.1:5001", "0.0.0.0:5001", true}, // is dialled as loopback
		{"127.0.0.1:5001", "[::]:5001", true},
		{"127.0.0.1:5001", "127.0.0.1:5000", false},
		{"127.0.0.1:5001", "127.0.0.5:5001", false},
		{"127.0.0.1:5001", "10.0.0.1:5001", false},
		{"10.0.0.1:5001", "127.0.0.1:5001", false},
		{"10.0.0.1:5001", "0.0.0.0:5001", false},
		{"[::1]:5001", "[::1%lo]:5001", true},
		{"0.0.0.0:5001", "127.0.0.5:5001", true},
		{"[::]:5001", "127.0.0.1:5001", true},
		{"[::]:5001", "[::1]:5001", true},
		{"[::]:5001", "192.0.2.1:5001", false}, // nobody's (RFC 5737)
	} {
		if got := listening(tc.listen).has(netip.MustParseAddrPort(tc.to)); got != tc.ours {
			t.Errorf("listening on %s, %s is ours: %t, want %t", tc.listen, tc.to, got, tc.ours)
		}
	}
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
		d, err := New(base, Options{AllowPrivate: tc.private, Ours: ours})
		if err != nil {
			t.Fatal(err)
		}
		// What was reached changes nothing.
		for range 2 {
			if err := d.check(at(tc.to), mine{endpoint: tc.own}); (err == nil) != tc.allowed {
				t.Errorf("%s, allow_private %t, to %s (own %t): %v, want allowed %t", tc.endpoint, tc.private, tc.to, tc.own, err, tc.allowed)
			}
		}
	}
}

func TestNumbersAreNoHosts(t *testing.T) {
	base := &url.URL{Scheme: "https", Host: "registry.example.com"}
	d, err := New(base, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"2130706433", "0x7f.1", "127.1", "0177.0.0.1", "0x7f000001", "1.1.1.1", "localhost", "a.localhost"} {
		if err := d.Vet(&url.URL{Scheme: "https", Host: host}); err == nil {
			t.Errorf("a redirect to %s is followed", host)
		}
	}
	for _, host := range []string{"cdn.example.com", "1password.com", "b2.example"} {
		if err := d.Vet(&url.URL{Scheme: "https", Host: host}); err != nil {
			t.Errorf("a redirect to %s: %v", host, err)
		}
	}
}
