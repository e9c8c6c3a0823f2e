package hubtest

import (
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite testdata")

// secretText is what differs between runs or seeds: signatures and tokens.
var secretText = regexp.MustCompile(`(verify=\d+-|X-Amz-Signature=|Signature=|token":")[^&"\s]+`)

// The files in testdata are exchanges with Docker Hub as captured in 2020 to 2026;
// status, headers, and bodies must stay as they were seen. Line ends are LF there.
func TestF73RecordedExchanges(t *testing.T) {
	start := time.Date(2026, 7, 15, 14, 24, 11, 0, time.UTC)
	hub := New(t, Options{Named: true, InMemory: true, ClientIP: "203.127.181.131", Now: func() time.Time { return start }})
	img := hub.PushImage("ai/smollm2", "latest", ImageSpec{Seed: 1, LayerSize: 64})
	p := newProbe(t, hub)
	token := p.token("ai/smollm2")
	auth := append([]string{"Authorization", "Bearer " + token}, acceptAll()...)
	registry, blob := hub.RegistryURL(), img.Blobs()[0].Digest
	missing := append([]string{"Authorization", "Bearer " + p.token("library/this-does-not-exist")}, acceptAll()...)
	for _, c := range []struct {
		name, method, url string
		header            []string
		before            func()
	}{
		{name: "ping", method: "GET", url: registry + "/v2/"},
		{name: "ping with token", method: "GET", url: registry + "/v2/", header: auth},
		{name: "challenge", method: "GET", url: registry + "/v2/ai/smollm2/manifests/latest"},
		{name: "missing repository", method: "GET", url: registry + "/v2/library/this-does-not-exist/manifests/latest", header: missing},
		{name: "token", method: "GET", url: p.tokenURL("ai/smollm2")},
		{name: "bad password", method: "GET", url: p.tokenURL("ai/smollm2"), header: basic("u", "bad")},
		{name: "manifest", method: "GET", url: registry + "/v2/ai/smollm2/manifests/latest", header: auth},
		{name: "manifest head", method: "HEAD", url: registry + "/v2/ai/smollm2/manifests/latest", header: auth},
		{name: "missing tag", method: "GET", url: registry + "/v2/ai/smollm2/manifests/this-does-not-exist", header: auth},
		{name: "blob", method: "GET", url: registry + "/v2/ai/smollm2/blobs/" + blob, header: auth},
		{name: "blob at cloudflare", method: "HEAD", url: hub.SignedURL(RoleCF, blob)},
		{name: "pull limit", method: "GET", url: registry + "/v2/ai/smollm2/manifests/latest", header: auth,
			before: func() { hub.SpendAll("203.127.181.131") }},
		{name: "abuse limit", method: "GET", url: registry + "/v2/ai/smollm2/manifests/latest", header: auth,
			before: func() { hub.TripAbuse(time.Minute) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.before != nil {
				c.before()
			}
			got := transcript(c.method, c.url, p.do(c.method, c.url, c.header...))
			file := filepath.Join("testdata", strings.ReplaceAll(c.name, " ", "-")+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("exchange differs from %s:\n%s\nwant:\n%s", file, got, want)
			}
		})
	}
}

func transcript(method, url string, a answer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n%d %s\n", method, url, a.status, http.StatusText(a.status))
	for _, k := range slices.Sorted(maps.Keys(a.header)) {
		for _, v := range a.header[k] {
			fmt.Fprintf(&b, "%s: %s\n", strings.ToLower(k), v)
		}
	}
	fmt.Fprintf(&b, "\n%s", a.body)
	return secretText.ReplaceAllString(b.String(), "${1}…")
}
