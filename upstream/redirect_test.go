package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/test/hubtest"
	"forebay/upstream/auth"
	"forebay/upstream/dial"
)

// aBlob puts a blob of 100 KiB into a repository of the hub.
func aBlob(t *testing.T, hub *hubtest.Hub) (v1.Hash, []byte) {
	t.Helper()
	text := hub.PutVirtualBlob("library/alpine", 7, 100<<10)
	return digest(t, text), hub.Bytes(text)
}

// public answers look-ups so that the roles of a named hub seem to be on public addresses.
func public(hub *hubtest.Hub) {
	for n, role := range []hubtest.Role{
		hubtest.RoleRegistry, hubtest.RoleAuth, hubtest.RoleCF, hubtest.RoleR2, hubtest.RoleCFR, hubtest.RoleEvil, hubtest.RoleSub,
	} {
		u, err := url.Parse(hub.URL(role))
		if err != nil {
			panic(err)
		}
		hub.SetAddrs(u.Hostname(), []netip.Addr{netip.AddrFrom4([4]byte{203, 0, 113, byte(n + 1)})})
	}
}

func TestM40RedirectTargets(t *testing.T) {
	tests := []struct {
		location string
		want     pull.Kind // of the error; -1 for success
		evil     bool      // the target may be visited, without credentials
	}{
		{"{cdn-cf}{signed}", ok, false},
		{"{cdn-alt}{signed}", ok, false}, // same host, other port
		{"{cdn-sub}{signed}", ok, false}, // subdomain
		{"{evil}/blob", ok, true},        // gives other bytes; whoever keeps them checks
		{"//attacker.example/blob", ok, true},
		{"https://user:secret@attacker.example/blob", pull.Invalid, false},
		{"{evil}/blob#part", ok, true},                             // a fragment is never sent
		{"http://attacker.example/blob", pull.Invalid, false},      // downgrade
		{"http://registry-1.docker.io/blob", pull.NotFound, false}, // asked for with https
		{"ftp://attacker.example/blob", pull.Invalid, false},
		{"file:///etc/passwd", pull.Invalid, false},
		{"javascript:alert(1)", pull.Invalid, false},
		{"https://169.254.169.254/latest/meta-data/", pull.Invalid, false},
		{"http://169.254.169.254/latest/meta-data/", pull.Invalid, false},
		{"https://[fd00:ec2::254]/", pull.Invalid, false},
		{"https://[fd00:ec2::254%25eth0]/", pull.Invalid, false},
		{"https://[::ffff:169.254.169.254]/", pull.Invalid, false},
		{"https://[64:ff9b::a9fe:a9fe]/", pull.Invalid, false},
		{"https://2852039166/", pull.Invalid, false}, // decimal: a name for some, an address for others
		{"https://0.0.0.0/", pull.Invalid, false},
		{"https://[::]/", pull.Invalid, false},
		{"https://127.0.0.1/", pull.Invalid, false},
		{"https://10.0.0.1/", pull.Invalid, false},
		{"https://localhost/", pull.Invalid, false},
		{"https://203.0.113.9/", pull.Invalid, false}, // an address in place of a name
		{"https://metadata.example/", pull.Invalid, false},
		{"https://intranet.example/", pull.Invalid, false},
		{"https://rebinding.example/", pull.Unavailable, false},
		{"https://", pull.Invalid, false},
		{"https:///blob", pull.Invalid, false},
		{"%zz", pull.Invalid, false},
		{"", pull.Invalid, false},
	}
	for _, test := range tests {
		t.Run(test.location, func(t *testing.T) {
			hub := hubtest.New(t, hubtest.Options{Named: true})
			public(hub)
			hub.SetAddrs("metadata.example", []netip.Addr{netip.MustParseAddr("169.254.169.254")})
			hub.SetAddrs("intranet.example", []netip.Addr{netip.MustParseAddr("192.168.1.1")})
			hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
			o := hubOptions(hub)
			o.Lookup = hub.LookupNetIP
			o.Credentials = auth.Credentials{Username: "acme", Password: "secret"}
			r := newRegistry(t, o)
			d, want := aBlob(t, hub)
			hub.AddRule(hubtest.Rule{
				Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob, When: bearer,
				Do: hubtest.RedirectTo(http.StatusTemporaryRedirect, test.location),
			})
			_, got, err := readBlob(t.Context(), r, "library/alpine", d, 0, -1)
			switch {
			case test.want != ok:
				wantKind(t, "OpenBlob", err, test.want)
			case err != nil:
				t.Errorf("OpenBlob: %v", err)
			case bytes.Equal(got, want) == test.evil:
				t.Errorf("OpenBlob gives %d bytes; the blob's: %v", len(got), !test.evil)
			}
			hub.AssertAllFired(t)
			if test.evil {
				hub.AssertNoLeaks(t)
				return
			}
			noEgress(t, hub, "2852039166", "rebinding.example")
		})
	}
}

// ok is the kind of no error.
const ok = pull.Kind(255)

func bearer(s *hubtest.State) bool { return s.Bearer }

// noEgress is AssertClean but for dials of the hosts that are meant to be unknown.
func noEgress(t *testing.T, hub *hubtest.Hub, unknown ...string) {
	t.Helper()
	hub.AssertNoLeaks(t)
	c := hub.Counters()
	if c.EvilHits != 0 {
		t.Errorf("evil_hits = %d, want 0", c.EvilHits)
	}
	for addr, n := range c.EgressDenied {
		known := false
		for _, host := range unknown {
			known = known || strings.HasPrefix(addr, host+":")
		}
		if !known {
			t.Errorf("egress_denied{%s} = %d, want 0", addr, n)
		}
	}
}

func TestRedirectStatuses(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		hub, r := newHub(t, hubtest.Options{})
		d, want := aBlob(t, hub)
		hub.AddRule(hubtest.Rule{
			Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob, When: bearer,
			Do: hubtest.RedirectTo(status, "{cdn-cf}{signed}"),
		})
		wantBlob(t, r, "library/alpine", d, want)
		if size, err := r.StatBlob(t.Context(), "library/alpine", d); err != nil || size != int64(len(want)) {
			t.Errorf("StatBlob through %d = %d, %v; want %d", status, size, err, len(want))
		}
		hub.AssertClean(t)
	}
}

func TestRedirectsAreBounded(t *testing.T) {
	tests := []struct {
		name string
		role hubtest.Role
		do   hubtest.Fault
		want pull.Kind
		hops int // at the CDN
	}{
		{"chain of 4 and the blob", hubtest.CDN, hubtest.RedirectChain(4, 307), ok, 5},
		{"chain of 11", hubtest.CDN, hubtest.RedirectChain(11, 307), pull.Invalid, 5},
		{"loop", hubtest.CDN, hubtest.RedirectLoop(302), pull.Invalid, 5},
		{"nowhere", hubtest.RoleRegistry, hubtest.RedirectNowhere(307), pull.Invalid, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			hub, r := newHub(t, hubtest.Options{CDN: string(hubtest.RoleCF)})
			d, _ := aBlob(t, hub)
			hub.AddRule(hubtest.Rule{Role: test.role, Route: hubtest.RouteBlob, Do: test.do})
			_, _, err := readBlob(t.Context(), r, "library/alpine", d, 0, -1)
			if test.want != ok {
				wantKind(t, "OpenBlob", err, test.want)
			} else if err != nil {
				t.Errorf("OpenBlob: %v", err)
			}
			if n := hub.Count(hubtest.Query{Role: hubtest.CDN}); n != test.hops {
				t.Errorf("CDN saw %d requests, want %d", n, test.hops)
			}
			hub.AssertClean(t)
		})
	}
}

func TestM41NoCredentialsToSubdomainOrOtherPort(t *testing.T) {
	for _, role := range []hubtest.Role{hubtest.RoleAlt, hubtest.RoleSub, hubtest.RoleCF, hubtest.RoleR2, hubtest.RoleCFR} {
		for _, named := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s named %v", role, named), func(t *testing.T) {
				hub, r := newHub(t, hubtest.Options{Named: named})
				d, want := aBlob(t, hub)
				hub.AddRule(hubtest.Rule{
					Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob, When: bearer,
					Do: hubtest.RedirectCDN(http.StatusTemporaryRedirect, role),
				})
				wantBlob(t, r, "library/alpine", d, want)
				hub.AssertAllFired(t)
				hub.AssertClean(t) // counts what a CDN got of credentials
			})
		}
	}
}

func TestM42OnlyOurHeadersAreSent(t *testing.T) {
	seen := make(chan *http.Request, 10)
	r := serve(t, func(w http.ResponseWriter, req *http.Request) {
		seen <- req
		if strings.Contains(req.URL.Path, "/blobs/") {
			w.Header().Set("Set-Cookie", "session=1")
			http.Redirect(w, req, "/elsewhere", http.StatusFound)
			return
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
		fmt.Fprint(w, `{"schemaVersion":2,"manifests":[]}`)
	})
	if _, _, err := r.Manifest(t.Context(), "a/b", "latest"); err != nil {
		t.Fatalf("Manifest: %v", err)
	}
	if _, _, err := readBlob(t.Context(), r, "a/b", digestOf("", nil), 5, 10); err != nil {
		t.Fatalf("OpenBlob: %v", err)
	}
	close(seen)
	want := []http.Header{
		{"User-Agent": {"forebay"}, "Accept-Encoding": {"identity"}, "Accept": {acceptManifests + ", */*"}},
		{"User-Agent": {"forebay"}, "Accept-Encoding": {"identity"}, "Range": {"bytes=5-9"}},
		{"User-Agent": {"forebay"}, "Accept-Encoding": {"identity"}, "Range": {"bytes=5-9"}},
	}
	for n := 0; len(seen) > 0; n++ {
		req := <-seen
		if fmt.Sprint(req.Header) != fmt.Sprint(want[n]) || req.URL.RawQuery != "" {
			t.Errorf("request %d (%s) has headers %v, want %v", n, req.URL, req.Header, want[n])
		}
	}
}

func TestM43OddLocations(t *testing.T) {
	body := []byte("the blob")
	d := digestOf("", body)
	const signed = "?sig=a%2Fb%3D&x=//..;+"
	tests := []struct {
		location string
		status   int
		path     string // request URI that must arrive
	}{
		{"/artifacts-downloads/namespaces/x" + signed, 302, "/artifacts-downloads/namespaces/x" + signed},
		{"/acct-id//docker/registry/v2/blobs/./a/../b" + signed, 307, "/acct-id//docker/registry/v2/blobs/./a/../b" + signed},
		{"HOST//two//slashes" + signed, 302, "//two//slashes" + signed},
		{"/with%2Fslash%20and%7Etilde" + signed, 302, "/with%2Fslash%20and%7Etilde" + signed},
		{"SCHEMERELATIVE/x" + signed, 302, "/x" + signed},
		{"../x" + signed, 302, "/v2/a/x" + signed},
		{"?only=query", 302, "/v2/a/blobs/" + d.String() + "?only=query"},
	}
	for _, test := range tests {
		t.Run(test.location, func(t *testing.T) {
			var uris []string
			r := serve(t, func(w http.ResponseWriter, req *http.Request) {
				uris = append(uris, req.RequestURI)
				if len(uris) > 1 {
					w.Write(body)
					return
				}
				location := strings.Replace(test.location, "HOST", "http://"+req.Host, 1)
				w.Header().Set("Location", strings.Replace(location, "SCHEMERELATIVE", "//"+req.Host, 1))
				w.Header().Set("Content-Type", "text/html")
				w.WriteHeader(test.status)
				fmt.Fprint(w, "<html>moved</html>") // as quay.io does
			})
			wantBlob(t, r, "a", d, body)
			if len(uris) != 2 || uris[1] != test.path {
				t.Errorf("server saw %q, want the second to be %q", uris, test.path)
			}
		})
	}
}

func TestM43ManifestRedirect(t *testing.T) {
	hub, _ := newHub(t, hubtest.Options{})
	img := hub.PushImage("library/alpine", "latest", hubtest.ImageSpec{})
	target := serve(t, func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "/missing") {
			http.NotFound(w, req)
			return
		}
		w.Header().Set("Content-Type", img.MediaType)
		w.Header().Set(digestHeader, img.Digest)
		w.Write(img.Raw)
	})
	to := target.endpoints[0].base.String()
	r := serve(t, func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, to+req.URL.Path, http.StatusTemporaryRedirect)
	})
	if desc, err := r.Resolve(t.Context(), "pause", "3.9"); err != nil || desc.Digest.String() != img.Digest {
		t.Errorf("Resolve = %+v, %v; want %s", desc, err, img.Digest)
	}
	if desc, raw, err := r.Manifest(t.Context(), "pause", "3.9"); err != nil || desc.Digest.String() != img.Digest || !bytes.Equal(raw, img.Raw) {
		t.Errorf("Manifest = %+v, %v; want %s", desc, err, img.Digest)
	}
	_, _, err := r.Manifest(t.Context(), "pause", "missing")
	wantKind(t, "Manifest of what the target does not have", err, pull.NotFound)
}

func TestM44AddressIsCheckedAtEachDial(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Named: true, CDN: string(hubtest.RoleCF)})
	public(hub)
	good := netip.MustParseAddr("203.0.113.3")
	bad := netip.MustParseAddr("127.0.0.1")
	hub.SetAddrs("production.cloudflare.docker.com", []netip.Addr{good}, []netip.Addr{bad})
	o := hubOptions(hub)
	o.Lookup = hub.LookupNetIP
	r := newRegistry(t, o)
	d, want := aBlob(t, hub)
	wantBlob(t, r, "library/alpine", d, want)
	r.endpoints[0].transport.CloseIdleConnections() // the next one dials, and the name has moved
	_, _, err := readBlob(t.Context(), r, "library/alpine", d, 0, -1)
	wantKind(t, "OpenBlob after rebinding", err, pull.Invalid)
	if !errors.Is(err, dial.ErrRefused) {
		t.Errorf("error is %v, want a refused address", err)
	}
	hub.AssertClean(t)
}

func TestPrivateRegistryMayRedirectToPrivateAddresses(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Named: true})
	public(hub)
	cdn := []netip.Addr{netip.MustParseAddr("10.1.2.3")}
	for _, host := range []string{"production.cloudflare.docker.com", "production.cloudfront.docker.com", "docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com"} {
		hub.SetAddrs(host, cdn)
	}
	d, want := aBlob(t, hub)
	o := hubOptions(hub)
	o.Lookup = hub.LookupNetIP
	_, _, err := readBlob(t.Context(), newRegistry(t, o), "library/alpine", d, 0, -1)
	wantKind(t, "OpenBlob of a public registry with private storage", err, pull.Invalid)

	o.AllowPrivate = true
	wantBlob(t, newRegistry(t, o), "library/alpine", d, want)

	// A public name that says to be private one day is not believed.
	o.AllowPrivate = false
	hub.SetAddrs("registry-1.docker.io", []netip.Addr{netip.MustParseAddr("10.0.0.1")})
	_, _, err = readBlob(t.Context(), newRegistry(t, o), "library/alpine", d, 0, -1)
	wantKind(t, "OpenBlob of a public registry at a private address", err, pull.Invalid)

	o.AllowPrivate = true
	hub.SetAddrs("production.cloudflare.docker.com", []netip.Addr{netip.MustParseAddr("169.254.169.254")})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob, When: bearer, Do: hubtest.RedirectCDN(307, hubtest.RoleCF)})
	_, _, err = readBlob(t.Context(), newRegistry(t, o), "library/alpine", d, 0, -1)
	wantKind(t, "OpenBlob of a private registry with storage at the metadata address", err, pull.Invalid)
	hub.AssertClean(t)
}

func TestM45SignedURLsAreNotTold(t *testing.T) {
	faults := map[string]hubtest.Fault{
		"refused":     hubtest.Status(http.StatusForbidden),
		"unavailable": hubtest.StatusHTML(http.StatusServiceUnavailable),
		"dropped":     hubtest.NoReply(hubtest.RST),
		"cut":         hubtest.Drop(1000, hubtest.RST),
		"loop":        hubtest.RedirectLoop(307),
		"bad header":  hubtest.ManyHeaders(20_000),
		"echo": hubtest.Edit("echo", func(req *http.Request, a *hubtest.Reply) {
			a.Status = http.StatusForbidden
			a.SetBody([]byte("no access to https://" + req.Host + req.RequestURI))
		}),
		"malformed": hubtest.Edit("malformed", func(req *http.Request, a *hubtest.Reply) {
			a.Status = http.StatusTemporaryRedirect
			a.Header["Location"] = []string{"https://" + req.Host + ":bad" + req.RequestURI}
		}),
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			hub := hubtest.New(t, hubtest.Options{})
			o := hubOptions(hub)
			core, logs := observer.New(zap.DebugLevel)
			o.Log = zap.New(core)
			r := newRegistry(t, o)
			d, _ := aBlob(t, hub)
			hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: fault})
			_, _, err := readBlob(t.Context(), r, "library/alpine", d, 0, -1)
			if err == nil {
				t.Fatal("OpenBlob and reading: no error")
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				wantNoSecrets(t, "error", fmt.Sprintf("%v %+v", e, e))
			}
			for _, line := range logs.All() {
				wantNoSecrets(t, "log", fmt.Sprint(line.Message, line.ContextMap()))
			}
			hub.AssertAllFired(t)
		})
	}
}

func TestM40TargetCannotAskForCredentials(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	hub.AddUser(hubtest.User{Name: "acme", Secrets: []string{"secret"}})
	r := newRegistry(t, trusting(hubOptions(hub), hub, "acme", "secret"))
	d, want := aBlob(t, hub)
	rule := hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.NewAuth()})
	_, _, err := readBlob(t.Context(), r, "library/alpine", d, 0, -1)
	e := wantKind(t, "OpenBlob", err, pull.Unavailable)
	if e.Status != http.StatusUnauthorized || !errors.Is(err, errTarget) {
		t.Errorf("error is %v, want a redirect target's 401", err)
	}
	if n := rule.Fired(); n != 3 {
		t.Errorf("CDN saw %d requests, want 3: each with a new signed URL", n)
	}
	hub.AssertClean(t)
	if n := hub.TokenRequests(); n != 1 {
		t.Errorf("hub saw %d token requests, want 1", n)
	}
	rule.Remove()
	wantBlob(t, r, "library/alpine", d, want)
}

func TestRefusedSignedURLIsAskedForAgain(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 410} {
		hub, r := newHub(t, hubtest.Options{})
		d, want := aBlob(t, hub)
		hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Count: 2, Do: hubtest.Status(status)})
		wantBlob(t, r, "library/alpine", d, want)
		hub.AssertAllFired(t)
	}
	hub, r := newHub(t, hubtest.Options{SignedTTL: -time.Minute})
	d, _ := aBlob(t, hub)
	_, _, err := readBlob(t.Context(), r, "library/alpine", d, 0, -1)
	wantKind(t, "OpenBlob with URLs that are expired from the start", err, pull.Unavailable)
}

func FuzzResolve(f *testing.F) {
	f.Add("//evil/x")
	f.Add("/a//b?c=d")
	f.Add("https://u:p@h:1/x#y")
	base := &url.URL{Scheme: "https", Host: "registry.test", Path: "/v2/a/blobs/x"}
	d, err := dial.New(base, dial.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, location string) {
		u, err := wire.Locate(base, location)
		if err != nil {
			return
		}
		if d.Vet(u) == nil && (u.Scheme != "https" || u.User != nil || u.Hostname() == "" || u.Fragment != "") {
			t.Errorf("Vet allows %q", location)
		}
	})
}
