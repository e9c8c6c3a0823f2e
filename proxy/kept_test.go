package proxy

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/store"
	"forebay/internal/pull"
)

// The tests of this file stand on the real cache, with a registry in memory behind it.

// registry has one blob, whose second half it gives only when released.
type registry struct {
	data    []byte // what it sends
	size    int64
	release chan struct{}
}

var errNotHere = &pull.Error{Kind: pull.NotFound, Upstream: "docker.io", Op: "test"}

func (*registry) Resolve(context.Context, string, string) (v1.Descriptor, error) {
	return v1.Descriptor{}, errNotHere
}

func (*registry) Manifest(context.Context, string, string) (v1.Descriptor, []byte, error) {
	return v1.Descriptor{}, nil, errNotHere
}

func (g *registry) Low() bool { return false }

func (g *registry) AtReserve() bool { return false }

func (g *registry) AtLastShare() bool { return false }

func (g *registry) StatBlob(context.Context, string, v1.Hash) (int64, error) { return g.size, nil }

func (g *registry) OpenBlob(ctx context.Context, _ string, _ v1.Hash, off, end int64) (*pull.Body, error) {
	if end < 0 || end > g.size {
		end = g.size
	}
	half := max(off, min(g.size/2, end))
	body := io.MultiReader(bytes.NewReader(g.data[off:half]), &gate{ctx, g.release, bytes.NewReader(g.data[half:end])})
	return &pull.Body{ReadCloser: io.NopCloser(body), Offset: off, End: end, Size: g.size, Ranged: true}, nil
}

func (*registry) Tags(context.Context, string) ([]string, error) { return nil, errNotHere }

func (*registry) TagsPage(context.Context, string, string) ([]string, string, error) {
	return nil, "", errNotHere
}

func (*registry) Referrers(context.Context, string, v1.Hash) ([]json.RawMessage, error) {
	return nil, errNotHere
}

// gate lets nothing through before it is opened.
type gate struct {
	ctx  context.Context // of the body, whose reads end with it
	open chan struct{}
	io.Reader
}

func (g *gate) Read(p []byte) (int, error) {
	select {
	case <-g.open:
		return g.Reader.Read(p)
	case <-g.ctx.Done():
		return 0, g.ctx.Err()
	}
}

// newMirror returns a handler on a real cache in front of a registry with data, whose
// blob is asked for under the digest of want.
func newMirror(t *testing.T, data, want []byte) (h *Handler, g *registry, path string) {
	t.Helper()
	g = &registry{data: data, size: int64(len(data)), release: make(chan struct{})}
	kept, err := cache.Open(cache.Options{
		Store:     store.Options{Dir: t.TempDir()},
		Upstreams: map[string]cache.UpstreamOptions{"docker.io": {Upstream: g}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kept.Close(); err != nil {
			t.Error(err)
		}
	})
	if h, err = New(Options{Cache: kept, Upstreams: map[string][]string{"docker.io": nil}}); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(want)
	return h, g, "/v2/library/nginx/blobs/sha256:" + hex.EncodeToString(sum[:])
}

// M28, T31 of docs/clients.md: while a blob arrives, every client reads its own part of it,
// and gets what is there before the rest is.
func TestArrivingBlobFollowedByMany(t *testing.T) {
	data := someData(8 << 20)
	h, g, path := newMirror(t, data, data)
	url := serve(t, h)
	rows := []struct {
		value    string
		off, end int
	}{
		{"", 0, len(data)},
		{"bytes=0-", 0, len(data)},
		{"bytes=1000000-", 1000000, len(data)},
		{"bytes=100-5000000", 100, 5000001},
		{"bytes=-1000", len(data) - 1000, len(data)},
		{"bytes=8387000-9999999", 8387000, len(data)},
	}
	var clients, begun sync.WaitGroup
	for _, row := range rows {
		begun.Add(1)
		clients.Go(func() {
			first := sync.OnceFunc(begun.Done)
			defer first()
			req, err := http.NewRequestWithContext(t.Context(), "GET", url+path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Range", row.value)
			if row.off > len(data)/2 {
				first() // none of it is there before the release
			}
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Errorf("Range %q: %v", row.value, err)
				return
			}
			defer resp.Body.Close()
			head := make([]byte, 1000)
			if _, err := io.ReadFull(resp.Body, head); err != nil {
				t.Errorf("Range %q: %v", row.value, err)
			}
			first()
			rest, err := io.ReadAll(resp.Body)
			if got := append(head, rest...); err != nil || !bytes.Equal(got, data[row.off:row.end]) {
				t.Errorf("Range %q: %d bytes, %v, want [%d, %d)", row.value, len(got), err, row.off, row.end)
			}
			if want := strconv.Itoa(row.end - row.off); resp.Header.Get("Content-Length") != want {
				t.Errorf("Range %q: Content-Length %s, want %s", row.value, resp.Header.Get("Content-Length"), want)
			}
		})
	}
	begun.Wait()
	close(g.release)
	clients.Wait()

	// From now on it is a file, and goes out as one.
	rec := &recorder{ResponseRecorder: *httptest.NewRecorder()}
	h.ServeHTTP(rec, httptest.NewRequest("GET", path, nil))
	if len(rec.from) != 1 || !bytes.Equal(rec.Body.Bytes(), data) {
		t.Fatalf("kept: ReadFrom called %d times, %d bytes", len(rec.from), rec.Body.Len())
	}
	if limited, ok := rec.from[0].(*io.LimitedReader); !ok {
		t.Errorf("kept: ReadFrom got a %T", rec.from[0])
	} else if _, ok := limited.R.(*os.File); !ok {
		t.Errorf("kept: ReadFrom got a limited %T, want *os.File", limited.R)
	}
}

// M20: content with another digest is never whole in a client's hands.
func TestWrongContentIsNeverComplete(t *testing.T) {
	for _, size := range []int{1000, 8 << 20} {
		data := someData(size)
		wrong := bytes.Clone(data)
		wrong[size/3] ^= 1
		for _, ranges := range []string{"", "bytes=0-", "bytes=0-8388607", "bytes=-8388608", "bytes=0-9,10-"} {
			h, g, path := newMirror(t, wrong, data)
			close(g.release)
			a := ask(t, "GET", serve(t, h)+path, "Range", ranges)
			switch {
			case a.StatusCode == 404 && a.code() == "BLOB_UNKNOWN":
			case a.StatusCode/100 == 2 && errors.Is(a.err, io.ErrUnexpectedEOF):
			default:
				t.Errorf("%q of %d wrong bytes = %d with %d bytes, %v, want 404 or a short body", ranges, size, a.StatusCode, len(a.body), a.err)
			}
		}
	}
}
