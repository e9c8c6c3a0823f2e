package admin

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/internal/bundle"
	"forebay/internal/wire"
)

func digestText(s string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }

func octets(r *http.Request) { r.Header.Set("Content-Type", "application/octet-stream") }

// beginImport begins an import, and returns its path.
func beginImport(t *testing.T, a *API) string {
	t.Helper()
	var in Import
	w := asks(a, "POST", "/imports", "{}", nil)
	if err := json.Unmarshal(w.Body.Bytes(), &in); err != nil || in.ID == "" {
		t.Fatalf("POST /imports = %d %s", w.Code, w.Body)
	}
	return "/imports/" + in.ID
}

func TestContentGoesInAndOutByItsDigest(t *testing.T) {
	a := openAPIFor(t, true, "")
	in := beginImport(t, a)
	layer, other := "layer", digestText("other")
	manifest := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"digest":"` + digestText(layer) + `","size":5},{"digest":"` + other + `","size":7}]}`
	for _, text := range []string{layer, manifest, "", strings.Repeat("x", 2*bodyMost)} {
		for had, w := range []*httptest.ResponseRecorder{asks(a, "POST", in+"/content/"+digestText(text), text, octets), asks(a, "POST", in+"/content", text, octets)} {
			if want := fmt.Sprintf(`{"digest":"%s","had":%t}`, digestText(text), had > 0); w.Code != 200 || strings.TrimSpace(w.Body.String()) != want {
				t.Errorf("POST of %d bytes = %d %s, want %s", len(text), w.Code, w.Body, want)
			}
		}
		if w := asks(a, "GET", "/content/"+digestText(text), "", nil); w.Code != 200 || w.Body.String() != text {
			t.Errorf("GET of %d bytes = %d and %d bytes", len(text), w.Code, w.Body.Len())
		}
	}
	var lacking DigestList
	w := asks(a, "POST", in+"/lacking", `{"digests":["`+digestText(layer)+`","`+other+`"]}`, nil)
	if err := json.Unmarshal(w.Body.Bytes(), &lacking); err != nil || len(lacking.Digests) != 1 || lacking.Digests[0] != other {
		t.Errorf("lacking = %s, %v", w.Body, err)
	}
	var page StoredPage
	w = asks(a, "GET", "/stored?limit=2", "", nil)
	if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || len(page.Blobs) != 2 || page.Next == "" {
		t.Errorf("stored = %s, %v", w.Body, err)
	}
	if w := asks(a, "GET", "/contents?ref=app", "", nil); codeOf(t, w) != "not_kept" {
		t.Errorf("contents before = %d %s", w.Code, w.Body)
	}
	var admitted AdmitAnswer
	w = asks(a, "POST", in+"/admit", `{"ref":"app:1","digest":"`+digestText(manifest)+`","pin":true}`, nil)
	if err := json.Unmarshal(w.Body.Bytes(), &admitted); err != nil || admitted.MissingCount != 1 || !admitted.Pinned || admitted.Ref != "docker.io/library/app:1" {
		t.Errorf("admit = %s, %v", w.Body, err)
	}
	var contents Contents
	w = asks(a, "GET", "/contents?ref=app:1", "", nil)
	if err := json.Unmarshal(w.Body.Bytes(), &contents); err != nil || len(contents.Parts) != 3 {
		t.Errorf("contents = %s, %v", w.Body, err)
	}
	for _, tt := range []struct {
		method, path, body string
		change             func(*http.Request)
		status             int
		code               string
	}{
		{"POST", in + "/content/" + digestText("a"), "b", octets, 422, "bad_content"},
		{"POST", in + "/content/" + digestText("a"), "a", nil, 415, "bad_type"},
		{"POST", in + "/content/sha256:x", "a", octets, 400, "bad_request"},
		{"POST", in + "/content/md5:d41d8cd98f00b204e9800998ecf8427e", "", octets, 400, "bad_request"},
		{"POST", in + "/content/" + digestText("a"), "a", func(r *http.Request) { octets(r); r.ContentLength = -1 }, 411, "no_length"},
		{"POST", in + "/content/" + digestText("a"), "a", func(r *http.Request) { octets(r); r.Header.Del(OwnHeader) }, 403, "no_header"},
		{"GET", "/content/" + other, "", nil, 404, "not_kept"},
		{"GET", "/stored?limit=9999", "", nil, 400, "bad_request"},
		{"GET", "/stored?after=x", "", nil, 400, "bad_request"},
		{"POST", in + "/lacking", `{"digests":["x"]}`, nil, 400, "bad_request"},
		{"POST", in + "/lacking", `{"refs":["unknown.example.com/app"],"digests":["` + other + `"]}`, nil, 400, "bad_reference"},
		{"POST", in + "/content", "a", func(r *http.Request) { octets(r); r.ContentLength = -1 }, 411, "no_length"},
		{"POST", in + "/content", "a", nil, 415, "bad_type"},
		{"POST", "/imports/x/content", "a", octets, 404, "no_import"},
		{"POST", "/imports/x/content/" + digestText("a"), "a", octets, 404, "no_import"},
		{"POST", "/imports/x/lacking", `{"digests":[]}`, nil, 404, "no_import"},
		{"POST", "/imports/x/admit", `{"ref":"app:2","digest":"` + digestText(layer) + `"}`, nil, 404, "no_import"},
		{"DELETE", "/imports/x", "", nil, 404, "no_import"},
		{"POST", in + "/lacking", `{"digests":[` + strings.Repeat(`"x",`, digestsMost) + `"x"]}`, nil, 400, "bad_request"},
		{"POST", in + "/admit", `{"ref":"app:2","digest":"` + other + `"}`, nil, 404, "not_kept"},
		{"POST", in + "/admit", `{"ref":"app:2","digest":"` + digestText(layer) + `"}`, nil, 422, "bad_content"},
		{"POST", in + "/admit", `{"ref":"unknown.example.com/app:2","digest":"` + other + `"}`, nil, 400, "bad_reference"},
		{"POST", in + "/admit", `{"ref":"app@` + other + `","digest":"` + digestText(layer) + `"}`, nil, 400, "bad_request"},
		{"GET", "/contents?ref=app:1&platforms=x", "", nil, 400, "bad_request"},
	} {
		w := asks(a, tt.method, tt.path, tt.body, tt.change)
		if code := codeOf(t, w); w.Code != tt.status || code != tt.code {
			t.Errorf("%s %.60s %.40s = %d %s, want %d %s", tt.method, tt.path, tt.body, w.Code, w.Body, tt.status, tt.code)
		}
	}
}

// What pins take all together is told of the same moment as what each takes.
func TestPinsAddUp(t *testing.T) {
	a := openAPIFor(t, true, "")
	in := beginImport(t, a)
	manifest := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"digest":"` + digestText("layer") + `","size":5}]}`
	for _, step := range []struct{ path, body string }{
		{in + "/content", "layer"}, {in + "/content", manifest},
		{in + "/admit", `{"ref":"app:1","digest":"` + digestText(manifest) + `","pin":true}`}, {"/purge", `{"target":"app:1","force":true}`},
	} {
		change := octets
		if strings.HasPrefix(step.body, `{"ref`) || strings.HasPrefix(step.body, `{"target`) {
			change = nil
		}
		if w := asks(a, "POST", step.path, step.body, change); w.Code != 200 {
			t.Fatalf("POST %s = %d %s", step.path, w.Code, w.Body)
		}
		var pins PinList
		w := asks(a, "GET", "/pins", "", nil)
		if err := json.Unmarshal(w.Body.Bytes(), &pins); err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, p := range pins.Pins {
			sum += p.Bytes
		}
		if sum != pins.Bytes {
			t.Errorf("pins after %s = %s, want %d bytes of all", step.path, w.Body, sum)
		}
	}
}

// Who calls may say much: only bytes that came in his import count, and what a signature
// vouches for that is right.
func TestImportGrantsNothingThatItDidNotBring(t *testing.T) {
	a := openAPIFor(t, true, "")
	theirs := "a layer of somebody else"
	if w := asks(a, "POST", beginImport(t, a)+"/content", theirs, octets); w.Code != 200 {
		t.Fatalf("POST of the layer = %d %s", w.Code, w.Body)
	}
	text := fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"digest":"%s","size":%d}]}`, digestText(theirs), len(theirs))
	admit := func(in, tag string) AdmitAnswer {
		t.Helper()
		if w := asks(a, "POST", in+"/content", text, octets); w.Code != 200 {
			t.Fatalf("POST of the manifest = %d %s", w.Code, w.Body)
		}
		var got AdmitAnswer
		w := asks(a, "POST", in+"/admit", `{"ref":"app:`+tag+`","digest":"`+digestText(text)+`"}`, nil)
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != 200 {
			t.Fatalf("admit = %d %s", w.Code, w.Body)
		}
		return got
	}
	in := beginImport(t, a)
	var lacking DigestList
	w := asks(a, "POST", in+"/lacking", `{"refs":["app"],"digests":["`+digestText(theirs)+`"]}`, nil)
	if err := json.Unmarshal(w.Body.Bytes(), &lacking); err != nil || len(lacking.Digests) != 1 {
		t.Errorf("lacking = %s, want the layer, which the repository does not hold", w.Body)
	}
	for name, body := range map[string]string{"nothing": "", "other bytes": strings.Repeat("x", len(theirs)), "the beginning": theirs[:5]} {
		if w := asks(a, "POST", in+"/content/"+digestText(theirs), body, octets); codeOf(t, w) != "bad_content" {
			t.Errorf("POST of %s for what is kept = %d %s", name, w.Code, w.Body)
		}
	}
	if got := admit(in, "1"); got.MissingCount != 1 {
		t.Errorf("admit without the layer = %+v, want it missing", got)
	}

	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	hash := func(text string) bundle.Blob {
		return bundle.Blob{Digest: wire.Digest{Hash: v1.Hash{Algorithm: "sha256", Hex: strings.TrimPrefix(digestText(text), "sha256:")}}, Size: int64(len(text))}
	}
	archive, err := bundle.New(bundle.Packing{
		Images:    []bundle.Image{{Name: "docker.io/library/app:2", Digest: hash(text).Digest, Size: hash(text).Size}},
		Manifests: []bundle.Blob{hash(text)}, Assumed: []bundle.Blob{hash(theirs)},
		Sign: func(text []byte) ([]byte, error) { return bundle.Sign(private, text) },
	})
	if err != nil {
		t.Fatal(err)
	}
	other, _, _ := ed25519.GenerateKey(nil)
	begin := func(manifest, signature []byte, key string) *httptest.ResponseRecorder {
		t.Helper()
		b, err := json.Marshal(ImportRequest{Signed: &SignedManifest{string(manifest), string(signature), key}})
		if err != nil {
			t.Fatal(err)
		}
		return asks(a, "POST", "/imports", string(b), nil)
	}
	for name, tt := range map[string]struct {
		w    *httptest.ResponseRecorder
		code string
	}{
		"of another key":    {begin(archive.Manifest, archive.Signature, bundle.PublicKeyText(other)), "bad_signature"},
		"without a key":     {begin(archive.Manifest, archive.Signature, ""), "bad_request"},
		"without signature": {begin(archive.Manifest, nil, bundle.PublicKeyText(public)), "bad_signature"},
		"of something else": {begin([]byte("{}"), archive.Signature, bundle.PublicKeyText(public)), "bad_signature"},
		"of a changed list": {begin(bytes.Replace(archive.Manifest, []byte("app:2"), []byte("app:3"), 1), archive.Signature, bundle.PublicKeyText(public)), "bad_signature"},
	} {
		if code := codeOf(t, tt.w); code != tt.code {
			t.Errorf("an import with a signature %s = %d %s, want %s", name, tt.w.Code, tt.w.Body, tt.code)
		}
	}
	var signed Import
	w = begin(archive.Manifest, archive.Signature, bundle.PublicKeyText(public))
	if err := json.Unmarshal(w.Body.Bytes(), &signed); err != nil || w.Code != 200 {
		t.Fatalf("an import with a signature = %d %s", w.Code, w.Body)
	}
	if got := admit("/imports/"+signed.ID, "2"); got.MissingCount != 0 {
		t.Errorf("admit of what a signature vouches for = %+v, want it whole", got)
	}
	if w := asks(a, "DELETE", "/imports/"+signed.ID, "", nil); w.Code != 204 {
		t.Errorf("DELETE = %d %s", w.Code, w.Body)
	}
	if w := asks(a, "POST", "/imports/"+signed.ID+"/content", "x", octets); codeOf(t, w) != "no_import" {
		t.Errorf("POST to an import that has ended = %d %s", w.Code, w.Body)
	}
}

func TestDamagedManifestIsToldOf(t *testing.T) {
	a := openAPIFor(t, true, "")
	text := []byte("no manifest")
	d := v1.Hash{Algorithm: "sha256", Hex: strings.TrimPrefix(digestText(string(text)), "sha256:")}
	repo := cache.Repo{Upstream: "docker.io", Name: "library/app"}
	if _, err := a.keeper.Store.PutManifest(repo, v1.Descriptor{Digest: d}, text); err != nil {
		t.Fatal(err)
	}
	w := asks(a, "GET", "/contents?ref=docker.io/library/app@"+d.String(), "", nil)
	if w.Code != 500 || !strings.Contains(w.Body.String(), `"unreadable"`) {
		t.Errorf("GET /contents = %d %s, want 500 and the code unreadable", w.Code, w.Body)
	}
}
