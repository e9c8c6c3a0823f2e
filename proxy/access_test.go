package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"forebay/cache"
	"forebay/internal/pull"
)

func TestAccessLog(t *testing.T) {
	core, seen := observer.New(zapcore.InfoLevel)
	f := &fakeCache{manifest: aManifest(t), result: cache.Joined}
	f.writeBlob(t, someData(5000))
	h := newHandler(t, f, func(o *Options) { o.AccessLog = zap.New(core) })
	rows := []struct {
		method, target string
		err            error
		want           map[string]any
	}{
		{"GET", "/v2/nginx/manifests/latest?ns=docker.io&token=s3cr3t", nil, map[string]any{
			"method": "GET", "url_path": "/v2/nginx/manifests/latest", "upstream": "docker.io", "repository": "library/nginx",
			"status": int64(200), "bytes": int64(len(f.manifest.Bytes)), "result": "hit",
		}},
		{"GET", blobPath, nil, map[string]any{
			"method": "GET", "url_path": blobPath, "upstream": "docker.io", "repository": "library/nginx",
			"status": int64(200), "bytes": int64(5000), "result": "joined",
		}},
		{"HEAD", blobPath, nil, map[string]any{
			"method": "HEAD", "url_path": blobPath, "upstream": "docker.io", "repository": "library/nginx",
			"status": int64(200), "bytes": int64(0), "result": "joined",
		}},
		{"GET", "/v2/ghcr.io/a/b/manifests/x", kind(pull.NotFound), map[string]any{
			"method": "GET", "url_path": "/v2/ghcr.io/a/b/manifests/x", "upstream": "ghcr.io", "repository": "a/b",
			"status": int64(404), "bytes": int64(len(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)),
			"result": "error", "error": "docker.io: get something: not found",
		}},
		{"DELETE", "/v2/nginx/manifests/latest", nil, map[string]any{
			"method": "DELETE", "url_path": "/v2/nginx/manifests/latest", "upstream": "", "repository": "",
			"status": int64(405), "result": "error", "error": errMethod.Error(),
		}},
	}
	for _, row := range rows {
		f.err = row.err
		req := httptest.NewRequest(row.method, row.target, nil)
		req.Header.Set("Authorization", "Basic czNjcjN0")
		req.Header.Set("User-Agent", "test/1")
		h.ServeHTTP(httptest.NewRecorder(), req)
		lines := seen.TakeAll()
		if len(lines) != 1 {
			t.Errorf("%s %s: %d lines, want 1", row.method, row.target, len(lines))
			continue
		}
		got := lines[0].ContextMap()
		if got["user_agent"] != "test/1" || got["addr"] != req.RemoteAddr {
			t.Errorf("%s %s: client %v", row.method, row.target, got)
		}
		if took, ok := got["took_s"].(float64); !ok || took < 0 {
			t.Errorf("%s %s: took %v", row.method, row.target, got["took_s"])
		}
		// T20 of docs/clients.md: what a client says to be let in is nobody's business.
		if text := fmt.Sprint(got); strings.Contains(text, "s3cr3t") || strings.Contains(text, "czNjcjN0") {
			t.Errorf("secrets in the log: %s", text)
		}
		delete(got, "user_agent")
		delete(got, "addr")
		delete(got, "took_s")
		if row.method == "DELETE" {
			delete(got, "bytes")
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", row.method, row.target, diff)
		}
	}
}

// A body that broke off is an error, even though its status was 200.
func TestAccessLogOfBrokenBody(t *testing.T) {
	core, seen := observer.New(zapcore.InfoLevel)
	for _, hidden := range []bool{false, true} {
		f := &fakeCache{result: cache.Miss, blob: fakeBlob{data: someData(50000), failAt: 30000, fail: errors.New("disk on fire"), hidden: hidden}}
		h := newHandler(t, f, func(o *Options) { o.AccessLog = zap.New(core) })
		ask(t, "GET", serve(t, h)+blobPath)
		lines := seen.TakeAll()
		if len(lines) != 1 {
			t.Fatalf("%d lines, want 1", len(lines))
		}
		got := lines[0].ContextMap()
		if got["status"] != int64(200) || got["result"] != "error" || got["bytes"] != int64(30000) || !strings.Contains(fmt.Sprint(got["error"]), "disk on fire") {
			t.Errorf("hidden %t: %v", hidden, got)
		}
	}
}

// A client that leaves in the middle is no error, however we come to know of it.
func TestAccessLogOfLeavingClient(t *testing.T) {
	rows := map[error]bool{
		&net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}:                                           false,
		fmt.Errorf("send: %w", &net.OpError{Op: "readfrom", Net: "tcp", Err: syscall.ECONNRESET}):           false,
		&net.OpError{Op: "readfrom", Net: "tcp", Err: syscall.EIO}:                                          true,
		&pull.Error{Kind: pull.Unavailable, Upstream: "docker.io", Op: "get blob", Err: syscall.ECONNRESET}: true,
	}
	for err, logged := range rows {
		core, seen := observer.New(zapcore.InfoLevel)
		f := &fakeCache{result: cache.Miss, blob: fakeBlob{data: someData(5000), failAt: 3000, fail: err}}
		h := newHandler(t, f, func(o *Options) { o.AccessLog = zap.New(core) })
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", blobPath, nil))
		if lines := seen.TakeAll(); len(lines) != 1 || (lines[0].ContextMap()["result"] == "error") != logged {
			t.Errorf("body ended with %v: logged %v, want an error: %t", err, lines, logged)
		}
	}
}

// Without an answer of ours net/http would send an empty 200, and a request whose
// context has ended may still have a client that reads it.
func TestEndedRequestIsNeverAnEmpty200(t *testing.T) {
	core, seen := observer.New(zapcore.InfoLevel)
	f := &fakeCache{err: context.Canceled}
	h := newHandler(t, f, func(o *Options) { o.AccessLog = zap.New(core) })
	for _, path := range []string{"/v2/nginx/manifests/latest", blobPath, "/v2/nginx/tags/list", "/v2/nginx/referrers/" + digestA, "/v2/_catalog"} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequestWithContext(ctx, "GET", path, nil))
		if rec.Code < 400 {
			t.Errorf("GET %s without a client = %d", path, rec.Code)
		}
		lines := seen.TakeAll()
		if len(lines) != 1 || lines[0].ContextMap()["status"] != int64(statusClientLeft) || lines[0].ContextMap()["result"] == "error" {
			t.Errorf("GET %s without a client: logged %v", path, lines)
		}
	}
}
