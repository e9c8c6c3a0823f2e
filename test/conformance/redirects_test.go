package conformance

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/upstream"
	"forebay/upstream/auth"
)

// The account of tests with credentials.
const (
	account  = "acme"
	password = "dckr_pat_conformance-SECRET"
)

// internet answers names as the real one would: with public addresses.
func internet(_ context.Context, _, host string) ([]netip.Addr, error) {
	switch host {
	case "metadata.attacker.example":
		return []netip.Addr{netip.MustParseAddr("169.254.169.254")}, nil
	case "intranet.attacker.example":
		return []netip.Addr{netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("127.0.0.1")}, nil
	case "localhost":
		return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	return []netip.Addr{netip.MustParseAddr("198.51.100.7")}, nil
}

// public starts a hub under the names of production, with certificates and public
// addresses, and a mirror with an account there.
func public(t *testing.T, ho hubtest.Options, change func(*upstream.Options)) (*hubtest.Hub, *mirrortest.Mirror, *client) {
	t.Helper()
	t.Parallel()
	ho.Named = true
	hub := hubtest.New(t, ho)
	hub.AddUser(hubtest.User{Name: account, Secrets: []string{password}, Plan: hubtest.Unlimited()})
	uo := upstream.Options{Credentials: auth.Credentials{Username: account, Password: password}, Lookup: internet}
	if change != nil {
		change(&uo)
	}
	m := mirrortest.New(t, mirrortest.Options{
		Fallback:  proxy.FallbackNone,
		Upstreams: map[string]mirrortest.Upstream{"docker.io": {Hub: hub, Registry: uo}},
	})
	return hub, m, newClient(t)
}

// secretsOf are texts that must not be in any log, file or answer.
func secretsOf() []string {
	return []string{
		password, base64.StdEncoding.EncodeToString([]byte(account + ":" + password)), "verify=", "X-Amz-Signature", "X-Amz-Credential",
		"Key-Pair-Id", "Signature=", "Bearer ey", "eyJ",
	}
}

// M40 of docs/clients.md: redirects of a blob to everywhere. Nothing that is not public is
// asked, nobody but the registry and its token server sees a credential, and the client hears.
func TestM40_RedirectsToEverywhere(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"evil":            hubtest.RedirectTo(307, "{evil}/blob"),
		"evil 301":        hubtest.RedirectTo(301, "{evil}/blob"),
		"evil 303":        hubtest.RedirectTo(303, "{evil}/blob"),
		"evil user":       hubtest.RedirectTo(307, "https://user:secret@attacker.example/blob"),
		"evil fragment":   hubtest.RedirectTo(308, "{evil}/blob#fragment"),
		"scheme-relative": hubtest.RedirectTo(302, "//attacker.example/blob"),
		"downgrade":       hubtest.RedirectTo(307, "http://attacker.example/blob"),
		"ftp":             hubtest.RedirectTo(307, "ftp://attacker.example/blob"),
		"file":            hubtest.RedirectTo(307, "file:///etc/passwd"),
		"gopher":          hubtest.RedirectTo(307, "gopher://169.254.169.254/"),
		"other port":      hubtest.RedirectTo(307, "https://registry-1.docker.io:6443/blob"),
		"meta":            hubtest.RedirectTo(307, "{meta}/latest/meta-data/"),
		"meta https":      hubtest.RedirectTo(307, "https://169.254.169.254/latest/meta-data/"),
		"meta v6":         hubtest.RedirectTo(307, "http://[fd00:ec2::254]/latest/meta-data/"),
		"meta v6 https":   hubtest.RedirectTo(307, "https://[fd00:ec2::254]/latest/meta-data/"),
		"meta mapped":     hubtest.RedirectTo(307, "https://[::ffff:169.254.169.254]/"),
		"meta decimal":    hubtest.RedirectTo(307, "http://2852039166/"),
		"meta hex":        hubtest.RedirectTo(307, "http://0xa9fea9fe/"),
		"meta by name":    hubtest.RedirectTo(307, "https://metadata.attacker.example/"),
		"intranet":        hubtest.RedirectTo(307, "https://intranet.attacker.example/"),
		"zero":            hubtest.RedirectTo(307, "https://0.0.0.0/"),
		"loopback":        hubtest.RedirectTo(307, "https://127.0.0.1/"),
		"localhost":       hubtest.RedirectTo(307, "https://localhost:6443/api"),
		"private":         hubtest.RedirectTo(307, "https://10.0.0.1/"),
		"link-local":      hubtest.RedirectTo(307, "https://[fe80::1]/"),
		"nonsense":        hubtest.RedirectTo(307, "https://%zz/"),
		"empty":           hubtest.RedirectTo(307, ""),
		"nowhere":         hubtest.RedirectNowhere(307),
		"loop":            hubtest.RedirectLoop(307),
		"304":             hubtest.StatusEmpty(304),
		"300":             hubtest.RedirectTo(300, "{evil}/blob"),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := public(t, hubtest.Options{}, nil)
			img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
			other := hub.PushImage("acme/other", "latest", hubtest.ImageSpec{})
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob, When: withToken, Do: fault})
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Repo: "acme/other", When: withToken, Do: fault})
			defer hub.AssertAllFired(t)
			for _, path := range []string{
				"acme/app/blobs/" + img.Blobs()[0].Digest, "acme/app/blobs/" + img.Blobs()[1].Digest, "acme/other/manifests/latest",
				"acme/other/manifests/" + other.Digest, "acme/other/tags/list", "acme/other/referrers/" + other.Digest,
			} {
				if path == "acme/other/manifests/latest" {
					m.Restart() // what the blobs led to may have opened a breaker, which says nothing of other answers
				}
				for _, method := range []string{http.MethodGet, http.MethodHead} {
					a := c.ask(method, m.URL, "/v2/"+path)
					evilHead := method == http.MethodHead && strings.Contains(path, "/blobs/") // a size is all that evil can tell
					if a.Status < 400 && !evilHead {
						t.Errorf("%s: status %d (%.200s), want an error", a.request, a.Status, a.Body)
					}
					for _, s := range append(secretsOf(), "169.254", "attacker", "user:secret") {
						if strings.Contains(string(a.Body), s) {
							t.Errorf("%s: the error tells %q: %s", a.request, s, a.Body)
						}
					}
				}
			}
			hub.AssertNoLeaks(t)
			for addr := range hub.Counters().EgressDenied {
				if !strings.HasPrefix(addr, "registry-1.docker.io:") && !strings.HasPrefix(addr, "attacker.example:") {
					t.Errorf("%s was dialled", addr)
				}
			}
			m.AssertNoSecret(t, secretsOf()...)
		})
	}
}

// M40: chains of redirects end, short ones well and long ones with an error.
func TestM40_RedirectChains(t *testing.T) {
	t.Parallel()
	for n, works := range map[int]bool{1: true, 2: true, 11: false} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			hub, m, c := public(t, hubtest.Options{}, nil)
			img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
			hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.RedirectChain(n, 307)})
			d := img.Blobs()[0]
			a := c.get(m.URL, "/v2/acme/app/blobs/"+d.Digest)
			if works {
				a.assertBlob(t, d.Digest, hub.Bytes(d.Digest))
			} else if a.Status < 500 {
				t.Errorf("%s: status %d, want a 5xx", a.request, a.Status)
			}
			hub.AssertClean(t)
		})
	}
}

// M40: a registry, or whoever answers for it, that names another token server
// gets no credential there.
func TestM40_RealmsOfOthers(t *testing.T) {
	t.Parallel()
	bearer := func(realm string) string {
		return `Bearer realm="` + realm + `",service="registry.docker.io",scope="repository:acme/app:pull"`
	}
	itself := []string{"basic", "two", "relative"} // which the registry itself gets the password by
	for name, fault := range map[string]hubtest.Fault{
		"evil":             hubtest.ChallengeTo("{evil}/token"),
		"evil http":        hubtest.ChallengeTo("http://attacker.example/token"),
		"auth over http":   hubtest.ChallengeTo("http://auth.docker.io/token"),
		"auth on a port":   hubtest.ChallengeTo("https://auth.docker.io:8443/token"),
		"sibling":          hubtest.ChallengeTo("https://evil.docker.io/token"),
		"suffix":           hubtest.ChallengeTo("https://auth.docker.io.attacker.example/token"),
		"user":             hubtest.ChallengeTo("https://auth.docker.io@attacker.example/token"),
		"with user":        hubtest.ChallengeTo("https://user:secret@auth.docker.io/token"),
		"meta":             hubtest.ChallengeTo("{meta}/latest/meta-data/iam"),
		"address":          hubtest.ChallengeTo("https://127.0.0.1/token"),
		"relative":         hubtest.ChallengeTo("/token"),
		"no realm":         hubtest.Challenge(`Bearer service="registry.docker.io"`),
		"empty realm":      hubtest.Challenge(bearer("")),
		"8 KiB":            hubtest.Challenge(bearer("{evil}/" + strings.Repeat("a", 8<<10))),
		"basic":            hubtest.Challenge(`Basic realm="anything"`),
		"two":              hubtest.Challenge(bearer("{evil}/token"), `Basic realm="anything"`),
		"negotiate":        hubtest.Challenge(`Negotiate`, `NTLM`),
		"unclosed quote":   hubtest.Challenge(`Bearer realm="{evil}/token`),
		"query":            hubtest.ChallengeTo("{evil}/token?service=registry.docker.io&scope=x"),
		"redirect at auth": hubtest.Pass(),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := public(t, hubtest.Options{}, nil)
			img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
			var basic atomic.Int64 // credentials that the registry itself was sent
			hub.AddRule(hubtest.Rule{Do: hubtest.Pass(), Count: 1, From: 1 << 30, When: func(s *hubtest.State) bool {
				if s.Role == hubtest.RoleRegistry && strings.HasPrefix(s.Request.Header.Get("Authorization"), "Basic ") {
					basic.Add(1)
				}
				return true
			}})
			if name == "redirect at auth" {
				hub.AddRule(hubtest.Rule{Role: hubtest.RoleAuth, Do: hubtest.RedirectTo(307, "{evil}/token")})
			}
			struck := hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: fault})
			for _, path := range []string{"manifests/latest", "blobs/" + img.Blobs()[0].Digest, "tags/list"} {
				if a := c.get(m.URL, "/v2/acme/app/"+path); a.Status < 400 && name != "basic" && name != "two" {
					t.Errorf("%s: status %d, though no token can be had", a.request, a.Status)
				}
			}
			if struck.Fired() == 0 {
				t.Errorf("the registry was not asked")
			}
			hub.AssertNoLeaks(t)
			if n := basic.Load(); n > 0 && !slices.Contains(itself, name) {
				t.Errorf("the registry was sent the password %d times", n)
			}
			m.AssertNoSecret(t, secretsOf()...)
		})
	}
}

// M40: a CDN that asks for credentials of its own gets none.
func TestM40_CDNWithAChallenge(t *testing.T) {
	hub, m, c := public(t, hubtest.Options{}, nil)
	img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
	hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.NewAuth()})
	if a := c.get(m.URL, "/v2/acme/app/blobs/"+img.Blobs()[0].Digest); a.Status < 500 {
		t.Errorf("%s: status %d, want a 5xx", a.request, a.Status)
	}
	hub.AssertClean(t)
}

// M41: a redirect to a subdomain or to another port of the registry carries no
// credential, where net/http would send it along.
func TestM41_SubdomainAndOtherPort(t *testing.T) {
	t.Parallel()
	for _, role := range []hubtest.Role{hubtest.RoleSub, hubtest.RoleAlt, hubtest.RoleCF, hubtest.RoleR2, hubtest.RoleCFR} {
		t.Run(string(role), func(t *testing.T) {
			hub, m, c := public(t, hubtest.Options{CDN: string(role)}, nil)
			hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
			img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{LayerSize: 2 << 20})
			pull(t, c, m, hub, img)
			hub.AssertClean(t)
			m.AssertNoSecret(t, secretsOf()...)
		})
	}
}

// M42: what is sent upstream is made here and nowhere else.
func TestM42_RequestsAreOurOwn(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
	hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Count: 1, Do: hubtest.Drop(20, hubtest.FIN)})
	for _, r := range resources(t, hub, img) {
		r.assert(t, c.get(m.URL, "/v2/library/app/"+r.path+"?ns=docker.io&x=y", "Accept: application/json", "Accept-Language: en", "X-Mine: yes",
			"User-Agent: "+agentContainerd, "Accept-Encoding: gzip", "Cache-Control: no-cache", "Pragma: no-cache", "If-Modified-Since: x", "Connection: close",
			"Accept: */*", "Range: items=1-2"))
	}
	n := hub.Counters()
	for agent := range n.UserAgent {
		if agent == "" || strings.Contains(agent, "containerd") || strings.HasPrefix(agent, "Go-http-client") {
			t.Errorf("upstream saw the User-Agent %q", agent)
		}
	}
	for enc := range n.AcceptEncoding {
		if enc != "identity" {
			t.Errorf("upstream saw Accept-Encoding %q", enc)
		}
	}
	for _, kind := range []string{hubtest.OCIIndex, hubtest.OCIManifest, hubtest.DockerList, hubtest.DockerManifest} {
		for accept := range n.Accept {
			if accept != "" && strings.Contains(accept, "manifest") && !strings.Contains(accept, kind) {
				t.Errorf("upstream saw Accept %q, which lacks %s", accept, kind)
			}
		}
	}
}

// M15, M16, M43: whole images through registries that are not Docker Hub, each with its
// own way of tokens, redirects and paths.
func TestM15_M16_M43_OtherRegistries(t *testing.T) {
	t.Parallel()
	for _, profile := range []hubtest.Profile{
		hubtest.Plain, hubtest.GHCR, hubtest.Quay, hubtest.GAR, hubtest.K8s, hubtest.ECR, hubtest.ECRPublic, hubtest.MCR, hubtest.ACR, hubtest.GitLab,
	} {
		t.Run(string(profile), func(t *testing.T) {
			t.Parallel()
			hub := hubtest.New(t, hubtest.Options{Profile: profile})
			hub.AddUser(hubtest.User{Name: account, Secrets: []string{password}, Plan: hubtest.Unlimited()})
			var uo upstream.Options
			if profile == hubtest.ECR {
				uo.Credentials = auth.Credentials{Username: account, Password: password}
			}
			m := mirrortest.New(t, mirrortest.Options{Upstreams: map[string]mirrortest.Upstream{"reg.example": {Hub: hub, Registry: uo}}})
			c := newClient(t)
			for _, s := range samples() {
				img := hub.PushImage("team/"+s.name, "latest", s.spec)
				for _, r := range resources(t, hub, img) {
					r.assertBoth(t, c, m.URL, "/v2/reg.example/team/"+s.name+"/"+r.path)
				}
				c.get(m.URL, "/v2/reg.example/team/"+s.name+"/tags/list").tags(t)
			}
			large := hub.PushImage("team/large", "latest", hubtest.ImageSpec{LayerSize: 12 << 20, Layers: 1})
			for _, r := range resources(t, hub, large) {
				r.assert(t, c.get(m.URL, "/v2/team/large/"+r.path+"?ns=reg.example"))
			}
			hub.ExpireTokens()
			after := hub.PushImage("team/after", "latest", hubtest.ImageSpec{})
			for _, r := range resources(t, hub, after) {
				r.assert(t, c.get(m.URL, "/v2/team/after/"+r.path+"?ns=reg.example"))
			}
			for _, path := range []string{"manifests/latest", "tags/list"} {
				a := c.get(m.URL, "/v2/reg.example/team/nowhere/"+path)
				if a.Status != http.StatusNotFound && a.Status != http.StatusForbidden {
					t.Errorf("%s: status %d, want 404 or 403", a.request, a.Status)
				}
			}
			hub.AssertClean(t)
			m.AssertNoSecret(t, secretsOf()...)
		})
	}
}

// M44: a name that leads to a public address when it is looked at and to another when it is
// dialled: the address that counts is the one that is dialled, on every hop.
func TestM44_Rebinding(t *testing.T) {
	t.Parallel()
	for _, second := range []string{"169.254.169.254", "127.0.0.1", "10.0.0.1", "::ffff:169.254.169.254", "fd00:ec2::254", "0.0.0.0"} {
		t.Run(second, func(t *testing.T) {
			var lookups atomic.Int64
			hub, m, c := public(t, hubtest.Options{}, func(o *upstream.Options) {
				o.Lookup = func(ctx context.Context, network, host string) ([]netip.Addr, error) {
					if host == "attacker.example" && lookups.Add(1) > 1 {
						return []netip.Addr{netip.MustParseAddr(second)}, nil
					}
					return internet(ctx, network, host)
				}
			})
			img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob, When: withToken, Do: hubtest.RedirectTo(307, "{evil}/blob")})
			for _, d := range img.Blobs() {
				if a := c.get(m.URL, "/v2/acme/app/blobs/"+d.Digest); a.Status < 400 {
					t.Errorf("%s: status %d, want an error", a.request, a.Status)
				}
				hub.DropConnections(hubtest.RoleEvil)
			}
			if n := hub.Counters().Conns[hubtest.RoleEvil]; n > 1 {
				t.Errorf("%d connections to the name, of which only the first had a public address", n)
			}
			hub.AssertNoLeaks(t)
		})
	}
}

// M45: signed URLs, tokens and passwords are in no log, no file and no answer, whatever
// goes wrong with them.
func TestM45_SecretsStayInside(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"well": hubtest.Pass(), "500": hubtest.Status(500), "403": hubtest.Status(403), "closed": hubtest.NoReply(hubtest.RST),
		"dropped": hubtest.Drop(30, hubtest.RST), "hangs": hubtest.Hang(), "wrong": hubtest.Corrupt(-1), "not HTTP": hubtest.RawCL("x"),
		"on": hubtest.RedirectTo(307, "{evil}/again?token=eyJzdG9sZW4"), "to no URL": hubtest.RedirectTo(307, "https://%zz/?X-Amz-Signature=1"),
		"echo": hubtest.Edit("echo", func(r *http.Request, a *hubtest.Reply) {
			a.Status = http.StatusBadRequest
			a.Header.Set("Content-Type", "text/plain")
			a.SetBody([]byte("you sent " + r.URL.String() + " with " + r.Header.Get("Authorization")))
		}),
	} {
		for _, where := range []hubtest.Role{hubtest.CDN, hubtest.RoleRegistry, hubtest.RoleAuth} {
			t.Run(name+" at "+string(where), func(t *testing.T) {
				hub, m, c := public(t, hubtest.Options{}, func(o *upstream.Options) { o.Timeouts = patienceFor(name).Timeouts })
				hub.AddRepo("acme/app", hubtest.RepoOpts{Private: true})
				img := hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
				large := hub.PutBlob("acme/app", letters(45, 2<<20))
				hub.AddRule(hubtest.Rule{Role: where, When: withToken, Do: fault})
				for _, path := range []string{"manifests/latest", "manifests/" + img.Digest, "blobs/" + img.Blobs()[0].Digest, "blobs/" + large, "tags/list", "referrers/" + img.Digest} {
					a, err := c.loose(t.Context(), m.URL, "/v2/acme/app/"+path)
					if err != nil {
						t.Errorf("%s: %s", path, err)
						continue
					}
					for _, s := range secretsOf() {
						if a.Status >= 400 && strings.Contains(string(a.Body), s) || strings.Contains(fmt.Sprint(a.Header), s) {
							t.Errorf("%s: the answer holds %q: %.300s", path, s, a.Body)
						}
					}
				}
				hub.AssertNoLeaks(t)
				m.AssertNoSecret(t, secretsOf()...)
			})
		}
	}
}

// M41, M50 for a registry in house: its own private address may lead to private ones, but
// not to those that are never anybody's.
func TestM40_PrivateRegistries(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
	pull(t, c, m, hub, img) // redirects from 127.0.0.2 to 127.0.0.4 and others
	for _, target := range []string{"http://169.254.169.254/", "http://[fe80::1]/", "http://0.0.0.0/", "http://[fd00:ec2::254]/", "http://100.100.100.200/"} {
		rule := hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteBlob, When: withToken, Do: hubtest.RedirectTo(307, target)})
		digest := hub.PutBlob("library/app", []byte(target))
		start := time.Now()
		if a := c.get(m.URL, "/v2/library/app/blobs/"+digest); a.Status < 400 {
			t.Errorf("redirect to %s: status %d, want an error", target, a.Status)
		}
		if took := time.Since(start); took > atOnce {
			t.Errorf("redirect to %s: took %s", target, took)
		}
		rule.Remove()
	}
}

// A foreign layer is fetched from a URL of its manifest where the registry has it not, from listed
// hosts only, with an anonymous token, and it is right or nothing.
func TestForeignLayers(t *testing.T) {
	base := letters(77, 300_000)
	setup := func(t *testing.T, hosts func(registry string) []string) (*hubtest.Hub, *mirrortest.Mirror, *client, string) {
		t.Helper()
		hub := hubtest.New(t, hubtest.Options{})
		t.Cleanup(func() { hub.AssertClean(t) })
		registry := hub.RegistryURL()
		u, err := url.Parse(registry)
		if err != nil {
			t.Fatal(err)
		}
		m := mirrortest.New(t, calm(mirrortest.Options{Hub: hub, Upstreams: map[string]mirrortest.Upstream{
			"docker.io": {Hub: hub, Registry: upstream.Options{ForeignHosts: hosts(u.Host)}}}}))
		digest := hub.PutBlob("windows/servercore", base)
		raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"size":0,"digest":%q},"layers":[{"mediaType":%q,"size":%d,"digest":%q,"urls":[%q,%q]}]}`,
			hubtest.DockerManifest, hubtest.DockerConfig, hubtest.Digest(nil), hubtest.DockerForeign, len(base), digest,
			"https://user:word@nowhere.example/layer", registry+"/v2/windows/servercore/blobs/"+digest)
		for _, repo := range []string{"library/app", "library/other"} {
			hub.PutManifest(repo, "latest", hubtest.DockerManifest, raw)
		}
		return hub, m, newClient(t), digest
	}
	listed := func(registry string) []string { return []string{"nowhere.example", registry} }
	none := func(string) []string { return nil }
	const manifest, blob = "/v2/library/app/manifests/latest", "/v2/library/app/blobs/"

	t.Run("listed", func(t *testing.T) {
		hub, m, c, digest := setup(t, listed)
		c.get(m.URL, blob+digest).assertError(t, http.StatusNotFound, "BLOB_UNKNOWN") // no manifest was seen that names it
		m.Restart()
		c.get(m.URL, manifest)
		part := c.get(m.URL, blob+digest, "Range: bytes=1000-1999")
		if part.Status != http.StatusPartialContent || !bytes.Equal(part.Body, base[1000:2000]) {
			t.Errorf("%s: status %d, %d bytes; want that piece", part.request, part.Status, len(part.Body))
		}
		c.get(m.URL, blob+digest).assertBlob(t, digest, base)
		c.get(m.URL, "/v2/library/other/manifests/latest")
		c.get(m.URL, "/v2/library/other/blobs/"+digest).assertBlob(t, digest, base)
		hub.Close()
		c.get(m.URL, blob+digest).assertBlob(t, digest, base)
	})
	t.Run("after a restart", func(t *testing.T) {
		_, m, c, digest := setup(t, listed)
		c.get(m.URL, manifest)
		m.Restart()
		c.get(m.URL, manifest)
		c.get(m.URL, blob+digest).assertBlob(t, digest, base)
	})
	t.Run("first after a restart", func(t *testing.T) {
		_, m, c, digest := setup(t, listed)
		c.get(m.URL, manifest)
		m.Restart()
		c.get(m.URL, "/v2/library/other/blobs/"+digest).assertError(t, http.StatusNotFound, "BLOB_UNKNOWN") // of which none is kept
		c.get(m.URL, blob+digest).assertBlob(t, digest, base)
	})
	for name, hosts := range map[string]func(string) []string{"none listed": none, "another listed": func(string) []string { return []string{"other.example"} }} {
		t.Run(name, func(t *testing.T) {
			hub, m, c, digest := setup(t, hosts)
			c.get(m.URL, manifest)
			c.get(m.URL, blob+digest).assertError(t, http.StatusNotFound, "BLOB_UNKNOWN")
			if n := hub.Count(hubtest.Query{Repo: "windows/servercore"}); n != 0 {
				t.Errorf("%d requests for what no configuration allows", n)
			}
		})
	}
	t.Run("wrong bytes there", func(t *testing.T) {
		hub, m, c, digest := setup(t, listed)
		hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.Corrupt(5)})
		c.get(m.URL, manifest)
		if a := c.get(m.URL, blob+digest); a.Status < 400 && bytes.Equal(a.Body, base) {
			t.Errorf("%s: status %d and whole", a.request, a.Status)
		}
	})
}
