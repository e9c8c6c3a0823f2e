package upstream

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"forebay/internal/pull"
	"forebay/test/hubtest"
)

func TestTagsOfAllPages(t *testing.T) {
	var want []string
	hub, r := newHub(t, hubtest.Options{})
	img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	want = append(want, "latest")
	for n := range 2500 {
		tag := fmt.Sprintf("v%04d", n)
		hub.MoveTag(repoAlpine, tag, img.Digest)
		want = append(want, tag)
	}
	for _, paging := range []hubtest.TagsPaging{
		hubtest.PagingIgnore, hubtest.PagingLink, hubtest.PagingAbsolute, hubtest.PagingForeign,
		hubtest.PagingInner, hubtest.PagingBare, hubtest.PagingRelative, hubtest.PagingNoRel,
	} {
		hub.Set(func(o *hubtest.Options) { o.TagsPaging = paging })
		got, err := r.Tags(t.Context(), repoAlpine)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("paging %q: Tags = %d tags, %v; want %d", paging, len(got), err, len(want))
		}
		var pages []string
		for query := "n=700"; query != ""; {
			var page []string
			if page, query, err = r.TagsPage(t.Context(), repoAlpine, query); err != nil {
				t.Fatalf("paging %q: TagsPage: %v", paging, err)
			}
			pages = append(pages, page...)
		}
		if !slices.Equal(pages, want) {
			t.Errorf("paging %q: the pages have %d tags, want %d", paging, len(pages), len(want))
		}
	}
	for _, paging := range []hubtest.TagsPaging{hubtest.PagingNothing, hubtest.PagingLoop, hubtest.PagingBroken} {
		hub.Set(func(o *hubtest.Options) { o.TagsPaging = paging })
		_, err := r.Tags(t.Context(), repoAlpine)
		wantKind(t, fmt.Sprintf("Tags with paging %q", paging), err, pull.Invalid)
	}
	hub.AssertClean(t)
}

func TestTagsErrors(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	tests := []struct {
		fault hubtest.Fault
		want  pull.Kind
	}{
		{hubtest.Status(http.StatusNotFound), pull.NotFound},
		{hubtest.Status(http.StatusTooManyRequests), pull.Limited},
		{hubtest.StatusHTML(http.StatusServiceUnavailable), pull.Unavailable},
		{hubtest.Truncate(10, hubtest.CutLength), pull.Invalid},
		{hubtest.Truncate(10, hubtest.ChunkedCut), pull.Unavailable},
		{hubtest.WrongBytes([]byte("<html>log in</html>")), pull.Invalid},
		{hubtest.WrongBytes([]byte(`{"tags":"many"}`)), pull.Invalid},
		{hubtest.WrongBytes([]byte(`{"errors":[{"code":"NAME_UNKNOWN"}]}`)), pull.Invalid},
	}
	for _, test := range tests {
		rule := hub.AddRule(hubtest.Rule{Route: hubtest.RouteTags, When: bearer, Do: test.fault})
		_, err := r.Tags(t.Context(), repoAlpine)
		wantKind(t, "Tags with "+test.fault.Name, err, test.want)
		rule.Remove()
		hub.Advance(time.Hour) // what is limited is not asked for at once
	}
	_, err := r.Tags(t.Context(), "library/missing")
	wantKind(t, "Tags of a missing repository", err, pull.Denied)
}

func TestTagsAreBoundedAndValid(t *testing.T) {
	page := 0
	r := serve(t, func(w http.ResponseWriter, req *http.Request) {
		page++
		switch req.URL.Path {
		case "/v2/endless/tags/list":
			w.Header().Set("Link", fmt.Sprintf(`</v2/endless/tags/list?page=%d>; rel="next"`, page))
			fmt.Fprint(w, `{"tags":["a"]}`)
		case "/v2/part/tags/list":
			if req.URL.Query().Has("page") {
				http.NotFound(w, req)
				return
			}
			w.Header().Set("Link", `</v2/part/tags/list?page=2>; rel="next"`)
			fmt.Fprint(w, `{"tags":["a"]}`)
		case "/v2/odd/tags/list":
			fmt.Fprint(w, `{"name":"x","tags":["good","bad tag","../x","","-x"],"child":[],"manifest":{}}`)
		default:
			fmt.Fprint(w, `{"name":"x","tags":null}`)
		}
	})
	_, err := r.Tags(t.Context(), "endless")
	wantKind(t, "Tags without an end", err, pull.Invalid)
	if page != tagPagesMax {
		t.Errorf("server gave %d pages, want %d", page, tagPagesMax)
	}
	if _, err := r.Tags(t.Context(), "part"); pull.KindOf(err) != pull.Invalid { // the repository is there
		t.Errorf("Tags whose second page is missing = %v, want kind Invalid", err)
	}
	if got, err := r.Tags(t.Context(), "odd"); err != nil || !slices.Equal(got, []string{"good"}) {
		t.Errorf("Tags = %q, %v; want [good]", got, err)
	}
	if got, err := r.Tags(t.Context(), "none"); err != nil || got == nil || len(got) != 0 {
		t.Errorf("Tags = %q, %v; want an empty list", got, err)
	}
}

func TestReferrersOfTheAPI(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	d := digest(t, img.Digest)
	var want []string
	for n := range 3 {
		raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[],"subject":{"mediaType":%q,"digest":%q,"size":%d},"n":%d}`,
			hubtest.OCIManifest, hubtest.Digest([]byte("{}")), img.MediaType, img.Digest, len(img.Raw), n)
		want = append(want, hub.AddReferrer(repoAlpine, img.Digest, "application/example", hubtest.OCIManifest, raw))
	}
	got, err := r.Referrers(t.Context(), repoAlpine, d)
	if err != nil {
		t.Fatalf("Referrers: %v", err)
	}
	if digests := digestsOf(t, got); !sameElements(digests, want) {
		t.Errorf("Referrers = %q, want %q", digests, want)
	}
	hub.AssertClean(t)
}

func digestsOf(t *testing.T, list []json.RawMessage) []string {
	t.Helper()
	var digests []string
	for _, raw := range list {
		var desc struct{ Digest string }
		if err := json.Unmarshal(raw, &desc); err != nil {
			t.Fatal(err)
		}
		digests = append(digests, desc.Digest)
	}
	return digests
}

func sameElements(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func TestReferrersWithoutTheAPI(t *testing.T) {
	for _, mode := range []hubtest.ReferrersMode{hubtest.ReferrersOff, hubtest.ReferrersHTML} {
		hub, r := newHub(t, hubtest.Options{Referrers: mode})
		img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
		d := digest(t, img.Digest)
		got, err := r.Referrers(t.Context(), repoAlpine, d)
		if err != nil || got == nil || len(got) != 0 {
			t.Errorf("mode %q: Referrers = %v, %v; want an empty list", mode, got, err)
		}
		tag := strings.Replace(img.Digest, ":", "-", 1)
		hub.PutManifest(repoAlpine, tag, hubtest.OCIIndex, hubtest.IndexOf(hubtest.Descriptor{MediaType: hubtest.OCIManifest, Digest: img.Digest, Size: 5}))
		got, err = r.Referrers(t.Context(), repoAlpine, d)
		if err != nil || !slices.Equal(digestsOf(t, got), []string{img.Digest}) {
			t.Errorf("mode %q: Referrers = %s, %v; want the one of the tag", mode, got, err)
		}
		hub.MoveTag(repoAlpine, tag, img.Digest) // an image, no index
		_, err = r.Referrers(t.Context(), repoAlpine, d)
		wantKind(t, "Referrers whose tag is an image", err, pull.Invalid)
		// The page of HTML is at another host. It is visited, since registry.k8s.io
		// redirects everything to another host, but it gets nothing of ours.
		hub.AssertNoLeaks(t)
	}
}

func TestReferrersAreNeverEmptyByGuess(t *testing.T) {
	tests := []struct {
		fault hubtest.Fault
		route hubtest.Route
		want  pull.Kind
	}{
		{hubtest.Status(http.StatusForbidden), hubtest.RouteReferrers, pull.Denied},
		{hubtest.Status(http.StatusTooManyRequests), hubtest.RouteReferrers, pull.Limited},
		{hubtest.Status(http.StatusBadGateway), hubtest.RouteReferrers, pull.Unavailable},
		{hubtest.Status(http.StatusUnauthorized), hubtest.RouteReferrers, pull.Denied},
		{hubtest.Status(http.StatusInternalServerError), hubtest.RouteReferrers, pull.Unavailable},
		{hubtest.NoReply(hubtest.RST), hubtest.RouteReferrers, pull.Unavailable},
		{hubtest.WrongBytes([]byte("<html>")), hubtest.RouteReferrers, pull.Invalid},
		{hubtest.WrongBytes([]byte(`{"manifests":[{"digest":"sha256:../.."}]}`)), hubtest.RouteReferrers, pull.Invalid},
		{hubtest.WrongBytes([]byte(`{"manifests":[7]}`)), hubtest.RouteReferrers, pull.Invalid},
		{hubtest.Status(http.StatusForbidden), hubtest.RouteManifest, pull.Denied},
		{hubtest.Status(http.StatusTooManyRequests), hubtest.RouteManifest, pull.Limited},
		{hubtest.Status(http.StatusInternalServerError), hubtest.RouteManifest, pull.Unavailable},
	}
	for _, test := range tests {
		hub, r := newHub(t, hubtest.Options{})
		if test.route == hubtest.RouteManifest {
			hub.Set(func(o *hubtest.Options) { o.Referrers = hubtest.ReferrersOff })
		}
		img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
		hub.AddRule(hubtest.Rule{Route: test.route, When: bearer, Do: test.fault})
		_, err := r.Referrers(t.Context(), repoAlpine, digest(t, img.Digest))
		wantKind(t, fmt.Sprintf("Referrers with %s at %s", test.fault.Name, test.route), err, test.want)
		hub.AssertAllFired(t)
	}
}

// Registries that do not know the API say so in many ways. Those that may as well mean that we
// have no right, or a failure, say nothing about a list that is not there.
func TestReferrersWhoeverDoesNotKnowTheAPI(t *testing.T) {
	subject, referrer := digestOf("", []byte("subject")), digestOf("", []byte("referrer"))
	tag := "/v2/a/b/manifests/" + strings.Replace(subject.String(), ":", "-", 1)
	index := fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":%q}]}`, referrer)
	for _, row := range []struct {
		status int
		kind   string // content type
		none   bool   // without a list, there is none; else that is an error
	}{
		{400, "application/json", true}, {404, "text/html", true}, {405, "", true}, {406, "", true}, {410, "", true},
		{415, "", true}, {422, "", true}, {501, "", true}, {200, "text/html", true}, {200, "application/json", true}, {204, "", true},
		{401, "", false}, {403, "text/plain", false}, {500, "text/html", false},
	} {
		tagged := true
		r := serve(t, func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Type", row.kind)
			switch {
			case strings.Contains(req.URL.Path, "/referrers/"):
				w.WriteHeader(row.status)
				if row.kind != "" {
					fmt.Fprint(w, `{"what":"is that?"}`)
				}
			case req.URL.Path == tag && tagged:
				w.Header().Set("Content-Type", hubtest.OCIIndex)
				_, _ = w.Write(index)
			default:
				w.WriteHeader(http.StatusNotFound)
			}
		})
		got, err := r.Referrers(t.Context(), "a/b", subject)
		if err != nil || !slices.Equal(digestsOf(t, got), []string{referrer.String()}) {
			t.Errorf("%d %s: Referrers = %s, %v; want what the tag lists", row.status, row.kind, got, err)
		}
		tagged = false
		got, err = r.Referrers(t.Context(), "a/b", subject)
		if (err == nil) != row.none && (err != nil || len(got) != 0) {
			t.Errorf("%d %s: Referrers = %s, %v without a tag; want none: %t", row.status, row.kind, got, err, row.none)
		}
	}
}

// What is an index is read as one, however the registry calls it.
func TestReferrersByAnotherContentType(t *testing.T) {
	d := digestOf("", nil)
	for _, kind := range []string{"application/json", "application/json; charset=utf-8", hubtest.DockerList, hubtest.OCIManifest} {
		r := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"digest":%q}]}`, hubtest.OCIIndex, d)
		})
		if got, err := r.Referrers(t.Context(), "a/b", d); err != nil || len(got) != 1 {
			t.Errorf("%s: Referrers = %s, %v; want one", kind, got, err)
		}
	}
}

func TestHugeReferrersAreBounded(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{Referrers: hubtest.ReferrersHuge})
	img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	list, err := r.Referrers(t.Context(), repoAlpine, digest(t, img.Digest))
	if err != nil {
		wantKind(t, "Referrers", err, pull.Invalid)
	} else if total := len(list); total != 100_000 {
		t.Errorf("Referrers = %d descriptors, want 100000 or an error", total)
	}
}

func TestReferrersOfAllPages(t *testing.T) {
	d := digestOf("", nil)
	r := serve(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json; charset=utf-8")
		if req.URL.Query().Get("page") == "" {
			w.Header().Set("Link", fmt.Sprintf(`<%s?page=2>; rel="next"`, req.URL.Path))
		}
		fmt.Fprintf(w, `{"schemaVersion":2,"manifests":[{"digest":%q}]}`, d)
	})
	got, err := r.Referrers(t.Context(), "a/b", d)
	if err != nil || len(got) != 2 {
		t.Errorf("Referrers = %s, %v; want two", got, err)
	}
}
