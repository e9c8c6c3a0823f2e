package proxy

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"forebay/cache"
)

// BenchmarkManifest compares a cached manifest with a bare handler that writes the same
// bytes, both over a real connection. The access log goes nowhere but is made.
func BenchmarkManifest(b *testing.B) {
	f := &fakeCache{manifest: aManifest(b)}
	f.manifest.Bytes = someData(2000)
	f.manifest.Desc.Size = 2000
	access := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.AddSync(io.Discard), zap.InfoLevel))
	bare := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ociManifest)
		w.Header().Set("Content-Length", strconv.Itoa(len(f.manifest.Bytes)))
		w.Header().Set("Docker-Content-Digest", digestA)
		_, _ = w.Write(f.manifest.Bytes)
	})
	for name, h := range map[string]http.Handler{
		"bare":    bare,
		"mirror":  newHandler(b, f, nil),
		"logging": newHandler(b, f, func(o *Options) { o.AccessLog = access }),
	} {
		b.Run(name, func(b *testing.B) {
			s := httptest.NewServer(h)
			defer s.Close()
			defer http.DefaultClient.CloseIdleConnections()
			b.ReportAllocs()
			for b.Loop() {
				resp, err := http.Get(s.URL + "/v2/library/nginx/manifests/latest?ns=docker.io")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					b.Fatal(err)
				}
				resp.Body.Close()
			}
		})
		b.Run(name+"/handler", func(b *testing.B) {
			r := httptest.NewRequest("GET", "/v2/library/nginx/manifests/latest?ns=docker.io", nil)
			r.Header.Set("User-Agent", "containerd/2.3.4")
			r.Header.Set("Accept", ociManifest+", */*")
			b.ReportAllocs()
			for b.Loop() {
				h.ServeHTTP(&nowhere{header: http.Header{}}, r)
			}
		})
	}
}

type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n *nowhere) WriteHeader(int)             {}

// BenchmarkObserved is what the handler itself costs for a cached manifest, observed by
// nobody and by somebody.
func BenchmarkObserved(b *testing.B) {
	f := &fakeCache{manifest: aManifest(b), result: cache.Hit}
	var told int
	for name, change := range map[string]func(*Options){
		"off":      nil,
		"observed": func(o *Options) { o.Observe = func(*Request) { told++ } },
	} {
		b.Run(name, func(b *testing.B) {
			h := newHandler(b, f, change)
			r := httptest.NewRequest("GET", "/v2/library/nginx/manifests/latest?ns=docker.io", nil)
			b.ReportAllocs()
			for b.Loop() {
				f.calls = f.calls[:0]
				h.ServeHTTP(&nowhere{header: http.Header{}}, r)
			}
		})
	}
}
