package upstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/internal/manifest"
	"forebay/internal/pull"
	"forebay/test/hubtest"
)

const repoAlpine = "library/alpine"

func TestM20DamagedManifestIsNeverReturned(t *testing.T) {
	tests := []struct {
		name  string
		fault hubtest.Fault
		want  pull.Kind // of a fault that stays; ok when the answer is right all the same
	}{
		{"corrupt", hubtest.Corrupt(100), pull.Invalid},
		{"corrupt white space", hubtest.Corrupt(-1), pull.Invalid},
		{"wrong bytes", hubtest.WrongBytes([]byte(`{"schemaVersion":2,"manifests":[]}`)), pull.Invalid},
		{"cut, true length", hubtest.Truncate(100, hubtest.KeepLength), pull.Unavailable},
		{"cut, length of what is sent", hubtest.Truncate(100, hubtest.CutLength), pull.Invalid},
		{"cut, until close", hubtest.Truncate(100, hubtest.UntilClose), pull.Invalid},
		{"cut, chunked", hubtest.Truncate(100, hubtest.ChunkedClean), pull.Invalid},
		{"cut, chunked without end", hubtest.Truncate(100, hubtest.ChunkedCut), pull.Unavailable},
		{"dropped", hubtest.Drop(50, hubtest.RST), pull.Unavailable},
		{"length too large", hubtest.WrongCL(10), pull.Unavailable},
		{"length too small", hubtest.WrongCL(-10), pull.Invalid},
		{"length absent", hubtest.RawCL(), ok},
		{"no digest header", hubtest.NoDigestHeader(), ok},
		{"wrong digest header", hubtest.DigestHeader("sha256:" + strings.Repeat("0", 64)), ok},
		{"malformed digest header", hubtest.DigestHeader("sha256:../../etc/passwd"), ok},
		{"sha512 digest header", hubtest.Sha512DigestHeader(), ok},
		{"gzip", hubtest.Gzip(1), ok},
		{"gzip twice", hubtest.Gzip(2), ok},
		{"gzip three times", hubtest.Gzip(3), pull.Invalid},
		{"gzip by name only", hubtest.Encoding("gzip"), pull.Invalid},
		{"no encoding, by name", hubtest.Encoding("UTF-8"), ok},
		{"zstd by name", hubtest.Encoding("zstd"), pull.Invalid},
		{"chunked", hubtest.Chunked(), ok},
		{"until close", hubtest.CloseDelimited(), ok},
		{"too big", hubtest.WrongBytes(hubtest.BigManifest(manifest.MaxBytes + 1)), pull.Invalid},
		{"endless", hubtest.Endless(), pull.Invalid},
		{"html", hubtest.Both(hubtest.ContentType("text/html"), hubtest.WrongBytes([]byte("<html>maintenance</html>"))), pull.Invalid},
		{"empty", hubtest.WrongBytes(nil), pull.Invalid},
	}
	for _, test := range tests {
		for _, byTag := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s by tag %v", test.name, byTag), func(t *testing.T) {
				hub, r := newHub(t, hubtest.Options{})
				img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
				ref := img.Digest
				if byTag {
					ref = "latest"
				}
				rule := hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifest, When: bearer, Method: http.MethodGet, Do: test.fault})
				desc, raw, err := r.Manifest(t.Context(), repoAlpine, ref)
				if test.want != ok {
					wantKind(t, "Manifest", err, test.want)
				} else {
					wantManifest(t, desc, raw, err, img)
				}
				hub.AssertAllFired(t)
				rule.Remove()
				desc, raw, err = r.Manifest(t.Context(), repoAlpine, ref)
				wantManifest(t, desc, raw, err, img)
				hub.AssertClean(t)
			})
		}
	}
}

// wantManifest checks that an answer is img, under whichever digest.
func wantManifest(t *testing.T, desc v1.Descriptor, raw []byte, err error, img *hubtest.Image) {
	t.Helper()
	if err != nil {
		t.Errorf("Manifest: %v", err)
		return
	}
	if !bytes.Equal(raw, img.Raw) || desc.Digest != digestOf(desc.Digest.Algorithm, img.Raw) ||
		string(desc.MediaType) != img.MediaType || desc.Size != int64(len(img.Raw)) {
		t.Errorf("Manifest = %+v and %d bytes, want %s %s %d", desc, len(raw), img.MediaType, img.Digest, len(img.Raw))
	}
}

func TestManifestThatIsDamagedOnceIsFetchedAgain(t *testing.T) {
	for name, fault := range map[string]hubtest.Fault{
		"corrupt": hubtest.Corrupt(100), "cut": hubtest.Drop(50, hubtest.RST), "chunked cut": hubtest.Truncate(9, hubtest.ChunkedCut),
	} {
		for _, ref := range []string{"latest", ""} {
			hub, r := newHub(t, hubtest.Options{})
			img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
			if ref == "" {
				ref = img.Digest
			}
			hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifest, When: bearer, Count: 1, Do: fault})
			desc, raw, err := r.Manifest(t.Context(), repoAlpine, ref)
			wantManifest(t, desc, raw, err, img)
			if n := hub.Count(hubtest.Query{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, Status: http.StatusOK}); n != 2 {
				t.Errorf("%s: hub gave the manifest %d times, want 2", name, n)
			}
			hub.AssertAllFired(t)
		}
	}
}

func TestResolveIsUnsupportedWhereHeadSaysTooLittle(t *testing.T) {
	tests := map[string]hubtest.Fault{
		"405":                     hubtest.HeadNotAllowed(),
		"no digest header":        hubtest.NoDigestHeader(),
		"malformed digest header": hubtest.DigestHeader("sha256:abc"),
		"md5 digest header":       hubtest.DigestHeader("md5:d41d8cd98f00b204e9800998ecf8427e"),
		"no content type":         hubtest.ContentType(""),
		"html":                    hubtest.ContentType("text/html"),
		"json":                    hubtest.ContentType("application/json"),
		"gzip":                    hubtest.Gzip(1),
		"no length":               hubtest.RawCL(),
		"length 0":                hubtest.RawCL("0"),
	}
	for name, fault := range tests {
		t.Run(name, func(t *testing.T) {
			hub, r := newHub(t, hubtest.Options{})
			img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
			hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifest, When: bearer, Method: http.MethodHead, Do: fault})
			_, err := r.Resolve(t.Context(), repoAlpine, "latest")
			wantKind(t, "Resolve", err, pull.Unsupported)
			desc, raw, err := r.Manifest(t.Context(), repoAlpine, "latest")
			wantManifest(t, desc, raw, err, img)
			hub.AssertAllFired(t)
			hub.AssertClean(t)
		})
	}
}

func TestResolveByDigest(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	rule := hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifest, When: bearer, Do: hubtest.NoDigestHeader()})
	if desc, err := r.Resolve(t.Context(), repoAlpine, img.Digest); err != nil || desc.Digest.String() != img.Digest {
		t.Errorf("Resolve without digest header = %+v, %v; want %s", desc, err, img.Digest)
	}
	rule.Remove()
	hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifest, When: bearer, Do: hubtest.DigestHeader("sha256:" + strings.Repeat("0", 64))})
	_, err := r.Resolve(t.Context(), repoAlpine, img.Digest)
	wantKind(t, "Resolve by digest with another digest in the header", err, pull.Unsupported)
}

func TestNotFoundIsSaidByTheRegistryOnly(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	_, err := r.Resolve(t.Context(), repoAlpine, "missing")
	wantKind(t, "Resolve of a missing tag", err, pull.NotFound)
	_, _, err = r.Manifest(t.Context(), repoAlpine, "missing")
	if e := wantKind(t, "Manifest of a missing tag", err, pull.NotFound); e.Code != "MANIFEST_UNKNOWN" || e.Status != 404 || e.Message != "manifest unknown" {
		t.Errorf("error is %+v, want MANIFEST_UNKNOWN", e)
	}
	_, _, err = r.Manifest(t.Context(), repoAlpine, digestOf("", nil).String())
	wantKind(t, "Manifest of a missing digest", err, pull.NotFound)
	for _, ref := range []string{"", "../x", "a b", "sha256:abc", "sha1:" + strings.Repeat("0", 40), strings.Repeat("x", 129), "latest?x=y"} {
		_, _, err := r.Manifest(t.Context(), repoAlpine, ref)
		wantKind(t, fmt.Sprintf("Manifest(%q)", ref), err, pull.Invalid)
		_, err = r.Resolve(t.Context(), repoAlpine, ref)
		wantKind(t, fmt.Sprintf("Resolve(%q)", ref), err, pull.Invalid)
	}
	for _, repo := range []string{"", "UPPER", "a//b", "../b", "a/../b", "a?b", "a%2fb"} {
		_, _, err := r.Manifest(t.Context(), repo, "latest")
		wantKind(t, fmt.Sprintf("Manifest of repository %q", repo), err, pull.Invalid)
	}
}

func TestM29TagMovesBetweenHeadAndGet(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	first := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{Seed: 1})
	second := hub.PushImage(repoAlpine, "", hubtest.ImageSpec{Seed: 2})
	hub.AddRule(hubtest.Rule{Method: http.MethodHead, When: bearer, Do: hubtest.TagMoves(repoAlpine, "latest", second.Digest)})
	if desc, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil || desc.Digest.String() != first.Digest {
		t.Errorf("Resolve = %+v, %v; want %s", desc, err, first.Digest)
	}
	desc, raw, err := r.Manifest(t.Context(), repoAlpine, "latest")
	wantManifest(t, desc, raw, err, second)
	if desc.Digest.String() != second.Digest {
		t.Errorf("Manifest has digest %s, want %s", desc.Digest, second.Digest)
	}
}

func TestOddManifestsAreVerbatim(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	like := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	for name, raw := range hubtest.OddManifests(like.Children[0]) {
		d := hub.PutManifest(repoAlpine, "odd", like.MediaType, raw)
		desc, got, err := r.Manifest(t.Context(), repoAlpine, "odd")
		if err != nil || desc.Digest.String() != d || !bytes.Equal(got, raw) {
			t.Errorf("%s: Manifest = %+v, %v; want %s verbatim", name, desc, err, d)
		}
	}
}

func TestGzipBombIsBounded(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{})
	hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	bomb := hubtest.WrongBytes([]byte(`{"schemaVersion":2,"manifests":[` + strings.Repeat(" ", 2*manifest.MaxBytes) + `]}`))
	hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifest, When: bearer, Do: hubtest.Both(bomb, hubtest.Gzip(1))})
	_, _, err := r.Manifest(t.Context(), repoAlpine, "latest")
	e := wantKind(t, "Manifest", err, pull.Invalid)
	if errors.Is(err, pull.ErrDigest) || !strings.Contains(e.Error(), "decoded") {
		t.Errorf("error is %v, want one about the decoded size", err)
	}
}

func TestBudgetFollowsTheHeaders(t *testing.T) {
	hub, r := newHub(t, hubtest.Options{Anonymous: hubtest.Plan{Limit: 100, Window: 6 * 3600e9}})
	hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
	if list := r.Budget(); len(list) != 0 {
		t.Errorf("Budget before any request = %+v, want none", list)
	}
	if _, _, err := r.Manifest(t.Context(), repoAlpine, "latest"); err != nil {
		t.Fatal(err)
	}
	want := func(limit, remaining int64, hours float64) {
		t.Helper()
		list := r.Budget()
		if len(list) != 1 || list[0].Limit != limit || list[0].Remaining != remaining || list[0].Window.Hours() != hours || list[0].Source == "" || list[0].SeenAt.IsZero() {
			t.Errorf("Budget = %+v, want %d of %d in %v h", list, remaining, limit, hours)
		}
	}
	want(100, 99, 6)
	hub.Set(func(o *hubtest.Options) { o.Anonymous = hubtest.Plan{Limit: 10, Window: 3600e9} })
	if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
		t.Fatal(err)
	}
	if list := r.Budget(); len(list) != 1 || list[0].Limit != 10 || list[0].Window.Hours() != 1 {
		t.Errorf("Budget = %+v, want 10 in an hour", list)
	}
	hub.Set(func(o *hubtest.Options) { o.RateHeaders = hubtest.RateGarbage })
	if _, err := r.Resolve(t.Context(), repoAlpine, "latest"); err != nil {
		t.Fatal(err)
	}
	if list := r.Budget(); len(list) != 1 || list[0].Limit != 10 {
		t.Errorf("Budget after headers that say nothing = %+v, want it unchanged", list)
	}
}

func TestPullLimitIsLimited(t *testing.T) {
	for style, want := range map[hubtest.RetryAfterStyle]float64{
		hubtest.RetryNone: pullPause.Seconds(), hubtest.RetrySeconds: 3600, hubtest.RetryDate: 3600, hubtest.RetryPast: pullPause.Seconds(),
		hubtest.RetryUnix: 3600, hubtest.RetryDuration: 0.000160574,
	} {
		hub, r := newHub(t, hubtest.Options{RetryAfter: style})
		img := hub.PushImage(repoAlpine, "latest", hubtest.ImageSpec{})
		hub.SpendAll("")
		hub.AddRule(hubtest.Rule{Route: hubtest.RouteManifest, Method: http.MethodGet, When: bearer, Do: hubtest.RateLimited()})
		before := hub.Requests()
		_, _, err := r.Manifest(t.Context(), repoAlpine, "latest")
		e := wantKind(t, "Manifest over the limit", err, pull.Limited)
		if got := e.RetryAfter.Seconds(); got < want-5 || got > want+1 || e.Code != "TOOMANYREQUESTS" {
			t.Errorf("style %q: RetryAfter is %v, code %q; want about %v s", style, e.RetryAfter, e.Code, want)
		}
		if n := hub.Requests() - before; n != 3 {
			t.Errorf("hub saw %d requests, want 3: a 429 is not retried", n)
		}
		if _, err := r.Resolve(t.Context(), repoAlpine, img.Digest); err != nil {
			t.Errorf("Resolve over the limit: %v", err)
		}
	}
}

// odd answers as a registry that has one thing, which it gives in its own way.
func odd(t *testing.T, status int, header map[string]string, body string) (r *Registry, gets *atomic.Int32) {
	t.Helper()
	gets = &atomic.Int32{}
	return serve(t, func(w http.ResponseWriter, req *http.Request) {
		for name, value := range header {
			w.Header().Set(name, value)
		}
		if req.Method == http.MethodGet {
			gets.Add(1)
		}
		w.WriteHeader(status)
		if req.Method == http.MethodGet {
			_, _ = io.WriteString(w, body)
		}
	}), gets
}

// 203 is a 200 that a proxy has changed, and a 206 of everything is everything.
func TestOther200sAreContent(t *testing.T) {
	body := `{"schemaVersion":2,"mediaType":"` + hubtest.OCIManifest + `","config":{},"layers":[]}`
	d := digestOf("", []byte(body))
	whole := fmt.Sprintf("bytes 0-%d/%d", len(body)-1, len(body))
	for _, row := range []struct {
		status int
		ranges string // Content-Range
		good   bool
	}{
		{200, "", true}, {203, "", true}, {206, whole, true},
		{206, "", false}, {206, "bytes 0-1/2", false}, {206, fmt.Sprintf("bytes 0-%d/*", len(body)-1), false},
		{206, fmt.Sprintf("bytes 1-%d/%d", len(body), len(body)+1), false}, {201, "", false}, {202, "", false}, {207, "", false}, {299, "", false},
	} {
		r, _ := odd(t, row.status, map[string]string{"Content-Type": hubtest.OCIManifest, "Content-Range": row.ranges}, body)
		_, got, err := r.Manifest(t.Context(), "a/b", "latest")
		if (err == nil) != row.good || row.good && string(got) != body {
			t.Errorf("%d %q: Manifest = %q, %v", row.status, row.ranges, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "schemaVersion") {
			t.Errorf("%d %q: Manifest = %v, which tells of the content", row.status, row.ranges, err)
		}
		_, blob, err := readBlob(t.Context(), r, "a/b", d, 0, -1)
		if (err == nil) != row.good || row.good && string(blob) != body {
			t.Errorf("%d %q: blob = %q, %v", row.status, row.ranges, blob, err)
		}
		if err != nil && strings.Contains(err.Error(), "schemaVersion") {
			t.Errorf("%d %q: blob = %v, which tells of the content", row.status, row.ranges, err)
		}
		if size, err := r.StatBlob(t.Context(), "a/b", d); row.good && (err != nil || size < 0 && row.status != 206) {
			t.Errorf("%d %q: StatBlob = %d, %v", row.status, row.ranges, size, err)
		}
	}
}

// What the registry means to give and we do not pass on is refused with its reason, and by one GET.
func TestContentThatIsRefused(t *testing.T) {
	signed := `{"schemaVersion":1,"name":"a/b","fsLayers":[{"blobSum":"x"}],"signatures":[{}]}`
	both := `{"schemaVersion":2,"layers":[{}],"manifests":[{}]}`
	for _, row := range []struct{ what, kind, digest, body, want string }{
		{"two families", hubtest.OCIIndex, digestOf("", []byte(both)).String(), both, "beside parts of another family"},
		{"no type", "text/html", digestOf("", []byte("{}")).String(), "{}", "no manifest's"},
		{"too large", hubtest.OCIManifest, "", string(hubtest.BigManifest(manifest.MaxBytes + 1)), fmt.Sprintf("%d are the most", manifest.MaxBytes)},
		{"signed", hubtest.DockerSchema1, digestOf("", []byte("its payload")).String(), signed, "leaves out the signatures"},
	} {
		r, gets := odd(t, 200, map[string]string{"Content-Type": row.kind, "Docker-Content-Digest": row.digest, "Content-Length": fmt.Sprint(len(row.body))}, row.body)
		_, _, err := r.Manifest(t.Context(), "a/b", "latest")
		var e *pull.Error
		if !errors.As(err, &e) || e.Kind != pull.Invalid || e.Detail != pull.Refused || !strings.Contains(e.Message, row.want) || gets.Load() != 1 {
			t.Errorf("%s: Manifest = %v after %d GETs, want one, and a refusal with %q", row.what, err, gets.Load(), row.want)
		}
	}
	r, _ := odd(t, 200, map[string]string{"Content-Type": "text/html"}, "<html>please log in</html>")
	if _, _, err := r.Manifest(t.Context(), "a/b", "latest"); pull.KindOf(err) != pull.Invalid || pull.DetailOf(err) == pull.Refused {
		t.Errorf("Manifest = %v of a page without a digest, want an invalid answer that may be another next time", err)
	}
}

// A registry hides what a request does not accept.
func TestWhatTheClientAcceptsIsAskedFor(t *testing.T) {
	const own = "application/vnd.example.thing.manifest.v1+json"
	for _, hides := range []string{own, "application/vnd.oci.artifact.manifest.v1+json", "application/vnd.cncf.oras.artifact.manifest.v1+json", hubtest.DockerManifest} {
		r := serve(t, func(w http.ResponseWriter, req *http.Request) {
			if !strings.Contains(req.Header.Get("Accept"), hides) {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("Content-Type", hides)
			fmt.Fprintf(w, `{"mediaType":%q}`, hides)
		})
		desc, _, err := r.Manifest(pull.WithAccept(t.Context(), own), "a/b", "latest")
		if err != nil || string(desc.MediaType) != hides {
			t.Errorf("Manifest = %v, %v; want one of type %s", desc, err, hides)
		}
	}
}
