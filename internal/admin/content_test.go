package admin

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"forebay/cache"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func digestText(s string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(s))) }

func octets(r *http.Request) { r.Header.Set("Content-Type", "application/octet-stream") }

func TestContentGoesInAndOutByItsDigest(t *testing.T) {
	a := openAPIFor(t, true, "")
	layer, other := "layer", digestText("other")
	manifest := `{"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"digest":"` + digestText(layer) + `","size":5},{"digest":"` + other + `","size":7}]}`
	for _, text := range []string{layer, manifest, "", strings.Repeat("x", 2*bodyMost)} {
		if w := asks(a, "POST", "/content/"+digestText(text), text, octets); w.Code != 204 {
			t.Errorf("POST of %d bytes = %d %s", len(text), w.Code, w.Body)
		}
		if w := asks(a, "GET", "/content/"+digestText(text), "", nil); w.Code != 200 || w.Body.String() != text {
			t.Errorf("GET of %d bytes = %d and %d bytes", len(text), w.Code, w.Body.Len())
		}
	}
	var lacking DigestList
	w := asks(a, "POST", "/lacking", `{"digests":["`+digestText(layer)+`","`+other+`"]}`, nil)
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
	w = asks(a, "POST", "/admit", `{"ref":"app:1","digest":"`+digestText(manifest)+`","pin":true}`, nil)
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
		{"POST", "/content/" + digestText("a"), "b", octets, 422, "bad_content"},
		{"POST", "/content/" + digestText("a"), "a", nil, 415, "bad_type"},
		{"POST", "/content/sha256:x", "a", octets, 400, "bad_request"},
		{"POST", "/content/md5:d41d8cd98f00b204e9800998ecf8427e", "", octets, 400, "bad_request"},
		{"POST", "/content/" + digestText("a"), "a", func(r *http.Request) { octets(r); r.ContentLength = -1 }, 411, "no_length"},
		{"POST", "/content/" + digestText("a"), "a", func(r *http.Request) { octets(r); r.Header.Del(OwnHeader) }, 403, "no_header"},
		{"GET", "/content/" + other, "", nil, 404, "not_kept"},
		{"GET", "/stored?limit=9999", "", nil, 400, "bad_request"},
		{"GET", "/stored?after=x", "", nil, 400, "bad_request"},
		{"POST", "/lacking", `{"digests":["x"]}`, nil, 400, "bad_request"},
		{"POST", "/lacking", `{"digests":[` + strings.Repeat(`"x",`, digestsMost) + `"x"]}`, nil, 400, "bad_request"},
		{"POST", "/admit", `{"ref":"app:2","digest":"` + other + `"}`, nil, 404, "not_kept"},
		{"POST", "/admit", `{"ref":"app:2","digest":"` + digestText(layer) + `"}`, nil, 422, "bad_content"},
		{"POST", "/admit", `{"ref":"unknown.example.com/app:2","digest":"` + other + `"}`, nil, 400, "bad_reference"},
		{"POST", "/admit", `{"ref":"app@` + other + `","digest":"` + digestText(layer) + `"}`, nil, 400, "bad_request"},
		{"GET", "/contents?ref=app:1&platforms=x", "", nil, 400, "bad_request"},
	} {
		w := asks(a, tt.method, tt.path, tt.body, tt.change)
		if code := codeOf(t, w); w.Code != tt.status || code != tt.code {
			t.Errorf("%s %.60s %.40s = %d %s, want %d %s", tt.method, tt.path, tt.body, w.Code, w.Body, tt.status, tt.code)
		}
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
