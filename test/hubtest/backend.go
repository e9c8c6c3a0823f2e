package hubtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// backend is a plain registry that is read through. A nil backend has nothing.
type backend struct {
	base    string
	client  *http.Client
	problem func(string) // told when the backend cannot be asked

	mu    sync.Mutex
	sizes map[string]int64 // of blobs known to exist, by "repo@digest"
	repos map[string]bool  // known to exist
}

func newBackend(base string, problem func(string)) *backend {
	return &backend{
		problem: problem,
		base:    strings.TrimSuffix(base, "/"),
		client:  &http.Client{Transport: &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 16, ResponseHeaderTimeout: 30 * time.Second}},
		sizes:   map[string]int64{},
		repos:   map[string]bool{},
	}
}

func (b *backend) close() {
	if b != nil {
		b.client.CloseIdleConnections()
	}
}

// get asks the backend; the caller closes the body. The error is nil only for 200 and 206.
func (b *backend) get(ctx context.Context, method, path string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, b.base+path, nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := b.client.Do(req)
	if err != nil {
		if ctx.Err() == nil {
			b.problem(fmt.Sprintf("backend: %s", err))
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s %s at the backend: status %d", method, path, resp.StatusCode)
	}
	return resp, nil
}

func (b *backend) hasRepo(ctx context.Context, repo string) bool {
	if b == nil || repo == "" {
		return false
	}
	b.mu.Lock()
	known := b.repos[repo]
	b.mu.Unlock()
	if known {
		return true
	}
	resp, err := b.get(ctx, http.MethodGet, "/v2/"+repo+"/tags/list", nil)
	if err != nil {
		return false
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	b.mu.Lock()
	b.repos[repo] = true
	b.mu.Unlock()
	return true
}

func (b *backend) tags(ctx context.Context, repo string) []string {
	if b == nil {
		return nil
	}
	resp, err := b.get(ctx, http.MethodGet, "/v2/"+repo+"/tags/list", nil)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var list struct{ Tags []string }
	if err := json.NewDecoder(resp.Body).Decode(&list); err != nil {
		return nil
	}
	return list.Tags
}

func (b *backend) manifest(ctx context.Context, repo, ref string) (storedBytes, string, bool) {
	if b == nil || ref == "" {
		return storedBytes{}, ref, false
	}
	accept := http.Header{"Accept": {OCIIndex, DockerList, OCIManifest, DockerManifest}}
	resp, err := b.get(ctx, http.MethodGet, "/v2/"+repo+"/manifests/"+ref, accept)
	if err != nil {
		return storedBytes{}, ref, false
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return storedBytes{}, ref, false
	}
	digest := ref
	if !strings.Contains(ref, ":") {
		digest = Digest(raw)
	}
	return storedBytes{resp.Header.Get("Content-Type"), raw}, digest, true
}

// blob finds a blob in a repository of the backend.
func (b *backend) blob(ctx context.Context, repo, digest string) (content, bool) {
	if b == nil || repo == "" {
		return nil, false
	}
	id := repo + "@" + digest
	b.mu.Lock()
	size, known := b.sizes[id]
	b.mu.Unlock()
	if known {
		return remote{b, repo, digest, size}, true
	}
	resp, err := b.get(ctx, http.MethodHead, "/v2/"+repo+"/blobs/"+digest, nil)
	if err != nil {
		return nil, false
	}
	_ = resp.Body.Close()
	if resp.ContentLength < 0 {
		return nil, false
	}
	b.mu.Lock()
	b.sizes[id] = resp.ContentLength
	b.mu.Unlock()
	return remote{b, repo, digest, resp.ContentLength}, true
}

// remote is a blob at the backend.
type remote struct {
	backend      *backend
	repo, digest string
	length       int64
}

func (r remote) size() int64 { return r.length }

func (r remote) open(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	if n == 0 {
		return http.NoBody, nil
	}
	header := http.Header{}
	if off > 0 || n < r.length {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, off+n-1))
	}
	resp, err := r.backend.get(ctx, http.MethodGet, "/v2/"+r.repo+"/blobs/"+r.digest, header)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK && off > 0 {
		if _, err := io.CopyN(io.Discard, resp.Body, off); err != nil {
			_ = resp.Body.Close()
			return nil, err
		}
	}
	return resp.Body, nil
}
