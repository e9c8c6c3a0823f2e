package admin

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"forebay/internal/authn"
	"forebay/internal/session"
)

// byName lets in whoever shows a role as the name of a user with the password "right", as an
// operator of that role; "none" is known and has none.
func byName(r *http.Request) (Operator, error) {
	user, password, shown := r.BasicAuth()
	switch {
	case r.Header.Get("Authorization") == "":
		return Operator{}, nil
	case user == "guesser":
		return Operator{}, authn.ErrTooMany
	case !shown || password != "right":
		return Operator{}, authn.ErrRefused
	case user == "none":
		return Operator{Name: user}, nil
	}
	return Operator{Name: user, Role: Role(user)}, nil
}

func guarded(t *testing.T) *API {
	a := openAPIFor(t, false, ownToken)
	a.guard.operators = byName
	return a
}

const ownToken = "0123456789abcdef"

func TestEveryRouteAsksForItsRole(t *testing.T) {
	a := guarded(t)
	names := strings.NewReplacer("{id}", "7", "{digest}", "sha256:"+strings.Repeat("0", 64), "{set}", "x")
	rank := map[Role]int{"": 0, Read: 1, Operate: 2, Admin: 3}
	d := readDocument(t)
	for _, route := range a.routes() {
		name := route.method + " " + route.path
		least := Operate // what changes anything
		switch {
		case strings.HasPrefix(route.path, "/imports"): // what is brought in is given to clients
			least = Admin
		case route.path == "/session" && route.method != http.MethodGet: // logging in and out
			least = ""
		case route.path == "/content/{digest}" || route.path == "/support": // bytes that may be private, and the log
		case route.method == http.MethodGet:
			least = Read
		}
		if route.need != least {
			t.Errorf("%s needs %q, want %q", name, route.need, least)
		}
		var told struct {
			Role Role `json:"x-role"`
		}
		if err := json.Unmarshal(d.Paths[route.path][strings.ToLower(route.method)], &told); err != nil || told.Role != least {
			t.Errorf("openapi.json says %q of %s, %v; want %q", told.Role, name, err, least)
		}
		for who, role := range map[string]Role{"nobody": "", "none": "", "read": Read, "operate": Operate, "admin": Admin, tokenHolder: Admin} {
			w := asks(a, route.method, names.Replace(route.path), "", func(r *http.Request) {
				switch who {
				case "nobody":
				case tokenHolder:
					r.Header.Set("Authorization", "Bearer "+ownToken)
				default:
					r.SetBasicAuth(who, "right")
				}
			})
			code := codeOf(t, w)
			want := ""
			switch {
			case rank[role] >= rank[least]:
			case who == "nobody":
				want = "unauthorized"
			case who == "none":
				want = "no_role"
			default:
				want = "role"
			}
			if refused := code == "unauthorized" || code == "role" || code == "no_role"; want == "" && refused || want != "" && code != want {
				t.Errorf("%s by %s = %d %q, want %q", name, who, w.Code, code, want)
			}
		}
	}
}

func TestProfilesAreForAdministrators(t *testing.T) {
	h := New(Options{Ready: func() error { return nil }, Metrics: figures(), API: guarded(t), Profiles: true})
	for who, want := range map[string]int{"none": 403, "read": 403, "operate": 403, "admin": 200} {
		r := httptest.NewRequest(http.MethodGet, "/debug/pprof/cmdline", nil)
		r.SetBasicAuth(who, "right")
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("profiles by %s = %d, want %d", who, w.Code, want)
		}
	}
}

// browser keeps what a login gave it.
type browser struct {
	cookie *http.Cookie
	key    string
}

func (b browser) asks(a *API, method, path, body string) *httptest.ResponseRecorder {
	return asks(a, method, path, body, func(r *http.Request) {
		if b.cookie != nil {
			r.AddCookie(b.cookie)
		}
		if b.key != "" {
			r.Header.Set(session.Header, b.key)
		}
	})
}

// logsIn logs a browser in, over TLS if that is wanted.
func logsIn(t *testing.T, a *API, body, scheme string) browser {
	t.Helper()
	w := asks(a, "POST", "/session", body, func(r *http.Request) { r.Header.Set("X-Forwarded-Proto", scheme) })
	var s Session
	if err := json.Unmarshal(w.Body.Bytes(), &s); w.Code != http.StatusOK || err != nil {
		t.Fatalf("login = %d %s", w.Code, w.Body)
	}
	cookies := w.Result().Cookies()
	if len(cookies) != 1 {
		t.Fatalf("login sets %v", cookies)
	}
	c := cookies[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Secure != (scheme == "https") || c.Path != prefix+"/" || c.MaxAge != int(session.Lifetime.Seconds()) {
		t.Errorf("the cookie is %s", c)
	}
	if strings.Contains(c.Value, ownToken) || strings.Contains(w.Body.String(), ownToken) || s.Key == "" {
		t.Errorf("login answers %s and %s", c, w.Body)
	}
	return browser{c, s.Key}
}

func TestBrowsersLogIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := guarded(t)
		byToken := logsIn(t, a, `{"token": " `+ownToken+`\n"}`, "https")
		reader := logsIn(t, a, `{"user": "read", "password": "right"}`, "http")
		for _, tt := range []struct {
			name         string
			b            browser
			method, path string
			code         string
		}{
			{"by token", byToken, "GET", "/status", ""},
			{"by token, a change", byToken, "POST", "/gc", ""},
			{"by password", reader, "GET", "/status", ""},
			{"by password, more than the role", reader, "POST", "/gc", "role"},
			{"cookie without its key", browser{byToken.cookie, ""}, "GET", "/status", "unauthorized"},
			{"cookie with another's key", browser{byToken.cookie, reader.key}, "GET", "/status", "unauthorized"},
			{"key without its cookie", browser{nil, byToken.key}, "GET", "/status", "unauthorized"},
			{"cookie that was changed", browser{&http.Cookie{Name: byToken.cookie.Name, Value: string(byToken.cookie.Value[0]^1) + byToken.cookie.Value[1:]}, byToken.key}, "GET", "/status", "unauthorized"},
		} {
			if code := codeOf(t, tt.b.asks(a, tt.method, tt.path, "{}")); code != tt.code {
				t.Errorf("%s: %q, want %q", tt.name, code, tt.code)
			}
		}
		var who Session
		if err := json.Unmarshal(reader.asks(a, "GET", "/session", "").Body.Bytes(), &who); err != nil || who != (Session{Operator: Operator{"read", Read}}) {
			t.Errorf("who is logged in: %+v, %v", who, err)
		}
		for body, want := range map[string]string{
			`{}`: "unauthorized", `{"token": "wrong"}`: "unauthorized", `{"user": "read", "password": "wrong"}`: "unauthorized",
			`{"user": "none", "password": "right"}`: "no_role", `{"user": "guesser", "password": "x"}`: "too_many_logins", `{"name": "x"}`: "bad_request",
		} {
			w := asks(a, "POST", "/session", body, nil)
			if code := codeOf(t, w); code != want || len(w.Result().Cookies()) != 0 {
				t.Errorf("login by %s = %q %v, want %q", body, code, w.Result().Cookies(), want)
			}
			if want == "too_many_logins" && w.Header().Get("Retry-After") == "" {
				t.Error("too many logins do not say when to try again")
			}
		}
		if w := asks(a, "POST", "/session", `{"token": "`+ownToken+`"}`, func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }); codeOf(t, w) != "foreign_origin" {
			t.Errorf("login by another page = %d", w.Code)
		}

		// A mirror that starts again by the same key goes on, one with another does not, and their cookies are apart.
		other := guarded(t)
		if theirs := logsIn(t, other, `{"token": "`+ownToken+`"}`, "http"); theirs.cookie.Name == byToken.cookie.Name {
			t.Error("two mirrors have one cookie")
		}
		over := filepath.Join(t.TempDir(), SessionsOver)
		a.guard.sessions, other.guard.sessions = session.New("k", prefix+"/", over), session.New("k", prefix+"/", over)
		byToken, reader = logsIn(t, a, `{"token": "`+ownToken+`"}`, "http"), logsIn(t, a, `{"user": "read", "password": "right"}`, "http")
		if w := byToken.asks(other, "GET", "/status", ""); w.Code != http.StatusOK {
			t.Errorf("after a restart = %d", w.Code)
		}
		// Who logs out is out, whoever has the cookie.
		if w := reader.asks(a, "DELETE", "/session", ""); w.Code != http.StatusNoContent || w.Result().Cookies()[0].MaxAge >= 0 {
			t.Errorf("logout = %d %v", w.Code, w.Result().Cookies())
		}
		if w := reader.asks(a, "GET", "/status", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("after the logout = %d", w.Code)
		}
		again := guarded(t)
		again.guard.sessions = session.New("k", prefix+"/", over)
		if w := reader.asks(again, "GET", "/status", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("after the logout and a restart = %d", w.Code)
		}
		if w := byToken.asks(again, "GET", "/status", ""); w.Code != http.StatusOK {
			t.Errorf("another session after that restart = %d", w.Code)
		}
		// What was logged out is not known: nobody is who logged in before.
		lost := filepath.Join(t.TempDir(), SessionsOver)
		if err := os.WriteFile(lost, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		again.guard.sessions = session.New("k", prefix+"/", lost)
		if w := byToken.asks(again, "GET", "/status", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("by a session of before what cannot be read = %d", w.Code)
		}
		if w := logsIn(t, again, `{"token": "`+ownToken+`"}`, "http").asks(again, "GET", "/status", ""); w.Code != http.StatusOK {
			t.Errorf("by a later session = %d", w.Code)
		}
		// Another token ends what the one before it began, and so does time.
		other.SetToken("fedcba9876543210")
		if w := byToken.asks(other, "GET", "/status", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("after the token changed = %d", w.Code)
		}
		time.Sleep(session.Lifetime - time.Second)
		if w := byToken.asks(a, "GET", "/status", ""); w.Code != http.StatusOK {
			t.Errorf("before the end = %d", w.Code)
		}
		time.Sleep(2 * time.Second)
		if w := byToken.asks(a, "GET", "/status", ""); w.Code != http.StatusUnauthorized {
			t.Errorf("after the end = %d", w.Code)
		}
	})
}

func TestWhatOperatorsDoIsAudited(t *testing.T) {
	type line struct {
		Method, Path, Who string
		Status            int
	}
	var got []line
	a := guarded(t)
	a.guard.loopback = true
	a.audit = func(r *http.Request, who string, status int) {
		got = append(got, line{r.Method, r.URL.Path, who, status})
	}
	as := func(user string) func(*http.Request) { return func(r *http.Request) { r.SetBasicAuth(user, "right") } }
	asks(a, "GET", "/status", "", as("read")) // who only reads what he may is not written down
	asks(a, "POST", "/gc", "{}", as("operate"))
	asks(a, "POST", "/gc", "{}", as("read"))
	asks(a, "POST", "/refresh", "{", as("operate"))
	asks(a, "GET", "/support", "", as("read"))
	asks(a, "GET", "/status", "", nil)
	asks(a, "GET", "/status", "", func(r *http.Request) { r.Host = "evil.example" })
	asks(a, "POST", "/session", `{"user": "operate", "password": "right"}`, nil)
	asks(a, "POST", "/session", `{"user": "operate", "password": "wrong"}`, nil)
	want := []line{
		{"POST", prefix + "/gc", "operate", 202}, {"POST", prefix + "/gc", "read", 403}, {"POST", prefix + "/refresh", "operate", 400},
		{"GET", prefix + "/support", "read", 403}, {"GET", prefix + "/status", "", 401}, {"GET", prefix + "/status", "", 403},
		{"POST", prefix + "/session", "operate", 200}, {"POST", prefix + "/session", "", 401},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audited (-want +got):\n%s", diff)
	}
}
