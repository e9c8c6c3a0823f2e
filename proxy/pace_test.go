package proxy

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/time/rate"

	"forebay/internal/allowance"
	"forebay/internal/pull"
)

// pieces is a response that takes files, and remembers what it was given.
type pieces struct {
	*httptest.ResponseRecorder
	files int // of the pieces
}

func (p *pieces) ReadFrom(r io.Reader) (int64, error) {
	if limited, ok := r.(*io.LimitedReader); ok {
		if _, ok := limited.R.(*os.File); ok {
			p.files++
		}
	}
	return io.Copy(p.Body, r)
}

func TestClientGetsSoManyBytesASecond(t *testing.T) {
	data := bytes.Repeat([]byte("forebay "), 128<<10) // 1 MiB
	name := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		clients := allowance.New(allowance.Limits{BytesPerSecond: 256 << 10}, nil)
		of := func(client string) *rate.Limiter { return clients.Pace(pull.WithClient(t.Context(), client)) }
		if one, again, two := of("10.0.0.1"), of("10.0.0.1"), of("10.0.0.2"); one != again || one == two {
			t.Error("paces are not those of clients")
		}
		send := func(pace *rate.Limiter, plain bool) (time.Duration, *pieces) {
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			to := &pieces{ResponseRecorder: httptest.NewRecorder()}
			w := responseWriter{pace: pace, ctx: t.Context()}
			var rw http.ResponseWriter = to
			if plain { // HTTP/2 has no ReadFrom
				rw = to.ResponseRecorder
			}
			w.wrap(rw, false)
			begin := time.Now()
			if n, err := io.CopyN(&w, f, int64(len(data))); err != nil || n != int64(len(data)) {
				t.Errorf("%d bytes, %v", n, err)
			}
			if !bytes.Equal(to.Body.Bytes(), data) || w.bytes != int64(len(data)) {
				t.Errorf("%d bytes came, %d were counted", to.Body.Len(), w.bytes)
			}
			return time.Since(begin), to
		}
		for _, plain := range []bool{false, true} {
			// A second's worth goes at once, the rest in three seconds.
			took, to := send(of("10.0.0.1"), plain)
			if took < 2900*time.Millisecond || took > 3100*time.Millisecond {
				t.Errorf("plain %t: it took %s, want 3 s", plain, took)
			}
			if !plain && to.files < 8 {
				t.Errorf("%d pieces went as a file, want all of 8", to.files)
			}
			time.Sleep(time.Second)
		}
		if took, _ := send(nil, false); took != 0 {
			t.Errorf("without a limit it took %s", took)
		}
	})
}
