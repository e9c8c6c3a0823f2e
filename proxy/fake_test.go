package proxy

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/goleak"

	"forebay/cache"
	"forebay/internal/allowance"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hexA    = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestA = "sha256:" + hexA

	ociManifest = "application/vnd.oci.image.manifest.v1+json"
	ociIndex    = "application/vnd.oci.image.index.v1+json"
)

func mustDigest(t testing.TB, s string) v1.Hash {
	t.Helper()
	d, err := wire.ParseDigest(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// fakeCache answers what a test tells it to and writes down what it was asked.
type fakeCache struct {
	manifest   cache.Manifest
	blob       fakeBlob
	nextPage   string
	tags       []string
	referrers  []json.RawMessage
	catalog    []string
	unlisted   string // an upstream
	result     cache.Result
	err        error // of everything, if set
	troubled   bool
	unservable bool
	accept     string // types beyond the usual, of the last request for a manifest

	mu    sync.Mutex
	calls []string
}

func (f *fakeCache) saw(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, what)
}

// asked returns and forgets the calls.
func (f *fakeCache) asked() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := strings.Join(f.calls, " ")
	f.calls = nil
	return s
}

func (f *fakeCache) Manifest(ctx context.Context, repo cache.Repo, ref string, headOnly bool) (*cache.Manifest, error) {
	f.saw(repo.String() + ":" + ref)
	f.accept = pull.Accept(ctx)
	if f.err != nil {
		return nil, f.err
	}
	m := f.manifest
	if m.Result == "" {
		m.Result = f.result
	}
	return &m, nil
}

func (f *fakeCache) openBlob(ctx context.Context, repo cache.Repo, d v1.Hash, _ ...wire.ByteRange) (blob, error) {
	f.saw(repo.String() + "@" + d.String())
	if f.err != nil {
		return nil, f.err
	}
	b := f.blob // its own file, as the real one has
	if b.path != "" {
		file, err := os.Open(b.path)
		if err != nil {
			return nil, err
		}
		b.file = file
	}
	b.result = f.result
	return &b, nil
}

// opening is a source whose blobs a function opens.
type opening struct {
	source
	open func(ctx context.Context, repo cache.Repo) (blob, error)
}

func (o opening) openBlob(ctx context.Context, repo cache.Repo, _ v1.Hash, _ ...wire.ByteRange) (blob, error) {
	return o.open(ctx, repo)
}

// opens makes all blobs of h the one given.
func opens(h *Handler, b blob) {
	h.source = opening{h.source, func(context.Context, cache.Repo) (blob, error) { return b, nil }}
}

func (f *fakeCache) StatBlob(ctx context.Context, repo cache.Repo, d v1.Hash) (int64, cache.Result, error) {
	f.saw(repo.String() + "@" + d.String())
	return f.blob.Size(), f.result, f.err
}

func (f *fakeCache) Troubled(cache.Repo) bool { return f.troubled }

func (f *fakeCache) Servable(context.Context, cache.Repo, *cache.Manifest) bool { return !f.unservable }

func (f *fakeCache) Tags(ctx context.Context, repo cache.Repo) (*cache.Listing, error) {
	f.saw(repo.String())
	return &cache.Listing{Tags: f.tags, Result: f.result}, f.err
}

func (f *fakeCache) TagsPage(ctx context.Context, repo cache.Repo, query string) (*cache.Listing, error) {
	f.saw(repo.String() + "?" + query)
	return &cache.Listing{Tags: f.tags, Next: f.nextPage, Result: f.result}, f.err
}

func (f *fakeCache) Referrers(ctx context.Context, repo cache.Repo, d v1.Hash) (*cache.Referrers, error) {
	f.saw(repo.String() + "@" + d.String())
	return &cache.Referrers{Manifests: f.referrers, Result: f.result}, f.err
}

func (f *fakeCache) Lists(upstream string) bool { return upstream != f.unlisted }

func (f *fakeCache) Catalog(ctx context.Context, after string, n int) ([]string, bool, error) {
	if f.err != nil {
		return nil, false, f.err
	}
	var names []string
	for _, name := range f.catalog {
		if name > after {
			if len(names) == n {
				return names, true, nil
			}
			names = append(names, name)
		}
	}
	return names, false, nil
}

// fakeBlob is complete when it has a path, else it arrives from data.
type fakeBlob struct {
	path    string
	data    []byte
	hidden  bool  // the size is not known
	failAt  int64 // with fail: how many bytes come before it
	fail    error
	stalled bool // no byte ever comes
	file    *os.File
	length  int64 // 0 means that of data
	result  cache.Result
}

func (b *fakeBlob) Size() int64 {
	if b.hidden {
		return -1
	}
	return max(b.length, int64(len(b.data)))
}

func (b *fakeBlob) Result() cache.Result { return b.result }

func (b *fakeBlob) File() *os.File { return b.file }

func (b *fakeBlob) Send(ctx context.Context, w io.Writer, off, end int64) (int64, error) {
	if b.stalled {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	if end < 0 {
		end = int64(len(b.data))
	}
	var err error
	if b.fail != nil && end > b.failAt {
		end, err = b.failAt, b.fail
	}
	var n int64
	for off+n < end {
		m, werr := w.Write(b.data[off+n : min(off+n+1000, end)])
		n += int64(m)
		if werr != nil {
			return n, werr
		}
	}
	return n, err
}

func (b *fakeBlob) Close() error {
	if b.file != nil {
		return b.file.Close()
	}
	return nil
}

// writeBlob makes the blob of f complete on disk.
func (f *fakeCache) writeBlob(t testing.TB, data []byte) {
	t.Helper()
	f.blob = fakeBlob{path: filepath.Join(t.TempDir(), "blob"), data: data}
	if err := os.WriteFile(f.blob.path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// newHandler returns a handler in front of f.
func newHandler(t testing.TB, f *fakeCache, change func(*Options)) *Handler {
	t.Helper()
	o := Options{
		Upstreams: map[string][]string{"docker.io": nil, "ghcr.io": nil, "my.reg:5000": {"old.reg"}},
		Hosts:     map[string]string{"ghcr.mirror.example": "ghcr.io"},
	}
	if change != nil {
		change(&o)
	}
	h, err := handlerOf(o, f, allowance.New(allowance.Limits{}, nil))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// serve starts h on a real server and returns its address as a URL.
func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		s.Close()
	})
	return s.URL
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body string
	err  error // of reading the body
}

// ask sends one request; headers come in pairs.
func ask(t testing.TB, method, url string, headers ...string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{resp, string(body), err}
}

// code returns the error code of an error document.
func (a answer) code() string {
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal([]byte(a.body), &doc) != nil || len(doc.Errors) != 1 || doc.Errors[0].Message == "" {
		return "no error document: " + a.body
	}
	return doc.Errors[0].Code
}

func kind(k pull.Kind) error {
	return &pull.Error{Kind: k, Upstream: "docker.io", Op: "get something"}
}

// hungCache never answers before its caller gives up.
type hungCache struct {
	fakeCache
	hung func(context.Context) error
}

func (c *hungCache) Manifest(ctx context.Context, _ cache.Repo, _ string, _ bool) (*cache.Manifest, error) {
	return nil, c.hung(ctx)
}

func (c *hungCache) StatBlob(ctx context.Context, _ cache.Repo, _ v1.Hash) (int64, cache.Result, error) {
	return 0, "", c.hung(ctx)
}

func (c *hungCache) Tags(ctx context.Context, _ cache.Repo) (*cache.Listing, error) {
	return nil, c.hung(ctx)
}

func (c *hungCache) TagsPage(ctx context.Context, _ cache.Repo, _ string) (*cache.Listing, error) {
	return nil, c.hung(ctx)
}

func (c *hungCache) Referrers(ctx context.Context, _ cache.Repo, _ v1.Hash) (*cache.Referrers, error) {
	return nil, c.hung(ctx)
}
