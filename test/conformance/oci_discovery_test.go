package conformance

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// tagList is the body of tags/list.
type tagList struct {
	Name string   `json:"name"`
	Tags []string `json:"tags"`
}

func (a *answer) tags(t testing.TB) tagList {
	t.Helper()
	var l tagList
	if a.Status != http.StatusOK {
		t.Fatalf("%s: status %d (%.200s), want 200", a.request, a.Status, a.Body)
	}
	a.assertHeader(t, "Content-Type", "application/json")
	if err := json.Unmarshal(a.Body, &l); err != nil || l.Tags == nil {
		t.Fatalf("%s: body %q is no list of tags (%v)", a.request, a.Body, err)
	}
	return l
}

var nextPattern = regexp.MustCompile(`^<([^>]*)>; rel="next"$`)

// next returns the path that the Link header leads to, "" without one. It must be a
// reference without a host, so that it works behind any name (T26 of docs/clients.md).
func (a *answer) next(t testing.TB) string {
	t.Helper()
	link := a.Header.Get("Link")
	if link == "" {
		return ""
	}
	found := nextPattern.FindStringSubmatch(link)
	if found == nil {
		t.Fatalf("%s: Link %q is not one next page", a.request, link)
	}
	ref, err := url.Parse(found[1])
	if err != nil || ref.IsAbs() || ref.Host != "" {
		t.Fatalf("%s: Link %q must be relative (%v)", a.request, link, err)
	}
	base, err := url.Parse(strings.Fields(a.request)[1])
	if err != nil {
		t.Fatalf("%s: %s", a.request, err)
	}
	return base.ResolveReference(ref).RequestURI()
}

// unsorted makes the hub list tags in an order of its own.
func unsorted(order []string) hubtest.Fault {
	return hubtest.Edit("unsorted tags", func(_ *http.Request, a *hubtest.Reply) {
		b, err := json.Marshal(tagList{"whatever/the/upstream/says", order})
		if err != nil {
			panic(err)
		}
		a.SetBody(b)
	})
}

// Tags are sorted, named as the client names the repository, and paged by n and last in
// every shape of URL, while the upstream is there and when it is not (T26).
func TestOCIDiscovery_T26_Tags(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	hub.AddRepo("library/many", hubtest.RepoOpts{})
	hub.AddRule(hubtest.Rule{Route: hubtest.RouteTags, Do: unsorted([]string{"b", "latest", "a", "10", "9", "1.0", "Zeta", "_x", "a"})})
	want := []string{"1.0", "10", "9", "Zeta", "_x", "a", "b", "latest"}

	list := func(t *testing.T, s shape, query string) *answer {
		t.Helper()
		resource := "tags/list"
		if query != "" {
			resource += "?" + query
		}
		a := c.get(m.URL, s.path("library/many", resource))
		if l := a.tags(t); l.Name != s.nameOf("library/many") {
			t.Errorf("%s: name %q, want %q as the client wrote it", a.request, l.Name, s.nameOf("library/many"))
		}
		return a
	}
	all := func(phase string) {
		for _, s := range shapes() {
			t.Run(phase+" "+s.name, func(t *testing.T) {
				for _, tt := range []struct {
					query string
					want  []string
					more  bool
				}{
					{"", want, false},
					{"n=0", []string{}, false},
					{"n=3", want[:3], true},
					{"n=8", want, false},
					{"n=100", want, false},
					{"n=99999999999999999999", want, false},
					{"last=9", want[3:], false},
					{"last=a", want[6:], false},
					{"last=latest", []string{}, false},
					{"last=zzz", []string{}, false},
					{"last=0", want, false},
					{"last=not-a-tag-there", want[8:], false},
					{"last=1.00&n=2", want[1:3], true},
					{"n=2&last=b", want[7:], false},
					{"n=1&last=a", want[6:7], true},
				} {
					a := list(t, s, tt.query)
					if diff := cmp.Diff(tt.want, a.tags(t).Tags); diff != "" {
						t.Errorf("%s: tags differ (-want +got):\n%s", a.request, diff)
					}
					if more := a.next(t) != ""; more != tt.more {
						t.Errorf("%s: Link %q, want one: %t", a.request, a.Header.Get("Link"), tt.more)
					}
					if s.ns != "" {
						a.assertHeader(t, "OCI-Namespace", s.ns)
					}
				}
				for _, n := range []string{"-1", "x", "1e3"} {
					if a := c.get(m.URL, s.path("library/many", "tags/list?n="+n)); a.Status != http.StatusBadRequest && a.Status != http.StatusOK {
						t.Errorf("%s: status %d, want 400, or 200 without regard to n", a.request, a.Status)
					}
				}
				for _, n := range []string{"1", "3", "7"} {
					if diff := cmp.Diff(want, walkTags(t, c, m, s.path("library/many", "tags/list?n="+n))); diff != "" {
						t.Errorf("pages of %s differ from the list (-want +got):\n%s", n, diff)
					}
				}
				head := c.head(m.URL, s.path("library/many", "tags/list?n=2"))
				get := c.get(m.URL, s.path("library/many", "tags/list?n=2"))
				if diff := cmp.Diff(stable(get.Header), stable(head.Header)); diff != "" {
					t.Errorf("%s: headers of GET (-) and HEAD (+) differ:\n%s", get.request, diff)
				}
			})
		}
	}
	all("fresh")
	if n := hub.Count(hubtest.Query{Route: hubtest.RouteTags}); n > 2 {
		t.Errorf("hub was asked %d times for the tags, want once (and a challenge)", n)
	}
	m.RestartWith(func(o *mirrortest.Options) { o.TagTTL = alwaysAsk })
	hub.SwitchOff()
	all("upstream off")
}

// walkTags follows Link to the end.
func walkTags(t testing.TB, c *client, m *mirrortest.Mirror, path string) []string {
	t.Helper()
	var all []string
	for pages := 0; path != ""; pages++ {
		if pages > 100 {
			t.Fatalf("paging does not end: %s", path)
		}
		a := c.get(m.URL, path)
		all = append(all, a.tags(t).Tags...)
		path = a.next(t)
	}
	return all
}

// Whatever paging the upstream has, the whole list comes out, or an error; never a part.
func TestOCIDiscovery_UpstreamPaging(t *testing.T) {
	t.Parallel()
	var want []string
	for i := range 2500 {
		want = append(want, fmt.Sprintf("v%04d", i))
	}
	for _, tt := range []struct {
		paging hubtest.TagsPaging
		whole  bool
	}{
		{hubtest.PagingIgnore, true}, {hubtest.PagingLink, true}, {hubtest.PagingAbsolute, true},
		{hubtest.PagingForeign, true}, {hubtest.PagingInner, true}, {hubtest.PagingBare, true},
		{hubtest.PagingLoop, false}, {hubtest.PagingNothing, false}, {hubtest.PagingBroken, false},
	} {
		t.Run("paging "+string(tt.paging), func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{TagsPaging: tt.paging}, mirrortest.Options{})
			digest := hub.PutManifest("library/paged", "", hubtest.OCIManifest, []byte("{}"))
			for _, tag := range want {
				hub.MoveTag("library/paged", tag, digest)
			}
			a := c.get(m.URL, "/v2/docker.io/library/paged/tags/list", "User-Agent: "+agentRenovate)
			switch {
			case a.Status == http.StatusOK:
				if diff := cmp.Diff(want, a.tags(t).Tags); diff != "" {
					t.Errorf("status 200 with %d tags, want all %d or an error", len(a.tags(t).Tags), len(want))
				}
			case tt.whole || a.Status < 500:
				t.Errorf("%s: status %d (%.200s)", a.request, a.Status, a.Body)
			}
		})
	}
}

// A list of tags is asked for once while it is fresh, and a repository without tags has an
// empty list, not null.
func TestOCIDiscovery_TagsOfOddRepositories(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	hub.AddRepo("library/none", hubtest.RepoOpts{})
	if got := c.get(m.URL, "/v2/library/none/tags/list"); string(got.Body) != `{"name":"library/none","tags":[]}` {
		t.Errorf("%s: body %s, want an empty list", got.request, got.Body)
	}
	hub.AddRepo("deep/tags/list/manifests", hubtest.RepoOpts{})
	img := hub.PushImage("deep/tags/list/manifests", "blobs", hubtest.ImageSpec{})
	if l := c.get(m.URL, "/v2/deep/tags/list/manifests/tags/list").tags(t); !slices.Equal(l.Tags, []string{"blobs"}) {
		t.Errorf("tags of a repository named like an endpoint: %q, want [blobs]", l.Tags)
	}
	c.get(m.URL, "/v2/deep/tags/list/manifests/manifests/blobs").assertManifest(t, img.MediaType, img.Digest, img.Raw)
	for _, path := range []string{"/v2/library/nowhere/tags/list", "/v2/library/nowhere/tags/list?ns=docker.io"} {
		c.get(m.URL, path).assertError(t, http.StatusNotFound, "NAME_UNKNOWN")
	}
	c.get(m.URL, "/v2/docker.io/library/nowhere/tags/list").assertError(t, http.StatusForbidden, "DENIED")
}

// index is the body of referrers.
type index struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Manifests     []hubtest.Descriptor `json:"manifests"`
}

func (a *answer) referrers(t testing.TB) index {
	t.Helper()
	var i index
	if a.Status != http.StatusOK {
		t.Fatalf("%s: status %d (%.200s), want 200", a.request, a.Status, a.Body)
	}
	a.assertHeader(t, "Content-Type", hubtest.OCIIndex)
	d := json.NewDecoder(strings.NewReader(string(a.Body)))
	if err := d.Decode(&i); err != nil || i.SchemaVersion != 2 || i.MediaType != hubtest.OCIIndex || i.Manifests == nil {
		t.Fatalf("%s: body %.300q is no index (%v)", a.request, a.Body, err)
	}
	if d.More() {
		t.Errorf("%s: bytes after the document, which containerd takes for an error", a.request)
	}
	return i
}

const (
	signature = "application/vnd.dev.cosign.artifact.sig.v1+json"
	sbom      = "application/spdx+json"
)

// signed pushes an image with two signatures and one SBOM.
func signed(hub *hubtest.Hub, repo string) (img *hubtest.Image, list []hubtest.Descriptor) {
	img = hub.PushImage(repo, "latest", hubtest.ImageSpec{})
	for i, kind := range []string{signature, sbom, signature} {
		raw := []byte(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{},"layers":[],"subject":{"digest":%q},"annotations":{"n":"%d"}}`,
			hubtest.OCIManifest, kind, img.Digest, i))
		d := hub.AddReferrer(repo, img.Digest, kind, hubtest.OCIManifest, raw)
		list = append(list, hubtest.Descriptor{MediaType: hubtest.OCIManifest, Digest: d, Size: int64(len(raw)), ArtifactType: kind})
	}
	return img, list
}

// Referrers of a digest, all or filtered, in every shape; an unknown digest has none; a
// bad one is refused; without the upstream they are still there (T39).
func TestOCIDiscovery_T39_Referrers(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{})
	img, want := signed(hub, "library/signed")
	unknown := "sha256:" + strings.Repeat("ab", 32)
	all := func(phase string) {
		for _, s := range shapes() {
			t.Run(phase+" "+s.name, func(t *testing.T) {
				a := c.get(m.URL, s.path("library/signed", "referrers/"+img.Digest))
				if diff := cmp.Diff(want, a.referrers(t).Manifests); diff != "" {
					t.Errorf("%s: referrers differ (-want +got):\n%s", a.request, diff)
				}
				if got := a.Header.Values("OCI-Filters-Applied"); len(got) > 0 {
					t.Errorf("%s: OCI-Filters-Applied %q without a filter", a.request, got)
				}
				a = c.get(m.URL, s.path("library/signed", "referrers/"+img.Digest+"?artifactType="+url.QueryEscape(signature)))
				if diff := cmp.Diff([]hubtest.Descriptor{want[0], want[2]}, a.referrers(t).Manifests); diff != "" {
					t.Errorf("%s: filtered referrers differ (-want +got):\n%s", a.request, diff)
				}
				a.assertHeader(t, "OCI-Filters-Applied", "artifactType")
				a = c.get(m.URL, s.path("library/signed", "referrers/"+img.Digest+"?artifactType=application/none"))
				if got := a.referrers(t).Manifests; len(got) != 0 {
					t.Errorf("%s: %d referrers, want none", a.request, len(got))
				}
				a.assertHeader(t, "OCI-Filters-Applied", "artifactType")
				if got := c.get(m.URL, s.path("library/signed", "referrers/"+unknown)).referrers(t).Manifests; len(got) != 0 {
					t.Errorf("unknown digest has %d referrers, want none", len(got))
				}
				head := c.head(m.URL, s.path("library/signed", "referrers/"+img.Digest))
				if head.Status != http.StatusOK || head.Header.Get("Content-Type") != hubtest.OCIIndex {
					t.Errorf("%s: status %d, Content-Type %q", head.request, head.Status, head.Header.Get("Content-Type"))
				}
				if a := c.get(m.URL, s.path("library/signed", "referrers/sha256:bad")); a.Status != http.StatusBadRequest {
					t.Errorf("%s: status %d, want 400", a.request, a.Status)
				}
			})
		}
	}
	all("fresh")
	for _, d := range want {
		c.get(m.URL, "/v2/library/signed/manifests/"+d.Digest).assertManifest(t, d.MediaType, d.Digest, hub.Bytes(d.Digest))
	}
	m.RestartWith(func(o *mirrortest.Options) { o.TagTTL = alwaysAsk })
	hub.SwitchOff()
	all("upstream off")
}

// An upstream without the referrers API is asked by the tag schema; a digest without such
// a tag has no referrers, and clients that use the tag themselves get it or a plain 404.
func TestOCIDiscovery_ReferrersByTagSchema(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{Referrers: hubtest.ReferrersOff}, mirrortest.Options{})
	img, want := signed(hub, "library/tagged")
	raw, err := json.Marshal(index{2, hubtest.OCIIndex, want})
	if err != nil {
		t.Fatal(err)
	}
	tag := strings.Replace(img.Digest, ":", "-", 1)
	digest := hub.PutManifest("library/tagged", tag, hubtest.OCIIndex, raw)
	a := c.get(m.URL, "/v2/library/tagged/referrers/"+img.Digest)
	if diff := cmp.Diff(want, a.referrers(t).Manifests); diff != "" {
		t.Errorf("%s: referrers differ (-want +got):\n%s", a.request, diff)
	}
	filtered := c.get(m.URL, "/v2/library/tagged/referrers/"+img.Digest+"?artifactType="+url.QueryEscape(sbom))
	if diff := cmp.Diff(want[1:2], filtered.referrers(t).Manifests); diff != "" {
		t.Errorf("%s: filtered referrers differ (-want +got):\n%s", filtered.request, diff)
	}
	filtered.assertHeader(t, "OCI-Filters-Applied", "artifactType")
	c.get(m.URL, "/v2/library/tagged/manifests/"+tag).assertManifest(t, hubtest.OCIIndex, digest, raw)
	other := hub.PushImage("library/tagged", "other", hubtest.ImageSpec{})
	if got := c.get(m.URL, "/v2/library/tagged/referrers/"+other.Digest).referrers(t).Manifests; len(got) != 0 {
		t.Errorf("an image without such a tag has %d referrers, want none", len(got))
	}
	for _, suffix := range []string{"", ".sig", ".att", ".sbom"} { // cosign: absent must be 404
		c.get(m.URL, "/v2/docker.io/library/tagged/manifests/"+strings.Replace(other.Digest, ":", "-", 1)+suffix,
			"User-Agent: "+agentCrane).assertError(t, http.StatusNotFound, "MANIFEST_UNKNOWN")
	}
}

// An upstream that cannot say is an error, never an empty list: that would switch off a
// policy that wants signatures.
func TestOCIDiscovery_ReferrersAreNeverGuessed(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]hubtest.Fault{
		"500": hubtest.Status(500), "503 HTML": hubtest.StatusHTML(503), "429": hubtest.Abuse429(), "403": hubtest.Status(403),
		"HTML with 200": hubtest.StatusWith(200, "text/html", "<html>Sign in</html>", nil),
		"cut short":     hubtest.Drop(20, hubtest.FIN), "broken JSON": hubtest.WrongBytes([]byte(`{"schemaVersion":2,`)),
		"closed": hubtest.NoReply(hubtest.FIN), "a list of numbers": hubtest.WrongBytes([]byte(`{"schemaVersion":2,"manifests":[1,2]}`)),
	} {
		t.Run(name, func(t *testing.T) {
			hub, m, c := setup(t, hubtest.Options{}, mirrortest.Options{Fallback: proxy.FallbackNone})
			img, _ := signed(hub, "library/signed")
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteReferrers, Do: fault})
			hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifestTag, Ref: "sha256-.*", Do: fault})
			for _, s := range shapes() {
				if a := c.get(m.URL, s.path("library/signed", "referrers/"+img.Digest)); a.Status < 400 {
					t.Errorf("%s: status %d, body %.200s, want an error", a.request, a.Status, a.Body)
				}
			}
		})
	}
}

// The catalog lists what is kept, by names under which it can be pulled, in pages.
func TestOCIDiscovery_Catalog(t *testing.T) {
	hub, m, c := setup(t, hubtest.Options{Anonymous: hubtest.Unlimited()}, mirrortest.Options{})
	catalog := func(path string) (names []string, next string) {
		t.Helper()
		var list struct{ Repositories []string }
		a := c.get(m.URL, path)
		if err := json.Unmarshal(a.Body, &list); a.Status != http.StatusOK || err != nil || list.Repositories == nil {
			t.Fatalf("%s: status %d, body %q, want a list of repositories", a.request, a.Status, a.Body)
		}
		return list.Repositories, a.next(t)
	}
	if names, _ := catalog("/v2/_catalog"); len(names) != 0 {
		t.Errorf("an empty mirror lists %q", names)
	}
	var want []string
	for _, repo := range []string{"zeta/z", "library/alpine", "acme/app", "acme/app-2", "acme/app/deeper"} {
		pull(t, c, m, hub, hub.PushImage(repo, "v1", hubtest.ImageSpec{}))
		want = append(want, "docker.io/"+repo)
	}
	slices.Sort(want)
	names, _ := catalog("/v2/_catalog")
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("catalog differs (-want +got):\n%s", diff)
	}
	for _, name := range names {
		if a := c.get(m.URL, "/v2/"+name+"/manifests/v1"); a.Status != http.StatusOK {
			t.Errorf("%s: status %d: the catalog's names can be pulled", a.request, a.Status)
		}
	}
	for _, start := range []string{"/v2/_catalog?n=2", "/v2/_catalog?n=1", "/v2/_catalog?n=2&ns=docker.io", "/docker.io/v2/_catalog?n=2"} {
		var all []string
		for path := start; path != ""; {
			var page []string
			page, path = catalog(path)
			for _, name := range page {
				all = append(all, "docker.io/"+strings.TrimPrefix(name, "docker.io/"))
			}
			if len(all) > len(want) {
				t.Fatalf("%s: paging does not end: %q", start, all)
			}
		}
		if diff := cmp.Diff(want, all); diff != "" {
			t.Errorf("%s: pages differ from the list (-want +got):\n%s", start, diff)
		}
	}
	if n := hub.Count(hubtest.Query{Route: hubtest.RouteCatalog}); n != 0 {
		t.Errorf("hub was asked %d times for its catalog, want 0", n)
	}
}
