package fleet

import (
	"encoding/json"
	"fmt"
	"net/http"
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
