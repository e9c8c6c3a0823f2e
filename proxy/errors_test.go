package proxy

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"forebay/internal/pull"
)

// T12, T28, T42 of docs/clients.md: who is told what.
func TestErrorTable(t *testing.T) {
	const (
		dockerd    = "docker/28.5.2 go/go1.24 UpstreamClient(Docker-Client/28 \\(linux\\))"
		containerd = "containerd/2.3.4"
		podman     = "containers/5.40.0 (github.com/containers/image)"
		skopeo     = "skopeo/1.9.3"
		crane      = "crane go-containerregistry/v0.22.1"
	)
	clients := []struct {
		name, agent, path, query string
		direct                   bool
	}{
		{"dockerd", dockerd, "/v2/library/x", "", false},
		{"dockerd with a prefixed mirror", dockerd, "/docker.io/v2/library/x", "", false},
		{"containerd", containerd, "/v2/library/x", "?ns=docker.io", false},
		{"containerd with override_path", containerd, "/v2/docker.io/library/x", "?ns=docker.io", false},
		{"podman", podman, "/v2/library/x", "", false},
		{"podman with a prefixed mirror", podman, "/v2/docker.io/library/x", "", false},
		{"cri-o with a prefixed mirror", "cri-o/1.33", "/v2/docker.io/library/x", "", false},
		{"skopeo", skopeo, "/v2/library/x", "", false},
		{"buildkit with a prefixed mirror", "buildkit/v0.25", "/v2/docker.io/library/x", "", false},
		{"kaniko with a registry map", "kaniko/v1.23", "/v2/docker.io/library/x", "", false},
		{"crane, direct", crane, "/v2/docker.io/library/x", "", true},
		{"skopeo, direct", skopeo, "/v2/docker.io/library/x", "", true},
		{"dockerd, direct", dockerd, "/v2/docker.io/library/x", "", true},
		{"helm, direct", "Helm/3.18", "/v2/docker.io/library/x", "", true},
	}
	const m, b = "MANIFEST_UNKNOWN", "BLOB_UNKNOWN"
	rows := []struct {
		name               string
		err                error
		manifest, blob     int // to a mirror's client
		code               string
		direct             int
		directCode         string
		retryAfter         string // of a 429 or 503
		containersManifest int    // 0 means as for others
	}{
		{"not found", kind(pull.NotFound), 404, 404, m, 404, "", "", 0},
		{"denied", kind(pull.Denied), 404, 404, m, 403, "DENIED", "", 0},
		{"limited", &pull.Error{Kind: pull.Limited, Upstream: "docker.io", Status: 429, RetryAfter: 90500 * time.Millisecond}, 429, 404, "TOOMANYREQUESTS", 429, "TOOMANYREQUESTS", "91", 503},
		{"limited without a time", kind(pull.Limited), 429, 404, "TOOMANYREQUESTS", 429, "TOOMANYREQUESTS", "60", 503},
		{"unreachable", kind(pull.Unavailable), 503, 404, "UNAVAILABLE", 503, "UNAVAILABLE", "5", 0},
		{"500", &pull.Error{Kind: pull.Unavailable, Upstream: "docker.io", Status: 500}, 503, 404, "UNAVAILABLE", 502, "UNAVAILABLE", "5", 0},
		{"503", &pull.Error{Kind: pull.Unavailable, Upstream: "docker.io", Status: 503, RetryAfter: 7 * time.Second}, 503, 404, "UNAVAILABLE", 503, "UNAVAILABLE", "7", 0},
		{"504", &pull.Error{Kind: pull.Unavailable, Upstream: "docker.io", Status: 504}, 503, 404, "UNAVAILABLE", 504, "UNAVAILABLE", "5", 0},
		{"timeout", kind(pull.Timeout), 503, 404, "UNAVAILABLE", 504, "UNAVAILABLE", "5", 0},
		{"our deadline", fmt.Errorf("wait: %w", context.DeadlineExceeded), 503, 404, "UNAVAILABLE", 504, "UNAVAILABLE", "5", 0},
		{"invalid", kind(pull.Invalid), 503, 404, "UNAVAILABLE", 502, "UNAVAILABLE", "5", 0},
		{"overloaded", kind(pull.Overloaded), 503, 404, "UNAVAILABLE", 503, "UNAVAILABLE", "5", 0},
		{"unclassified", errors.New("open /var/lib/secret: no such file"), 503, 404, "UNAVAILABLE", 503, "UNAVAILABLE", "5", 0},
	}
	f := &fakeCache{}
	url := serve(t, newHandler(t, f, nil))
	none := serve(t, newHandler(t, f, func(o *Options) { o.Fallback = FallbackNone }))
	for _, row := range rows {
		f.err = row.err
		for _, c := range clients {
			for _, blob := range []bool{false, true} {
				path, status, code := c.path+"/manifests/latest"+c.query, row.manifest, row.code
				if blob {
					path, status, code = c.path+"/blobs/"+digestA+c.query, row.blob, b
				}
				image := strings.Contains(c.agent, "containers/") || strings.HasPrefix(c.agent, "cri-o") || c.agent == skopeo
				if !blob && image && row.containersManifest != 0 {
					status = row.containersManifest
				}
				direct, directCode := row.direct, row.directCode
				if directCode == "" {
					directCode = map[bool]string{false: m, true: b}[blob]
				}
				if c.direct {
					status, code = direct, directCode
				}
				checkReply(t, c.name+": "+row.name, url+path, c.agent, status, code, row.retryAfter)
				checkReply(t, c.name+", no fallback: "+row.name, none+path, c.agent, direct, directCode, row.retryAfter)
			}
		}
	}
}

// checkReply checks GET and HEAD.
func checkReply(t *testing.T, what, url, agent string, status int, code, retryAfter string) {
	t.Helper()
	got := ask(t, "GET", url, "User-Agent", agent)
	if got.StatusCode != status || got.code() != code {
		t.Errorf("%s: GET %s = %d %s, want %d %s", what, url, got.StatusCode, got.code(), status, code)
	}
	if status != 429 && status != 503 {
		retryAfter = ""
	}
	if got.Header.Get("Retry-After") != retryAfter {
		t.Errorf("%s: Retry-After %q, want %q", what, got.Header.Get("Retry-After"), retryAfter)
	}
	if got.Header.Get("WWW-Authenticate") != "" || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s: headers %v", what, got.Header)
	}
	if strings.Contains(got.body, "/var/lib") {
		t.Errorf("%s: the answer tells what it must not: %s", what, got.body)
	}
	head := ask(t, "HEAD", url, "User-Agent", agent)
	if head.StatusCode != status || head.body != "" || head.ContentLength != got.ContentLength {
		t.Errorf("%s: HEAD = %d with %d bytes announced, want as GET: %d with %d", what,
			head.StatusCode, head.ContentLength, got.StatusCode, got.ContentLength)
	}
}

// M50: a private repository looks like one that is not there.
func TestDeniedLooksLikeAbsent(t *testing.T) {
	f := &fakeCache{}
	url := serve(t, newHandler(t, f, nil))
	for _, path := range []string{"/manifests/latest", "/manifests/" + digestA, "/blobs/" + digestA, "/tags/list", "/referrers/" + digestA} {
		f.err = &pull.Error{Kind: pull.NotFound, Upstream: "docker.io", Status: 404, Message: "manifest unknown to them"}
		absent := ask(t, "GET", url+"/v2/library/x"+path)
		f.err = &pull.Error{Kind: pull.Denied, Upstream: "docker.io", Status: 401, Message: "authentication required"}
		denied := ask(t, "GET", url+"/v2/library/x"+path)
		if absent.StatusCode != 404 || denied.StatusCode != 404 || absent.body != denied.body {
			t.Errorf("%s: absent is %d %s, denied is %d %s", path, absent.StatusCode, absent.body, denied.StatusCode, denied.body)
		}
	}
}

// Messages are made of what pull.Error keeps free of secrets, never of causes.
func TestErrorTextHidesCauses(t *testing.T) {
	f := &fakeCache{err: &pull.Error{Kind: pull.Unavailable, Upstream: "docker.io", Op: "get", Status: 503, Message: "try later",
		Err: errors.New("https://cdn.example/x?X-Amz-Signature=s3cr3t: dial 10.1.2.3")}}
	url := serve(t, newHandler(t, f, nil))
	for _, path := range []string{"/v2/docker.io/library/x/manifests/latest", "/v2/library/x/blobs/" + digestA} {
		a := ask(t, "GET", url+path)
		if strings.Contains(a.body, "s3cr3t") || strings.Contains(a.body, "10.1.2.3") || !strings.Contains(a.body, "docker.io is unavailable (status 503): try later") {
			t.Errorf("GET %s: %s", path, a.body)
		}
	}
}
