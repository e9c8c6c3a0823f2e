package conformance

import (
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
	"forebay/upstream"
)

// guest is a client with the URL that it writes and the table by which it is answered
// (docs/clients.md, "What a client is told when something fails").
type guest struct {
	name   string
	agent  string
	shape  shape
	direct bool // has nobody else to ask
	image  bool // of containers/image, to which a 429 costs half a minute
}

func guests() []guest {
	s := shapes()
	ns, bare, prefix, both, root := s[0], s[1], s[2], s[3], s[4]
	return []guest{
		{"dockerd graph store", agentDocker, bare, false, false},
		{"dockerd graph store with a path", agentDocker, root, false, false},
		{"dockerd containerd store", agentDockerC8D, ns, false, false},
		{"containerd", agentContainerd, ns, false, false},
		{"containerd override_path", agentContainerd, both, false, false},
		{"BuildKit", agentBuildKit, ns, false, false},
		{"BuildKit path mirror", agentBuildKit, prefix, false, false},
		{"kaniko map", agentKaniko, prefix, false, false},
		{"podman", agentPodman, prefix, false, true},
		{"podman bare", agentPodman, bare, false, true},
		{"CRI-O", agentCRIO, prefix, false, true},
		{"Buildah", agentBuildah, prefix, false, true},
		{"skopeo through a mirror", agentSkopeo, bare, false, true},
		{"skopeo", agentSkopeo, prefix, true, false},
		{"crane", agentCrane, prefix, true, false},
		{"oras", agentORAS, prefix, true, false},
		{"Helm", agentHelm, prefix, true, false},
		{"regctl", agentRegctl, prefix, true, false},
		{"Renovate", agentRenovate, prefix, true, false},
	}
}

// trouble is an upstream that does not give what it is asked for.
type trouble struct {
	name     string
	repo     string // asked for; "" means library/app, which exists
	fault    hubtest.Fault
	manifest map[string]outcome
	blob     map[string]outcome
}

// outcome is what a class of clients is told.
type outcome struct {
	statuses []int
	code     string
}

func one(status int, code string) outcome { return outcome{[]int{status}, code} }

// Classes of clients in the table.
const (
	mirrored = "mirrored"
	image    = "containers/image"
	direct   = "direct"
)

// class returns the row of the table for g.
func (g guest) class() string {
	switch {
	case g.direct:
		return direct
	case g.image:
		return image
	default:
		return mirrored
	}
}

// table is that of docs/clients.md, "What a client is told when something fails".
func table() []trouble {
	unknownManifest, unknownBlob := one(404, "MANIFEST_UNKNOWN"), one(404, "BLOB_UNKNOWN")
	blobGone := map[string]outcome{mirrored: unknownBlob, image: unknownBlob, direct: unknownBlob}
	down := func(status ...int) (manifest, blob map[string]outcome) {
		return map[string]outcome{mirrored: one(503, "UNAVAILABLE"), image: one(503, "UNAVAILABLE"), direct: {status, "UNAVAILABLE"}},
			map[string]outcome{mirrored: unknownBlob, image: unknownBlob, direct: {status, "UNAVAILABLE"}}
	}
	denied := map[string]outcome{mirrored: unknownManifest, image: unknownManifest, direct: one(403, "DENIED")}
	deniedBlob := map[string]outcome{mirrored: unknownBlob, image: unknownBlob, direct: one(403, "DENIED")}
	limited := map[string]outcome{mirrored: one(429, "TOOMANYREQUESTS"), image: one(503, "TOOMANYREQUESTS"), direct: one(429, "TOOMANYREQUESTS")}
	limitedBlob := map[string]outcome{mirrored: unknownBlob, image: unknownBlob, direct: one(429, "TOOMANYREQUESTS")}
	list := []trouble{
		{"missing", "", hubtest.Status(404), map[string]outcome{mirrored: unknownManifest, image: unknownManifest, direct: unknownManifest}, blobGone},
		{"private", "library/private", hubtest.Pass(), denied, deniedBlob},
		{"no such repository", "library/nowhere", hubtest.Pass(), denied, deniedBlob},
		{"403", "", hubtest.Status(403), denied, deniedBlob},
		{"pull limit", "", hubtest.RateLimited(), limited, limitedBlob},
		{"abuse limit", "", hubtest.Abuse429(), limited, limitedBlob},
	}
	for name, fault := range map[string]hubtest.Fault{
		"500": hubtest.Status(500), "502": hubtest.StatusHTML(502), "503": hubtest.StatusEmpty(503), "504": hubtest.Status(504),
		"520": hubtest.StatusHTML(520), "closed": hubtest.NoReply(hubtest.FIN), "reset": hubtest.NoReply(hubtest.RST), "hangs": hubtest.Hang(),
	} {
		manifest, blob := down(502, 503, 504)
		list = append(list, trouble{name, "", fault, manifest, blob})
	}
	return list
}

func (o outcome) assert(t testing.TB, a *answer) {
	t.Helper()
	for _, status := range o.statuses {
		if a.Status == status {
			a.assertError(t, status, o.code)
			if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
				a.assertRetryAfter(t)
			}
			return
		}
	}
	t.Errorf("%s: status %d (%s), want %d %s", a.request, a.Status, a.Body, o.statuses, o.code)
}

// patienceFor are the options of an upstream that suffers a fault: short ones only where a
// test waits for its silence, since a busy machine is slow too.
func patienceFor(fault string) upstream.Options {
	if fault == "hangs" || fault == "slow headers" {
		return quick()
	}
	return upstream.Options{}
}

func quick() upstream.Options {
	return upstream.Options{
		Timeouts: upstream.Timeouts{FirstByte: 700 * time.Millisecond, Stall: 700 * time.Millisecond, Answer: 3 * time.Second},
		Retry:    upstream.Retry{Backoff: time.Millisecond, MaxBackoff: 3 * time.Millisecond},
	}
}

// T12, T28, T42: containerd#9206, distribution#3270, #3842 and others; measured waits of 51
// to 77 s. Every client gets, for every trouble, the status that makes it go on at once, or
// the truth if it has nowhere to go; and it gets it quickly.
func TestT12_T28_T42_StatusTable(t *testing.T) {
	t.Parallel()
	for _, tt := range table() {
		t.Run(tt.name, func(t *testing.T) {
			hub, m, _ := setupWith(t, hubtest.Options{}, mirrortest.Options{}, patienceFor(tt.name))
			img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
			hub.AddRepo("library/private", hubtest.RepoOpts{Private: true})
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: tt.fault})
			repo := tt.repo
			if repo == "" {
				repo = "library/app"
			}
			for _, kind := range []string{"manifests", "blobs"} {
				t.Run(kind, func(t *testing.T) {
					for _, g := range guests() {
						t.Run(g.name, func(t *testing.T) {
							t.Parallel()
							tt.visit(t, g, m, repo, img, kind == "blobs")
						})
					}
				})
			}
		})
	}
}

// visit asks as g for the manifests or the blobs of img in repo.
func (tt trouble) visit(t *testing.T, g guest, m *mirrortest.Mirror, repo string, img *hubtest.Image, blobs bool) {
	t.Helper()
	c, agent := newClient(t), "User-Agent: "+g.agent
	want, paths := tt.manifest[g.class()], []string{"manifests/latest", "manifests/" + img.Digest}
	if blobs {
		want, paths = tt.blob[g.class()], nil
		for _, d := range img.Blobs() {
			paths = append(paths, "blobs/"+d.Digest)
		}
	}
	for _, path := range paths {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := c.ask(method, m.URL, g.shape.path(repo, path), agent)
			want.assert(t, a)
			if a.Took > 20*time.Second { // what hangs takes 3 s
				t.Errorf("%s: answered after %s", a.request, a.Took)
			}
		}
	}
}

// T12 with fallback none: everybody is told the truth, in every shape.
func TestT12_FallbackNoneIsHonest(t *testing.T) {
	t.Parallel()
	for _, tt := range table() {
		t.Run(tt.name, func(t *testing.T) {
			hub, m, c := setupWith(t, hubtest.Options{}, mirrortest.Options{Fallback: proxy.FallbackNone}, patienceFor(tt.name))
			img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
			hub.AddRepo("library/private", hubtest.RepoOpts{Private: true})
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: tt.fault})
			repo := tt.repo
			if repo == "" {
				repo = "library/app"
			}
			for _, g := range guests() {
				tt.manifest[direct].assert(t, c.get(m.URL, g.shape.path(repo, "manifests/latest"), "User-Agent: "+g.agent))
				tt.blob[direct].assert(t, c.get(m.URL, g.shape.path(repo, "blobs/"+img.Blobs()[0].Digest), "User-Agent: "+g.agent))
			}
		})
	}
}

// T28b, T42: distribution#4477: a mirror must start, answer and recover when its upstream
// is not there, at the pace that the shipped defaults give it.
func TestT28b_T42_StartWithTheUpstreamDown(t *testing.T) {
	t.Parallel()
	hub := hubtest.New(t, hubtest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
	hub.SwitchOff()
	m := mirrortest.New(t, mirrortest.Options{Upstreams: map[string]mirrortest.Upstream{
		"docker.io": {Hub: hub, Registry: upstream.Options{Retry: upstream.Retry{Backoff: 100 * time.Millisecond}}},
	}})
	c := newClient(t)
	if a := c.get(m.URL, "/v2/"); a.Status != http.StatusOK {
		t.Errorf("ping: status %d, want 200", a.Status)
	}
	a := c.get(m.URL, "/v2/library/app/blobs/"+img.Blobs()[0].Digest, "User-Agent: "+agentDocker)
	a.assertError(t, http.StatusNotFound, "BLOB_UNKNOWN")
	if a.Took > 18*time.Second {
		t.Errorf("%s: dockerd was held up for %s", a.request, a.Took)
	}
	c.get(m.URL, "/v2/library/app/manifests/latest", "User-Agent: "+agentDocker).assertError(t, 503, "UNAVAILABLE")
	if err := hub.SwitchOn(); err != nil {
		t.Fatal(err)
	}
	c.recovers(m.URL, "/v2/library/app/manifests/latest")
	pull(t, c, m, hub, img)
	hub.AssertClean(t)
}

// T16, M05, containerd#10447: clients hammer a 429 without a pause. Those who ask at once
// share one upstream request, and those who come after it are answered from memory.
func TestT16_M05_A429IsAnsweredFromMemory(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{"abuse": hubtest.Abuse429(), "pull limit": hubtest.RateLimited()} {
		t.Run(name, func(t *testing.T) {
			hub, m, _ := setup(t, hubtest.Options{}, mirrortest.Options{})
			img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
			release := make(chan struct{})
			hub.AddRule(hubtest.Rule{
				Role: hubtest.RoleRegistry, Method: http.MethodGet, Route: hubtest.RouteManifest, Do: hubtest.Both(hubtest.Block(release), fault),
			})
			time.AfterFunc(300*time.Millisecond, func() { close(release) })
			crowd(t, 100, func(c *client, _ int) {
				for range 6 { // as containerd does
					a, err := c.try(t.Context(), http.MethodGet, m.URL, "/v2/library/app/manifests/"+img.Digest+"?ns=docker.io", "User-Agent: "+agentContainerd)
					if err != nil {
						t.Errorf("request: %s", err)
						return
					}
					assertLimited(t, a)
				}
			})
			if n := hub.Count(hubtest.Query{Route: hubtest.RouteManifest, Status: 429}); n > 2 {
				t.Errorf("600 requests of 100 clients made %d upstream requests, want 1 or 2", n)
			}
		})
	}
}

// T23: eks-anywhere#10765 and others: the table of docs/clients.md, "How a client
// names a repository", and what lies beside it.
func TestT23_RoutingTable(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/nginx", "latest", hubtest.ImageSpec{})
	for _, tt := range []struct {
		path   string
		status int
	}{
		{"/v2/library/nginx/manifests/latest?ns=docker.io", 200},
		{"/v2/library/nginx/manifests/latest?ns=registry-1.docker.io", 200},
		{"/v2/library/nginx/manifests/latest", 200},
		{"/v2/docker.io/library/nginx/manifests/latest", 200},
		{"/v2/docker.io/library/nginx/manifests/latest?ns=docker.io", 200},
		{"/docker.io/v2/library/nginx/manifests/latest?ns=docker.io", 200},
		{"/docker.io/v2/library/nginx/manifests/latest", 200},
		{"/docker.io/v2/docker.io/library/nginx/manifests/latest", 404}, // the prefix is taken off once
		{"/v2/docker.io/docker.io/library/nginx/manifests/latest", 403}, // Docker Hub has no such name, and denies it
		{"/v2/v2/library/nginx/manifests/latest", 404},
		{"/v2/docker.io/v2/library/nginx/manifests/latest", 403},
		{"/docker.io/library/nginx/manifests/latest", 404},
		{"/v2/ghcr.io/library/nginx/manifests/latest", 404},
		{"/ghcr.io/v2/library/nginx/manifests/latest", 404},
		{"/v2/library/nginx/manifests/latest?ns=ghcr.io", 404},
		{"/v2/ghcr.io/library/nginx/manifests/latest?ns=docker.io", 404},
		{"/ghcr.io/v2/library/nginx/manifests/latest?ns=docker.io", 404},
		{"/v2/docker.io/library/nginx/manifests/latest?ns=ghcr.io", 404},
		{"/v2/docker.io/manifests/latest", 400},
	} {
		a := c.get(m.URL, tt.path)
		if a.Status != tt.status {
			t.Errorf("%s: status %d (%s), want %d", a.request, a.Status, a.Body, tt.status)
		}
		if tt.status == http.StatusOK {
			a.assertManifest(t, img.MediaType, img.Digest, img.Raw)
		}
	}
}

// T24, M61: containerd#3451, OBS#16186, hubproxy#72: ns names one of the configured
// registries, with its port, under any of its names, or nothing at all.
func TestT24_M61_Namespaces(t *testing.T) {
	t.Parallel()
	hub, house := hubtest.New(t, hubtest.Options{}), hubtest.New(t, hubtest.Options{})
	m := mirrortest.New(t, mirrortest.Options{Hub: hub, Hosts: map[string]string{"registry.corp": "my.reg:5000"}, Upstreams: map[string]mirrortest.Upstream{
		"my.reg:5000": {Hub: house, Aliases: []string{"old.reg"}},
	}})
	c := newClient(t)
	there := hub.PushImage("team/app", "v1", hubtest.ImageSpec{Seed: 1})
	ours := house.PushImage("team/app", "v1", hubtest.ImageSpec{Seed: 2})
	for _, path := range []string{
		"/v2/team/app/manifests/v1?ns=my.reg:5000", "/v2/team/app/manifests/v1?ns=my.reg%3A5000", "/v2/team/app/manifests/v1?ns=MY.REG:5000",
		"/v2/team/app/manifests/v1?ns=old.reg", "/v2/my.reg:5000/team/app/manifests/v1", "/my.reg:5000/v2/team/app/manifests/v1",
		"/v2/my.reg%3A5000/team/app/manifests/v1?ns=my.reg:5000", "/v2/old.reg/team/app/manifests/v1?ns=my.reg:5000",
	} {
		c.get(m.URL, path).assertManifest(t, ours.MediaType, ours.Digest, ours.Raw)
	}
	c.get(m.URL, "/v2/team/app/manifests/v1", "Host: registry.corp").assertManifest(t, ours.MediaType, ours.Digest, ours.Raw)
	c.get(m.URL, "/v2/team/app/manifests/v1", "Host: REGISTRY.corp:5000").assertManifest(t, ours.MediaType, ours.Digest, ours.Raw)
	c.get(m.URL, "/v2/team/app/manifests/v1?ns=docker.io", "Host: registry.corp").assertManifest(t, there.MediaType, there.Digest, there.Raw)
	c.get(m.URL, "/v2/team/app/manifests/v1").assertManifest(t, there.MediaType, there.Digest, there.Raw)
	c.get(m.URL, "/v2/team/app/manifests/v1?ns=old.reg").assertHeader(t, "OCI-Namespace", "old.reg")
	asked, askedHouse := hub.Requests(), house.Requests()
	for _, ns := range unknownNamespaces() {
		for _, resource := range []string{"manifests/v1", "tags/list", "blobs/" + there.Blobs()[0].Digest, "referrers/" + there.Digest} {
			a := c.get(m.URL, "/v2/team/app/"+resource+"?ns="+ns)
			a.assertError(t, http.StatusNotFound, "NAME_UNKNOWN")
			if got := a.Header.Get("OCI-Namespace"); got != "" {
				t.Errorf("%s: OCI-Namespace %q for an unknown registry", a.request, got)
			}
		}
	}
	if n := hub.Requests() + house.Requests() - asked - askedHouse; n != 0 {
		t.Errorf("unknown registries made %d upstream requests, want 0", n)
	}
	hub.AssertClean(t)
	house.AssertClean(t)
}

// unknownNamespaces are values of ns that name no configured registry, some of which a
// mirror that dials what it is told to would dial.
func unknownNamespaces() []string {
	return []string{
		"ghcr.io", "169.254.169.254", "169.254.169.254:80", "localhost:22", "localhost:6443", "127.0.0.1", "127.0.0.2", "[::1]:80",
		"0.0.0.0", "2852039166", "docker.io.", "docker.io:443", "docker.io/", "docker.io%2Flibrary", "..", "../..", "%00",
		"docker.io%00.evil.example", "docker.io@evil.example", "evil.example%23docker.io", "http://docker.io", "http%3A%2F%2F169.254.169.254",
		"my.reg", "my.reg:443", "docker.io,ghcr.io", "*", "%20docker.io", "docker%2Eio.evil.example", "metadata.google.internal",
	}
}

// T25, git-pkgs/proxy#303: a registry that the client names is never dialled, however and
// wherever it is written.
func TestT25_NothingIsDialledByName(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	for _, host := range []string{
		"169.254.169.254", "localhost:22", "127.0.0.9", "GHCR.IO", "evil.example", "docker.io.", "attacker.example:443", "metadata.google.internal",
	} {
		for _, path := range []string{
			"/v2/" + host + "/latest/meta-data/manifests/latest", "/" + host + "/v2/latest/meta-data/manifests/latest",
			"/v2/library/app/manifests/latest?ns=" + host, "/v2/" + host + "/a/b/tags/list?ns=" + host, "/" + host + "/v2/_catalog",
		} {
			if a := c.get(m.URL, path); a.Status != http.StatusNotFound && a.Status != http.StatusBadRequest {
				t.Errorf("%s: status %d (%s), want 404", a.request, a.Status, a.Body)
			}
		}
		c.get(m.URL, "/v2/library/app/manifests/latest", "Host: "+host).assertError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	}
	if n := hub.Count(hubtest.Query{Role: hubtest.RoleMeta}) + hub.Count(hubtest.Query{Role: hubtest.RoleEvil}); n != 0 {
		t.Errorf("%d requests went where a client pointed", n)
	}
}

// warnPattern is the only form of Warning that clients of registries show (OCI distribution
// specification, "Warnings").
var warnPattern = regexp.MustCompile(`^299 - "[^"]+"$`)

// warned reports whether the values of Warning mark a stale answer, by HTTP's code and by
// the one that clients print.
func warned(values []string) bool {
	return len(values) == 2 && values[0] == `110 - "Response is Stale"` && warnPattern.MatchString(values[1])
}

// T32, harbor#19899: while the upstream limits, fails or hangs, a tag that is known is
// served, and the answer says so.
func TestT32_StaleTagsAreServed(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"pull limit": hubtest.RateLimited(), "abuse": hubtest.Abuse429(), "500": hubtest.Status(500), "503": hubtest.StatusHTML(503),
		"closed": hubtest.NoReply(hubtest.FIN), "hangs": hubtest.Hang(), "404": hubtest.Status(404), "not HTTP": hubtest.RawCL("x"),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{TagTTL: alwaysAsk})
			img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
			pull(t, c, m, hub, img)
			c.get(m.URL, "/v2/library/app/tags/list").tags(t)
			if a := c.get(m.URL, "/v2/library/app/manifests/latest"); a.Header.Get("Warning") != "" {
				t.Errorf("%s: Warning %q on a fresh answer", a.request, a.Header.Get("Warning"))
			}
			hub.AddRule(hubtest.Rule{Do: fault})
			suffer(m, hub, name)
			for _, g := range guests() {
				for _, method := range []string{http.MethodHead, http.MethodGet} {
					a := c.ask(method, m.URL, g.shape.path("library/app", "manifests/latest"), "User-Agent: "+g.agent)
					a.assertManifest(t, img.MediaType, img.Digest, img.Raw)
					if got := a.Header.Values("Warning"); !warned(got) {
						t.Errorf("%s: Warning %q, want 110 and 299", a.request, got)
					}
				}
			}
			if name == "404" {
				return // a list that the upstream says is not there is not there
			}
			a := c.get(m.URL, "/v2/library/app/tags/list")
			if l := a.tags(t); len(l.Tags) != 1 || !warned(a.Header.Values("Warning")) {
				t.Errorf("%s: %q, Warning %q, want the known tags with a warning", a.request, l.Tags, a.Header.Values("Warning"))
			}
		})
	}
}

// T34, container-libs#845, podman#20374: containers/image takes all blobs from where it had
// the manifest. After a blob failed, the repository's manifests send it elsewhere, while
// other clients are served.
func TestT34_FailedBlobSendsPodmanElsewhere(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
	other := hub.PushImage("library/other", "latest", hubtest.ImageSpec{})
	c.get(m.URL, "/v2/docker.io/library/app/manifests/latest", "User-Agent: "+agentPodman).assertManifest(t, img.MediaType, img.Digest, img.Raw)
	broken := hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.Status(500)})
	layer := img.Children[0].Layers[0].Digest
	c.get(m.URL, "/v2/docker.io/library/app/blobs/"+layer, "User-Agent: "+agentPodman).assertError(t, http.StatusNotFound, "BLOB_UNKNOWN")
	broken.Remove()
	for _, agent := range []string{agentPodman, agentCRIO, agentBuildah} {
		for _, ref := range []string{"latest", img.Digest} {
			a := c.get(m.URL, "/v2/docker.io/library/app/manifests/"+ref, "User-Agent: "+agent)
			if a.Status != http.StatusServiceUnavailable {
				t.Errorf("%s %s: status %d, want 503: its blobs failed a moment ago", agent, a.request, a.Status)
			}
		}
	}
	for _, g := range guests() {
		if !g.image {
			c.get(m.URL, g.shape.path("library/app", "manifests/latest"), "User-Agent: "+g.agent).assertManifest(t, img.MediaType, img.Digest, img.Raw)
		}
	}
	c.get(m.URL, "/v2/docker.io/library/other/manifests/latest", "User-Agent: "+agentPodman).assertManifest(t, other.MediaType, other.Digest, other.Raw)
}

// T34: while the upstream fails, containers/image gets the manifests whose blobs are all
// here, and no others.
func TestT34_PodmanGetsOnlyWholeImages(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	whole := hub.PushImage("library/whole", "latest", hubtest.ImageSpec{})
	part := hub.PushImage("library/part", "latest", hubtest.ImageSpec{})
	index := hub.PushImage("library/index", "latest", hubtest.ImageSpec{Platforms: []string{"linux/amd64", "linux/arm64"}})
	pull(t, c, m, hub, whole)
	c.get(m.URL, "/v2/library/part/manifests/latest").assertManifest(t, part.MediaType, part.Digest, part.Raw)
	amd64 := index.Children[0]
	for _, path := range []string{"manifests/latest", "manifests/" + amd64.Digest, "blobs/" + amd64.Config.Digest} {
		c.get(m.URL, "/v2/library/index/"+path)
	}
	for _, l := range amd64.Layers {
		c.get(m.URL, "/v2/library/index/blobs/"+l.Digest)
	}
	hub.SwitchOff()
	c.get(m.URL, "/v2/library/unheard-of/manifests/latest", "User-Agent: "+agentPodman).assertError(t, 503, "UNAVAILABLE") // now it is known to fail
	agent := "User-Agent: " + agentPodman
	c.get(m.URL, "/v2/docker.io/library/whole/manifests/latest", agent).assertManifest(t, whole.MediaType, whole.Digest, whole.Raw)
	c.get(m.URL, "/v2/docker.io/library/part/manifests/latest", agent).assertError(t, 503, "UNAVAILABLE")
	c.get(m.URL, "/v2/docker.io/library/index/manifests/latest", agent).assertManifest(t, index.MediaType, index.Digest, index.Raw)
	c.get(m.URL, "/v2/docker.io/library/index/manifests/"+amd64.Digest, agent).assertManifest(t, amd64.MediaType, amd64.Digest, amd64.Raw)
	c.get(m.URL, "/v2/docker.io/library/part/manifests/latest", "User-Agent: "+agentContainerd).assertManifest(t, part.MediaType, part.Digest, part.Raw)
}

// The messages of errors are short lines that users see, kubelet's for one, and tell
// nothing of addresses or signed URLs.
func TestT12_MessagesAreForPeople(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{Fallback: proxy.FallbackNone})
	img := hub.PushImage("library/app", "latest", hubtest.ImageSpec{})
	hub.AddRule(hubtest.Rule{Role: hubtest.CDN, Do: hubtest.Status(500)})
	hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteTags, Do: hubtest.NoReply(hubtest.RST)})
	for _, path := range []string{"blobs/" + img.Blobs()[0].Digest, "tags/list", "manifests/none"} {
		a := c.get(m.URL, "/v2/library/app/"+path)
		_, message := a.document(t)
		for _, part := range []string{"127.0.0.", "verify=", "X-Amz", "Signature", "://", "\n", "goroutine"} {
			if strings.Contains(message, part) {
				t.Errorf("%s: message %q holds %q", a.request, message, part)
			}
		}
		if len(message) > 300 || !strings.Contains(message, "docker.io") && a.Status != http.StatusNotFound {
			t.Errorf("%s: message %q, want one short line that names the registry", a.request, message)
		}
	}
}
