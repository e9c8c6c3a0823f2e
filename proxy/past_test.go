package proxy

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/internal/pull"
	"forebay/internal/sums"
)

func denied() error {
	return &pull.Error{Kind: pull.Denied, Detail: pull.ByPolicy, Code: "Cool Down", Upstream: "docker.io", Op: "get manifest", Message: "policy cooling: too young (promote it)"}
}

// What the table of docs/policies.md says of each kind of client.
func TestRefusalByPolicyStopsWhoeverCanBeStopped(t *testing.T) {
	tests := []struct {
		name, method, path, agent string
		fallback                  Fallback
		status                    int
		stops                     bool // by a type that it does not know
	}{
		{"direct", "GET", "/v2/docker.io/library/app/manifests/1", "crane/1", FallbackClients, 403, false},
		{"no fallback", "HEAD", "/v2/library/app/manifests/1?ns=docker.io", "containerd/2", FallbackNone, 403, false},
		{"containerd HEAD", "HEAD", "/v2/library/app/manifests/1?ns=docker.io", "containerd/2", FallbackClients, 200, true},
		{"containerd HEAD of a digest", "HEAD", "/v2/library/app/manifests/" + digestA + "?ns=docker.io", "containerd/2", FallbackClients, 200, true},
		{"containerd GET of a digest", "GET", "/v2/library/app/manifests/" + digestA + "?ns=docker.io", "containerd/2", FallbackClients, 403, false},
		{"podman GET", "GET", "/v2/library/app/manifests/1", "containers/5", FallbackClients, 200, true},
		{"skopeo GET", "GET", "/v2/docker.io/library/app/manifests/1", "skopeo/1.9.3", FallbackClients, 200, true},
		{"skopeo GET without a fallback", "GET", "/v2/docker.io/library/app/manifests/1", "skopeo/1.9.3", FallbackNone, 403, false},
		{"podman GET of a digest", "GET", "/v2/library/app/manifests/" + digestA, "containers/5", FallbackClients, 403, false},
		{"another mirror", "GET", "/v2/library/app/manifests/1", "forebay/1", FallbackClients, 403, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url := serve(t, newHandler(t, &fakeCache{err: denied()}, func(o *Options) { o.Fallback = tt.fallback }))
			a := ask(t, tt.method, url+tt.path, "User-Agent", tt.agent, "Accept", "*/*")
			if a.StatusCode != tt.status {
				t.Fatalf("%s %s = %d %s, want %d", tt.method, tt.path, a.StatusCode, a.body, tt.status)
			}
			if a.Header.Get("Www-Authenticate") != "" {
				t.Error("it asks for a login")
			}
			if !tt.stops {
				if tt.method == http.MethodGet && (a.code() != "DENIED" || !strings.Contains(a.body, "policy cooling")) {
					t.Errorf("body = %s, want DENIED with rule and way out", a.body)
				}
				return
			}
			if got := a.Header.Get("Content-Type"); got != "application/vnd.forebay.refused.cool-down+json" {
				t.Errorf("Content-Type = %q", got)
			}
			d := a.Header.Get("Docker-Content-Digest")
			if tag := strings.HasPrefix(tt.name, "containerd HEAD") && !strings.HasSuffix(tt.name, "digest"); tag != strings.Contains(d, "policy cooling: ") {
				t.Errorf("Docker-Content-Digest = %q; after the HEAD of a tag it says why, and else it is one", d)
			}
			if a.Header.Get("Content-Length") == "0" || d == "" || d == digestA {
				t.Errorf("length %s, digest %s", a.Header.Get("Content-Length"), d)
			}
			if tt.method == http.MethodGet {
				if got, err := sums.Of("sha256", []byte(a.body)); err != nil || got.String() != d {
					t.Errorf("the body has digest %s, %v; the answer says %s", got, err, d)
				}
			}
		})
	}
}

// fakePast knows one tag.
type fakePast struct {
	digest v1.Hash
	since  time.Time
	asked  []string
}

func (p *fakePast) AsOf(_ context.Context, repo cache.Repo, tag, past string) (v1.Hash, time.Time, error) {
	p.asked = append(p.asked, repo.String()+":"+tag+" @"+past)
	if tag != "1" {
		return v1.Hash{}, time.Time{}, &pull.Error{Kind: pull.NotFound, Detail: pull.ByPolicy, Code: "as-of", Message: "not known then"}
	}
	return p.digest, p.since, nil
}

func (p *fakePast) TagsAsOf(context.Context, cache.Repo, string) ([]string, error) {
	return []string{"1"}, nil
}

func (p *fakePast) History(cache.Repo, string) ([]Held, error) {
	return []Held{{p.since, p.digest.String()}}, nil
}

func TestTagsOfThePast(t *testing.T) {
	since := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	body := []byte("{}")
	d, err := sums.Of("sha256", body)
	if err != nil {
		t.Fatal(err)
	}
	p := &fakePast{digest: d, since: since}
	f := &fakeCache{manifest: cache.Manifest{Desc: v1.Descriptor{MediaType: ociManifest, Digest: d, Size: 2}, Bytes: body, Result: cache.Hit}}
	url := serve(t, newHandler(t, f, func(o *Options) { o.Past = p }))
	for _, path := range []string{"/v2/@2026-11-01T12:00Z/library/app/manifests/1", "/v2/@2026-11-01T12%3A00Z/library/app/manifests/1", "/v2/@prod/ghcr.io/owner/app/manifests/1", "/@prod/v2/library/app/manifests/1?ns=docker.io"} {
		f.calls = nil
		a := ask(t, "GET", url+path)
		if a.StatusCode != 200 || a.body != "{}" || a.Header.Get("Last-Modified") != "Sun, 01 Nov 2026 12:00:00 GMT" {
			t.Errorf("%s = %d %s, Last-Modified %q", path, a.StatusCode, a.body, a.Header.Get("Last-Modified"))
		}
		if !strings.Contains(f.asked(), d.String()) || strings.Contains(f.asked(), "app 1") {
			t.Errorf("%s asked for %s, want the digest alone", path, f.asked())
		}
	}
	for path, want := range map[string]int{
		"/v2/@prod/": 200, "/v2/@prod/library/app/tags/list": 200,
		"/v2/@prod/docker.io/library/app/manifests/2": 404, "/v2/@prod/library/app/manifests/2": 200, // the latter stops who would go on to the registry
		"/v2/@UPPER/library/app/manifests/1": 404, "/v2/@/library/app/manifests/1": 404, "/@a/v2/@b/library/app/manifests/1": 404,
	} {
		if a := ask(t, "GET", url+path, "User-Agent", "crane/1"); a.StatusCode != want {
			t.Errorf("%s = %d %s, want %d", path, a.StatusCode, a.body, want)
		}
	}
	if a := ask(t, "GET", url+"/v2/library/app/_forebay/history/1"); a.body != `{"history":[{"updateTimestamp":"2026-11-01T12:00:00Z","digest":"`+d.String()+`"}]}` {
		t.Errorf("history = %d %s", a.StatusCode, a.body)
	}
}
