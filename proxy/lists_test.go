package proxy

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/cache"
	"forebay/internal/pull"
)

// next returns where the Link of an answer points, "" without one. It must be without a
// host, so that it works behind any name (T26 of docs/clients.md).
func next(t *testing.T, a answer) string {
	t.Helper()
	link := a.Header.Get("Link")
	if link == "" {
		return ""
	}
	target, ok := strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
	if !ok || !strings.HasPrefix(target, "/") || strings.HasPrefix(target, "//") {
		t.Fatalf("Link: %s, want a reference without a host", link)
	}
	return target
}

func TestTagsPaging(t *testing.T) {
	f := &fakeCache{result: cache.Hit, tags: []string{"1", "1.0", "Latest", "a", "b", "c", "latest"}}
	base := serve(t, newHandler(t, f, nil))
	rows := []struct {
		query string
		want  []string
		more  bool
	}{
		{"", f.tags, false},
		{"?n=3", []string{"1", "1.0", "Latest"}, true},
		{"?n=7", f.tags, false},
		{"?n=8", f.tags, false},
		{"?n=99999999999999999999999", f.tags, false},
		{"?n=0", []string{}, false},
		{"?last=b", []string{"c", "latest"}, false},
		{"?last=aa", []string{"b", "c", "latest"}, false},
		{"?last=zzz", []string{}, false},
		{"?n=1&last=b", []string{"c"}, true},
		{"?n=2&last=b", []string{"c", "latest"}, false},
	}
	for _, row := range rows {
		a := ask(t, "GET", base+"/v2/docker.io/nginx/tags/list"+row.query)
		var got tagList
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.StatusCode != 200 || a.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%q = %d %s", row.query, a.StatusCode, a.body)
			continue
		}
		if diff := cmp.Diff(tagList{"docker.io/nginx", row.want}, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", row.query, diff)
		}
		if more := next(t, a) != ""; more != row.more {
			t.Errorf("%q: Link %q, want one: %t", row.query, a.Header.Get("Link"), row.more)
		}
		head := ask(t, "HEAD", base+"/v2/docker.io/nginx/tags/list"+row.query)
		if head.StatusCode != 200 || head.ContentLength != a.ContentLength || head.Header.Get("Link") != a.Header.Get("Link") {
			t.Errorf("HEAD %q = %d %v, want as GET", row.query, head.StatusCode, head.Header)
		}
	}
	for _, query := range []string{"?n=-1", "?n=x", "?n=1.5"} {
		if a := ask(t, "GET", base+"/v2/nginx/tags/list"+query); a.StatusCode != 400 || a.code() != "PAGINATION_NUMBER_INVALID" {
			t.Errorf("%q = %d %s, want 400", query, a.StatusCode, a.body)
		}
	}
}

// T26: a client that follows Links sees every tag once, through every shape of URL.
func TestTagsLinksKeepTheirShape(t *testing.T) {
	f := &fakeCache{}
	for i := range 10 {
		f.tags = append(f.tags, fmt.Sprintf("v%02d+%d", i, i)) // an upstream may say anything
	}
	base := serve(t, newHandler(t, f, nil))
	for _, path := range []string{
		"/v2/library/nginx/tags/list?n=3&ns=docker.io", "/v2/library/nginx/tags/list?n=3",
		"/v2/docker.io/library/nginx/tags/list?n=3", "/v2/docker.io/library/nginx/tags/list?n=3&ns=docker.io",
		"/docker.io/v2/library/nginx/tags/list?ns=registry-1.docker.io&n=3", "//v2/library/nginx/tags/list?n=3",
	} {
		var got []string
		for at := path; at != ""; {
			a := ask(t, "GET", base+at)
			var page tagList
			if err := json.Unmarshal([]byte(a.body), &page); err != nil {
				t.Fatalf("GET %s = %d %s", at, a.StatusCode, a.body)
			}
			if calls := f.asked(); calls != "docker.io/library/nginx" {
				t.Errorf("GET %s asked for %s", at, calls)
			}
			got = append(got, page.Tags...)
			at = next(t, a)
			if at != "" && strings.Contains(path, "ns=") != strings.Contains(at, "ns=") {
				t.Errorf("GET %s links to %s", path, at)
			}
		}
		if diff := cmp.Diff(f.tags, got); diff != "" {
			t.Errorf("all pages of %s (-want +got):\n%s", path, diff)
		}
	}
}

func TestTagsAreCapped(t *testing.T) {
	f := &fakeCache{}
	for i := range pageMost + 5 {
		f.tags = append(f.tags, fmt.Sprintf("%06d", i))
	}
	base := serve(t, newHandler(t, f, nil))
	a := ask(t, "GET", base+"/v2/nginx/tags/list")
	if at := next(t, a); at != fmt.Sprintf("/v2/nginx/tags/list?last=%06d", pageMost-1) {
		t.Errorf("Link %q", at)
	}
	if a := ask(t, "GET", base+next(t, a)); strings.Count(a.body, `"00`)+strings.Count(a.body, `"01`) != 5 {
		t.Errorf("second page: %s", a.body)
	}
}

func TestStaleListCarriesWarning(t *testing.T) {
	f := &fakeCache{result: cache.Stale}
	base := serve(t, newHandler(t, f, nil))
	for _, path := range []string{"/v2/nginx/tags/list", "/v2/nginx/referrers/" + digestA} {
		a := ask(t, "GET", base+path)
		if a.StatusCode != 200 || a.Header.Get("Warning") == "" || a.Header.Get("Cache-Control") != "no-cache" {
			t.Errorf("stale %s = %d %v", path, a.StatusCode, a.Header)
		}
	}
	if a := ask(t, "GET", base+"/v2/nginx/tags/list"); !strings.Contains(a.body, `"tags":[]`) {
		t.Errorf("no tags: %s, want an empty list", a.body)
	}
}

// descriptor is one referrer, with odd spacing that must survive.
func descriptor(i int, artifactType string) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{ "digest": "sha256:%064x","artifactType":%q, "size":1,"x-unknown":{"k":[1,2]}}`, i, artifactType))
}

type referrersDoc struct {
	SchemaVersion int
	MediaType     string
	Manifests     []json.RawMessage
}

func TestReferrers(t *testing.T) {
	f := &fakeCache{result: cache.Hit, referrers: []json.RawMessage{descriptor(3, "a/sig"), descriptor(1, "a/sbom"), descriptor(2, "a/sig")}}
	base := serve(t, newHandler(t, f, nil)) + "/v2/nginx/referrers/" + digestA
	rows := []struct {
		query, applied string
		want           []json.RawMessage
	}{
		{"", "", f.referrers},
		{"?artifactType=", "", f.referrers},
		{"?artifactType=a/sig", "artifactType", []json.RawMessage{f.referrers[0], f.referrers[2]}},
		{"?artifactType=a%2Fsbom", "artifactType", f.referrers[1:2]},
		{"?artifactType=none", "artifactType", []json.RawMessage{}},
	}
	for _, row := range rows {
		a := ask(t, "GET", base+row.query)
		var got referrersDoc
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.StatusCode != 200 {
			t.Errorf("%q = %d %s", row.query, a.StatusCode, a.body)
			continue
		}
		if diff := cmp.Diff(referrersDoc{2, ociIndex, row.want}, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", row.query, diff)
		}
		if a.Header.Get("Content-Type") != ociIndex || a.Header.Get("OCI-Filters-Applied") != row.applied || a.Header.Get("Link") != "" {
			t.Errorf("%q: headers %v", row.query, a.Header)
		}
	}
	f.referrers = nil
	if a := ask(t, "GET", base); a.StatusCode != 200 || !strings.Contains(a.body, `"manifests":[]`) || a.Header.Get("Content-Type") != ociIndex {
		t.Errorf("no referrers = %d %s", a.StatusCode, a.body)
	}
}

// An upstream that could not say must not look like one that said: none.
func TestReferrersNeverEmptyByGuess(t *testing.T) {
	f := &fakeCache{}
	base := serve(t, newHandler(t, f, nil)) + "/v2/nginx/referrers/" + digestA
	for k := pull.Unavailable; k <= pull.Timeout; k++ {
		f.err = kind(k)
		if a := ask(t, "GET", base); a.StatusCode < 400 {
			t.Errorf("%s = %d %s, want an error", k, a.StatusCode, a.body)
		}
	}
	f.err, f.referrers = nil, []json.RawMessage{json.RawMessage(`{`)}
	if a := ask(t, "GET", base); a.StatusCode != 503 {
		t.Errorf("broken descriptor = %d %s, want 503", a.StatusCode, a.body)
	}
}

func TestReferrersPaging(t *testing.T) {
	rows := map[string]func() []json.RawMessage{
		"many": func() (list []json.RawMessage) {
			for i := range 2*referrersMost + 7 {
				list = append(list, descriptor((i*7919)%100003, "a/sig"))
			}
			return list
		},
		"large": func() (list []json.RawMessage) {
			for i := range 9 {
				list = append(list, descriptor(9-i, "a/"+strings.Repeat("s", 1<<20)))
			}
			return list
		},
	}
	for name, make := range rows {
		f := &fakeCache{referrers: make()}
		base := serve(t, newHandler(t, f, nil))
		var got []string
		pages := 0
		for at := "/v2/nginx/referrers/" + digestA + "?ns=docker.io"; at != ""; pages++ {
			a := ask(t, "GET", base+at)
			var page referrersDoc
			if err := json.Unmarshal([]byte(a.body), &page); err != nil || len(a.body) > 4<<20 || len(page.Manifests) > referrersMost {
				t.Fatalf("%s: GET %s = %d, %d bytes, %v", name, at, a.StatusCode, len(a.body), err)
			}
			for _, m := range page.Manifests {
				got = append(got, string(m))
			}
			at = next(t, a)
		}
		var want []string
		for _, m := range f.referrers {
			want = append(want, string(m))
		}
		slices.Sort(want)
		slices.Sort(got)
		if pages != 3 || !slices.Equal(got, want) {
			t.Errorf("%s: %d pages with %d of %d descriptors", name, pages, len(got), len(want))
		}
	}
}

func TestReferrersLinkKeepsFilter(t *testing.T) {
	f := &fakeCache{}
	for i := range referrersMost + 1 {
		f.referrers = append(f.referrers, descriptor(i, "a/sig+x"))
	}
	base := serve(t, newHandler(t, f, nil))
	a := ask(t, "GET", base+"/docker.io/v2/nginx/referrers/"+digestA+"?artifactType=a/sig%2Bx&ns=docker.io")
	u, err := url.Parse(next(t, a))
	if err != nil || u.Query().Get("artifactType") != "a/sig+x" || u.Query().Get("ns") != "docker.io" || !strings.HasPrefix(u.Path, "/docker.io/v2/") {
		t.Errorf("Link %q, %v", a.Header.Get("Link"), err)
	}
}

func TestTagsOfWhatCameByCredentialsAreNotListed(t *testing.T) {
	f := &fakeCache{tags: []string{"secret-tag"}, unlisted: "ghcr.io"}
	url := serve(t, newHandler(t, f, nil))
	for path, want := range map[string]int{
		"/v2/ghcr.io/owner/app/tags/list": 404, "/v2/owner/app/tags/list?ns=ghcr.io": 404, "/ghcr.io/v2/owner/app/tags/list?n=1": 404, "/v2/nginx/tags/list": 200,
	} {
		f.asked()
		a := ask(t, "GET", url+path)
		if a.StatusCode != want || strings.Contains(a.body, "secret-tag") != (want == 200) {
			t.Errorf("GET %s = %d %s, want %d", path, a.StatusCode, a.body, want)
		}
		if asked := f.asked(); (asked != "") != (want == 200) {
			t.Errorf("GET %s asks for %q", path, asked)
		}
	}
}

func TestCatalog(t *testing.T) {
	f := &fakeCache{catalog: []string{"docker.io/a", "docker.io/library/nginx", "ghcr.io/owner/app", "ghcr.io/owner/b", "my.reg:5000/x"}}
	base := serve(t, newHandler(t, f, nil))
	rows := []struct {
		path string
		want []string
		next string
	}{
		{"/v2/_catalog", f.catalog, ""},
		{"/v2/_catalog?n=2", f.catalog[:2], "/v2/_catalog?n=2&last=docker.io%2Flibrary%2Fnginx"},
		{"/v2/_catalog?n=2&last=docker.io%2Flibrary%2Fnginx", f.catalog[2:4], "/v2/_catalog?n=2&last=ghcr.io%2Fowner%2Fb"},
		{"/v2/_catalog?last=ghcr.io/owner/b", f.catalog[4:], ""},
		{"/v2/_catalog?n=0", []string{}, ""},
		{"/v2/_catalog?ns=ghcr.io", []string{"owner/app", "owner/b"}, ""},
		{"/ghcr.io/v2/_catalog?n=1", []string{"owner/app"}, "/ghcr.io/v2/_catalog?n=1&last=owner%2Fapp"},
		{"/ghcr.io/v2/_catalog?n=1&last=owner%2Fapp", []string{"owner/b"}, "/ghcr.io/v2/_catalog?n=1&last=owner%2Fb"},
		{"/ghcr.io/v2/_catalog?n=1&last=owner%2Fb", []string{}, ""},
	}
	for _, row := range rows {
		a := ask(t, "GET", base+row.path)
		var got repositoryList
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.StatusCode != 200 {
			t.Errorf("GET %s = %d %s", row.path, a.StatusCode, a.body)
			continue
		}
		if diff := cmp.Diff(row.want, got.Repositories); diff != "" {
			t.Errorf("GET %s (-want +got):\n%s", row.path, diff)
		}
		if at := next(t, a); at != row.next {
			t.Errorf("GET %s links to %q, want %q", row.path, at, row.next)
		}
	}
	if a := ask(t, "GET", base+"/v2/_catalog?n=x"); a.StatusCode != 400 {
		t.Errorf("n=x = %d, want 400", a.StatusCode)
	}
	f.err = kind(pull.Unavailable)
	if a := ask(t, "GET", base+"/v2/_catalog"); a.StatusCode != 503 {
		t.Errorf("broken index = %d, want 503", a.StatusCode)
	}
}
