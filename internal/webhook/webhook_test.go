package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"forebay/test/hubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "correct-horse-battery"

// receiver is a handler behind a real listener, and what it was told.
type receiver struct {
	url  string // without the secret, with a slash at its end
	logs *observer.ObservedLogs

	mu    sync.Mutex
	hints []Tag
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	r := &receiver{logs: logs}
	h := New(Options{Secret: secret, Log: zap.New(core), Hint: func(registry, repository, tag string) bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.hints = append(r.hints, Tag{registry, repository, tag})
		return true
	}})
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	r.url = server.URL + Path + "/"
	return r
}

func (r *receiver) told() []Tag {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.hints
}

// send makes one request and returns status and body of the answer; headers come in pairs.
func send(t *testing.T, method, url, body string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestPayloadsOfTheHubAreHints(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{})
	r := newReceiver(t)
	for _, tt := range []struct {
		shape hubtest.WebhookShape
		want  int
		hints int
	}{
		{hubtest.WebhookNormal, 202, 1},
		{hubtest.WebhookCallback, 202, 2},
		{hubtest.WebhookWrongTypes, 400, 2},
	} {
		status, err := hub.EmitWebhook(t.Context(), r.url+secret, "acme/app", "v1", tt.shape)
		if status != tt.want || err != nil {
			t.Errorf("webhook %q is answered %d, %v; want %d", tt.shape, status, err, tt.want)
		}
		if got := r.told(); len(got) != tt.hints || got[0] != (Tag{"docker.io", "acme/app", "v1"}) {
			t.Errorf("hints after %q = %v, want %d", tt.shape, got, tt.hints)
		}
	}
	// Too large: the answer comes while the client still sends, so it may see a reset.
	if status, err := hub.EmitWebhook(t.Context(), r.url+secret, "acme/app", "v1", hubtest.WebhookHuge); err == nil && status != 413 {
		t.Errorf("a webhook of 10 MiB is answered %d, want 413", status)
	}
	if n := len(r.told()); n != 2 {
		t.Errorf("%d hints, want none of a payload that is too large", n-2)
	}
	hub.AssertClean(t) // callback_url was never called
}

func TestOnlyTheSecretOpens(t *testing.T) {
	r := newReceiver(t)
	const body = `{"docker_url":"quay.io/acme/app","updated_tags":["v1"]}`
	for path, want := range map[string]int{
		secret: 202, "": 404, "x": 404, secret + "x": 404, secret + "/": 404, strings.ToUpper(secret): 404, secret[:len(secret)-1]: 404,
		"../webhooks/" + secret: 404, "%63orrect-horse-battery": 202, // the same path, written otherwise
	} {
		before := len(r.told())
		status, text := send(t, http.MethodPost, r.url+path, body)
		if status != want {
			t.Errorf("POST /webhooks/%s = %d %s, want %d", path, status, text, want)
		}
		if got := len(r.told()) - before; (got == 1) != (want == 202) {
			t.Errorf("POST /webhooks/%s gives %d hints", path, got)
		}
	}
	if status, _ := send(t, http.MethodGet, r.url+secret, ""); status != 405 {
		t.Errorf("GET = %d, want 405", status)
	}
	if status, _ := send(t, http.MethodGet, r.url+"x", ""); status != 404 {
		t.Errorf("GET without the secret = %d, want 404", status)
	}
	for _, entry := range r.logs.All() {
		text := entry.Message
		for _, f := range entry.Context {
			text += " " + f.String
		}
		if strings.Contains(text, secret) || strings.Contains(text, strings.ToUpper(secret)) {
			t.Errorf("log has the secret: %s", text)
		}
	}
}

func TestTheSecretCanBeInAHeaderOrSign(t *testing.T) {
	const body = `{"docker_url":"quay.io/acme/app","updated_tags":["v1"]}`
	sign := func(key, text string) string {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write([]byte(text))
		return "sha256=" + hex.EncodeToString(mac.Sum(nil))
	}
	right := sign(secret, body)
	for _, tt := range []struct {
		path    string
		headers []string
		want    int
	}{
		{"", nil, 404},
		{"", []string{"Authorization", secret}, 202}, // Harbor
		{"", []string{"Authorization", "Bearer " + secret}, 202},
		{"", []string{"Authorization", "bearer " + secret}, 202},
		{"", []string{"Authorization", "Basic " + secret}, 404},
		{"", []string{"Authorization", "Bearer " + secret + "x"}, 404},
		{"", []string{"Authorization", "Bearer"}, 404},
		{"", []string{"Authorization", "Bearer "}, 404},
		{"", []string{signatureHeader, right}, 202},
		{"", []string{signatureHeader, strings.ToUpper(right)}, 404},
		{"", []string{signatureHeader, "sha256=" + strings.ToUpper(right[7:])}, 202},
		{"", []string{signatureHeader, right[7:]}, 404},
		{"", []string{signatureHeader, right[:len(right)-2]}, 404},
		{"", []string{signatureHeader, "sha256="}, 404},
		{"", []string{signatureHeader, "sha256=zz"}, 404},
		{"", []string{signatureHeader, "sha1=" + right[7:]}, 404},
		{"", []string{signatureHeader, sign("another secret of it", body)}, 404},
		{"", []string{signatureHeader, sign(secret, body+" ")}, 404},
		{"", []string{signatureHeader, sign("", body)}, 404},
		{"", []string{signatureHeader, right, "Authorization", "Bearer wrong"}, 404},
		{"", []string{signatureHeader, "sha256=00", "Authorization", "Bearer " + secret}, 202}, // the one is enough
		{"wrong", []string{signatureHeader, right}, 404},
		{"wrong", []string{"Authorization", "Bearer " + secret}, 404},
		{secret, []string{"Authorization", "Bearer wrong"}, 202},
	} {
		r := newReceiver(t)
		for _, slash := range []bool{true, false} {
			url := r.url + tt.path
			if !slash && tt.path == "" {
				url = strings.TrimSuffix(url, "/")
			}
			before := len(r.told())
			status, text := send(t, http.MethodPost, url, body, tt.headers...)
			if got := len(r.told()) - before; status != tt.want || (got == 1) != (tt.want == 202) || strings.Contains(text, secret) {
				t.Errorf("POST %s with %q = %d %s and %d hints, want %d", url, tt.headers, status, text, got, tt.want)
			}
		}
	}
}

func TestOnlyWhatIsBelowThePathIsTheHandlers(t *testing.T) {
	for path, want := range map[string]bool{"/webhooks": true, "/webhooks/": true, "/webhooks/x": true, "/webhooksx": false, "/v2/": false, "/": false, "": false} {
		if got := Is(path); got != want {
			t.Errorf("Is(%q) = %t", path, got)
		}
	}
}

func TestUpstreamCanBeNamedInTheQuery(t *testing.T) {
	r := newReceiver(t)
	send(t, http.MethodPost, r.url+secret+"?upstream=harbor.corp", `{"events":[{"action":"push","target":{"repository":"acme/app","tag":"v1"},"request":{"host":"10.0.0.7:8080"}}]}`)
	if got := r.told(); len(got) != 1 || got[0].Registry != "harbor.corp" {
		t.Errorf("hints = %v, want one for harbor.corp", got)
	}
}

// pipe is a listener that gives one connection in memory, on which time is virtual.
type pipe struct {
	once   sync.Once
	server net.Conn
	done   chan struct{}
}

func (p *pipe) Accept() (c net.Conn, err error) {
	p.once.Do(func() { c = p.server })
	if c == nil {
		<-p.done
		err = net.ErrClosed
	}
	return c, err
}

func (p *pipe) Close() error   { close(p.done); return nil }
func (p *pipe) Addr() net.Addr { return p.server.LocalAddr() }

func TestPayloadThatNeverEndsIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, side := net.Pipe()
		server := &http.Server{Handler: New(Options{Secret: secret, Hint: func(string, string, string) bool { return true }})}
		done := make(chan error)
		go func() { done <- server.Serve(&pipe{server: side, done: make(chan struct{})}) }()
		start := time.Now()
		if _, err := io.WriteString(client, "POST "+Path+"/"+secret+" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(client)
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 400 ") {
			t.Errorf("answer = %q, %v; want 400 and the end", answer, err)
		}
		if took := time.Since(start); took < bodyTimeout || took > bodyTimeout+time.Second {
			t.Errorf("left after %v, want %v", took, bodyTimeout)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
}
