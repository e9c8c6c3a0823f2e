package admin

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAnswersOperators(t *testing.T) {
	var unready error
	h := New(Options{
		Ready:   func() error { return unready },
		Metrics: NewMetrics("v1.2.3", "abc", "go1.26"),
		Version: "v1.2.3",
	})
	for _, tt := range []struct {
		method, path string
		unready      error
		status       int
		body         string
	}{
		{"GET", "/healthz", nil, 200, "ok\n"},
		{"HEAD", "/healthz", nil, 200, ""},
		{"GET", "/healthz", errors.New("stopping"), 200, "ok\n"},
		{"GET", "/readyz", nil, 200, "ready\n"},
		{"GET", "/readyz", errors.New("stopping"), 503, "stopping\n"},
		{"GET", "/metrics", nil, 200, `forebay_build_info{go_version="go1.26",revision="abc",version="v1.2.3"} 1`},
		{"GET", "/metrics", nil, 200, "go_goroutines "},
		{"GET", "/metrics", nil, 200, "process_open_fds "},
		{"GET", "/", nil, 200, "forebay v1.2.3\n"},
		{"GET", "/nothing", nil, 404, ""},
		{"POST", "/healthz", nil, 405, ""},
		{"DELETE", "/metrics", nil, 405, ""},
	} {
		unready = tt.unready
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
		body, err := io.ReadAll(w.Result().Body)
		if err != nil {
			t.Fatal(err)
		}
		if w.Code != tt.status || !strings.Contains(string(body), tt.body) {
			t.Errorf("%s %s = %d %q, want %d and %q", tt.method, tt.path, w.Code, body, tt.status, tt.body)
		}
		if w.Code == http.StatusOK && w.Header().Get("Content-Type") == "" {
			t.Errorf("%s %s has no Content-Type", tt.method, tt.path)
		}
	}
}

func TestWebhooksAreThereOnlyIfGiven(t *testing.T) {
	o := Options{Ready: func() error { return nil }, Metrics: NewMetrics("v", "r", "go"), Version: "v"}
	for _, given := range []bool{false, true} {
		want := http.StatusNotFound
		if given {
			want = http.StatusAccepted
			o.Webhooks = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
		}
		w := httptest.NewRecorder()
		New(o).ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/webhooks/x", strings.NewReader("{}")))
		if w.Code != want {
			t.Errorf("POST /webhooks/x = %d, want %d (given: %v)", w.Code, want, given)
		}
	}
}
