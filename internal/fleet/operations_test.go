package fleet

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"forebay/internal/fleet/answers"
)

// An operation counts that a mirror of ours signed within the last days: no other, none twice, and a bounded
// number of them.
func TestOperationsAreOursAndBounded(t *testing.T) {
	done := map[string]int{}
	f, err := New(Options{Engine: "redis://127.0.0.1:1", Secret: []byte("01234567890123456789012345678901"), Identity: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	options := OperatorsOptions{
		Dir: t.TempDir(), Who: func(*http.Request) (string, string) { return "", "" },
		As: func(r *http.Request, name, role string) *http.Request {
			r.Header.Set("as", name+" "+role)
			return r
		},
		Local: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			done[r.Header.Get("as")+" "+r.Method+" "+r.URL.RequestURI()]++
			if r.URL.Query().Get("ref") == "busy" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}),
	}
	o := f.Operators(options)
	sign := func(s secret, one operation) string {
		text, err := json.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		return s.sign("operation", string(text))
	}
	one := operation{ID: "1", At: time.Now().Add(-time.Hour), Who: "ann", Role: "operate", Method: http.MethodDelete, Path: apiPrefix + "/pins?ref=a"}
	old, foreign, elsewhere, failing := one, one, one, one
	old.ID, old.At = "2", time.Now().Add(-operationsFor-time.Minute)
	foreign.ID, elsewhere.ID, elsewhere.Path = "3", "4", "/webhooks"
	failing.ID, failing.Path = "5", apiPrefix+"/pins?ref=busy"
	for range 2 {
		o.add(sign(f.secret, one))
		o.add(sign(f.secret, old))
		o.add(sign(f.secret, elsewhere))
		o.add(sign(f.secret, failing))
		o.add(sign(secret("another secret of the same length"), foreign))
		o.add("nonsense")
		o.do(func(*operation) bool { return true })
	}
	want := map[string]int{"ann operate DELETE " + one.Path: 1, "ann operate DELETE " + failing.Path: 1}
	if fmt.Sprint(done) != fmt.Sprint(want) {
		t.Errorf("done: %v, want %v", done, want)
	}
	// What was done is known after a restart, and what failed is tried again.
	again := f.Operators(options)
	again.load()
	again.do(func(*operation) bool { return true })
	if done["ann operate DELETE "+one.Path] != 1 || done["ann operate DELETE "+failing.Path] != 2 {
		t.Errorf("done after a restart: %v", done)
	}
	for i := range operationsMost + 50 {
		one.ID, one.At = fmt.Sprint("n", i), time.Now().Add(time.Duration(i-2*operationsMost)*time.Second)
		o.add(sign(f.secret, one))
	}
	if all := o.log.list(); len(all) != operationsMost || all[len(all)-1].ID != fmt.Sprint("n", operationsMost+49) {
		t.Errorf("%d operations are known, want the latest %d", len(all), operationsMost)
	}
}

// Requests that change something for all are kept for those that are away, but for what is of the moment.
func TestWhatIsKeptForThoseAway(t *testing.T) {
	for request, want := range map[string]string{
		"POST /purge": "kept", "POST /pins": "kept", "DELETE /pins": "kept", "POST /freezes": "kept", "DELETE /snapshots/x": "kept", "POST /snapshots/x/promote": "kept",
		"POST /refresh": "changes", "POST /drill": "changes", "DELETE /fills/sha256:0": "changes", "GET /status": "asks", "GET /image": "asks",
		"POST /session": "local", "POST /imports": "local", "POST /gc": "local", "GET /support": "local", "GET /content/sha256:0": "local", "GET /snapshots/x": "local",
	} {
		var method, path string
		if _, err := fmt.Sscan(request, &method, &path); err != nil {
			t.Fatal(err)
		}
		got := "local"
		switch to, ok := answers.Of(method, path); {
		case ok && to.Kept:
			got = "kept"
		case ok && to.Changes:
			got = "changes"
		case ok:
			got = "asks"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", request, got, want)
		}
	}
}

// pinning is a mirror whose admin API knows pins only.
type pinning struct {
	*Operators
	pinned map[string]bool
}

func newPinning(t *testing.T) *pinning {
	t.Helper()
	f, err := New(Options{Engine: "redis://127.0.0.1:1", Secret: []byte("01234567890123456789012345678901"), Identity: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	p := &pinning{pinned: map[string]bool{}}
	p.Operators = f.Operators(OperatorsOptions{
		Dir: t.TempDir(), Who: func(*http.Request) (string, string) { return "ann", "operate" }, As: func(r *http.Request, _, _ string) *http.Request { return r },
		Local: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.pinned[r.URL.Query().Get("ref")] = r.Method == http.MethodPost
			w.WriteHeader(http.StatusNoContent)
		}),
	})
	return p
}

// asks has an operator ask a mirror, and returns what that asks the others for.
func (p *pinning) asks(t *testing.T, method, ref string) *operation {
	t.Helper()
	p.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, apiPrefix+"/pins?ref="+ref, nil))
	all := p.log.list()
	return all[len(all)-1]
}

// hears has a mirror be asked by another.
func (p *pinning) hears(one *operation) {
	r := httptest.NewRequest(one.Method, one.Path, nil)
	r.Header.Set(operationHeader, url.QueryEscape(one.signed))
	p.Peers(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), r)
}

// Operators of two mirrors pin and unpin the same thing at the same moment. Whichever way the mirrors hear of it,
// and whatever their clocks say, all are of one mind in the end: that of the later one.
func TestMirrorsAgreeOnTheLastWord(t *testing.T) {
	for name, hear := range map[string]func(a, b, c *pinning, pin, unpin *operation){
		"directly": func(a, b, c *pinning, pin, unpin *operation) {
			a.hears(unpin)
			b.hears(pin)
			c.hears(unpin)
			c.hears(pin)
		},
		"from the engine": func(a, b, c *pinning, pin, unpin *operation) {
			for _, to := range []*pinning{a, b, c} {
				for _, one := range []*operation{unpin, pin} {
					to.add(one.signed)
					to.do(func(*operation) bool { return true })
				}
			}
		},
		"twice": func(a, b, c *pinning, pin, unpin *operation) {
			for range 2 {
				c.hears(pin)
				a.hears(unpin)
				b.hears(pin)
				c.hears(unpin)
			}
		},
	} {
		for _, first := range []string{http.MethodPost, http.MethodDelete} {
			t.Run(name+", "+first+" first", func(t *testing.T) {
				a, b, c := newPinning(t), newPinning(t), newPinning(t)
				var pin, unpin *operation
				if first == http.MethodPost {
					pin, unpin = a.asks(t, http.MethodPost, "x"), b.asks(t, http.MethodDelete, "x")
				} else {
					unpin, pin = b.asks(t, http.MethodDelete, "x"), a.asks(t, http.MethodPost, "x")
				}
				hear(a, b, c, pin, unpin)
				want := first == http.MethodDelete
				if a.pinned["x"] != want || b.pinned["x"] != want || c.pinned["x"] != want {
					t.Errorf("pinned: %t, %t and %t, want %t", a.pinned["x"], b.pinned["x"], c.pinned["x"], want)
				}
			})
		}
	}
	// What an operator says after he has seen something comes after it, though the other's clock is ahead.
	a, b := newPinning(t), newPinning(t)
	ahead := a.asks(t, http.MethodPost, "x")
	ahead.At = ahead.At.Add(time.Minute)
	text, err := json.Marshal(ahead)
	if err != nil {
		t.Fatal(err)
	}
	ahead.signed = a.fleet.secret.sign("operation", string(text))
	b.hears(ahead)
	after := b.asks(t, http.MethodDelete, "x")
	if a.hears(after); a.pinned["x"] || b.pinned["x"] {
		t.Errorf("pinned: %t and %t, want neither", a.pinned["x"], b.pinned["x"])
	}
}
