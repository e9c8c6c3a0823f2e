package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/proxy"
)

func lines(t *testing.T, text []byte) []Line {
	t.Helper()
	var all []Line
	for line := range bytes.Lines(text) {
		var l Line
		if err := json.Unmarshal(line, &l); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, l)
	}
	return all
}

func TestWhatIsWrittenDown(t *testing.T) {
	var b bytes.Buffer
	l := ToStream(&b, zap.NewNop())
	d := v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)}
	pull := proxy.Request{
		Upstream: "docker.io", Repository: "library/nginx", Reference: "1.27", Digest: d, Kind: proxy.KindManifest, Method: http.MethodGet,
		Result: "hit", Status: http.StatusOK, Client: "192.0.2.7", User: "alice", Groups: []string{"team"}, Rule: "access[1]", UserAgent: "docker/29",
	}
	l.Observe(&pull)
	for _, change := range []func(r *proxy.Request){
		func(r *proxy.Request) { r.Method = http.MethodHead },
		func(r *proxy.Request) { r.Kind = proxy.KindBlob },
		func(r *proxy.Request) { r.Result, r.Status, r.Err = proxy.Failed, 503, errors.New("down") },
	} { // none of these is a pull
		r := pull
		change(&r)
		l.Observe(&r)
	}
	hidden := pull
	hidden.Kind, hidden.Result, hidden.Status, hidden.Err, hidden.Rule, hidden.Digest = proxy.KindBlob, proxy.Failed, 404, proxy.ErrHidden, "default", v1.Hash{}
	l.Observe(&hidden)
	guess := proxy.Request{Kind: proxy.KindPing, Method: http.MethodGet, Result: proxy.Failed, Status: 401, Client: "192.0.2.8", Err: &proxy.Refusal{Status: 401, Code: "UNAUTHORIZED", Message: "wrong"}}
	l.Observe(&guess)
	for _, one := range []struct {
		who    string
		status int
	}{{"admin_token", http.StatusAccepted}, {"bob", http.StatusForbidden}} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/purge?dry=1", strings.NewReader("secret body"))
		r.RemoteAddr = "[2001:db8::1]:4711"
		r.Header.Set("Authorization", "Bearer hunter2")
		l.Action(r, one.who, one.status)
	}
	want := []Line{
		{Event: Pull, Who: "alice", Groups: []string{"team"}, Addr: "192.0.2.7", Upstream: "docker.io", Repository: "library/nginx", Reference: "1.27", Digest: d.String(), Rule: "access[1]", Result: "hit", Status: 200, Agent: "docker/29"},
		{Event: Refusal, Who: "alice", Groups: []string{"team"}, Addr: "192.0.2.7", Upstream: "docker.io", Repository: "library/nginx", Reference: "1.27", Rule: "default", Status: 404, Agent: "docker/29"},
		{Event: Refusal, Addr: "192.0.2.8", Status: 401},
		{Event: Action, Who: "admin_token", Addr: "2001:db8::1", Method: "POST", Path: "/api/v1/purge", Status: 202},
		{Event: Refusal, Who: "bob", Addr: "2001:db8::1", Method: "POST", Path: "/api/v1/purge", Status: 403},
	}
	if diff := cmp.Diff(want, lines(t, b.Bytes()), cmpopts.IgnoreFields(Line{}, "Time")); diff != "" {
		t.Errorf("the log (-want +got):\n%s", diff)
	}
	if s := b.String(); strings.Contains(s, "hunter2") || strings.Contains(s, "secret body") {
		t.Errorf("the log tells what is secret: %s", s)
	}
}

// A file that was moved away is followed by a new one, and nothing is lost between them.
func TestFileIsRotated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "audit.log")
		l, err := ToFile(name, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		refused := proxy.Request{Status: 404, Err: proxy.ErrHidden}
		l.Observe(&refused)
		if err := os.Rename(name, name+".1"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * lookEvery)
		l.Observe(&refused)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{name, name + ".1"} {
			text, err := os.ReadFile(name)
			if err != nil || len(lines(t, text)) != 1 {
				t.Errorf("%s has %q, %v; want one line", name, text, err)
			}
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != fileMode {
				t.Errorf("%s has mode %v, %v", name, info.Mode(), err)
			}
		}
		// An old log goes on where it was.
		if l, err = ToFile(name, zap.NewNop()); err != nil {
			t.Fatal(err)
		}
		l.Observe(&refused)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if text, err := os.ReadFile(name); err != nil || len(lines(t, text)) != 2 {
			t.Errorf("%s has %q, %v; want two lines", name, text, err)
		}
	})
}
