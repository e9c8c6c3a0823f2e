package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience bounds every request and every wait for a condition: a mirror that says
// nothing for so long has failed, whatever it would say later.
const patience = 25 * time.Second

// atOnce bounds what needs nobody's patience: milliseconds on an idle machine. Whoever
// waits for a timeout of an upstream has 10 s of it at least.
const atOnce = 8 * time.Second

// The User-Agents of clients, by the way in which they react to errors.
const (
	agentDocker     = `docker/20.10.24+dfsg1 go/go1.19.8 git-commit/5d6db84 kernel/6.1.0 os/linux arch/amd64 UpstreamClient(Docker-Client/28.2.2 \(linux\))`
	agentDockerC8D  = `docker/29.0.0 go/go1.25.1 git-commit/abc kernel/6.1.0 os/linux arch/amd64 containerd-client/2.3.4+unknown storage-driver/overlayfs UpstreamClient(Docker-Client/29.0.0 \(linux\))`
	agentContainerd = "containerd/2.3.4+unknown"
	agentBuildKit   = "buildkit/v0.23.2"
	agentPodman     = "containers/5.40.0 (github.com/containers/image)"
	agentCRIO       = "cri-o/1.33.0 go/go1.24.1 os/linux arch/amd64"
	agentBuildah    = "Buildah/1.40.0"
	agentSkopeo     = "skopeo/1.9.3"
	agentCrane      = "crane/v0.20.6 go-containerregistry/v0.20.6"
	agentKaniko     = "kaniko/v1.24.0 go-containerregistry/v0.20.3"
	agentORAS       = "oras-go"
	agentHelm       = "Helm/3.18.0"
	agentRegctl     = "regclient/regctl (v0.8.3)"
	agentRenovate   = "RenovateBot/41.0.0 (https://github.com/renovatebot/renovate)"
)

// answer is a response, read to its end.
type answer struct {
	request string // "GET /v2/… Range: bytes=0-1", for messages
	Status  int
	Header  http.Header
	Length  int64 // announced; -1 when not
	Body    []byte
	Err     error // of reading the body
	Took    time.Duration
}

// client speaks to a mirror as a bare HTTP client: nothing is decoded, followed, retried
// or added.
type client struct {
	t    testing.TB
	http *http.Client
	// challenged: the mirror wants to know who its clients are, and may ask for it.
	challenged bool
}

func newClient(t testing.TB) *client {
	t.Helper()
	tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	t.Cleanup(tr.CloseIdleConnections)
	return &client{t: t, http: &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// get asks for base+path with header lines "Name: value".
func (c *client) get(base, path string, lines ...string) *answer {
	c.t.Helper()
	return c.ask(http.MethodGet, base, path, lines...)
}

func (c *client) head(base, path string, lines ...string) *answer {
	c.t.Helper()
	return c.ask(http.MethodHead, base, path, lines...)
}

// ask sends one request and checks of its answer what holds for every answer there is.
func (c *client) ask(method, base, path string, lines ...string) *answer {
	c.t.Helper()
	a, err := c.try(context.Background(), method, base, path, lines...)
	if err != nil {
		c.t.Fatalf("%s %s: %s", method, path, err)
	}
	return a
}

// try is ask for requests that may get no answer. The path is sent as it is, escapes and all.
func (c *client) try(ctx context.Context, method, base, path string, lines ...string) (*answer, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := newRequest(ctx, method, base, path, lines...)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	res, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	a := &answer{
		request: labelOf(method, path, lines),
		Status:  res.StatusCode, Header: res.Header, Length: res.ContentLength,
	}
	a.Body, a.Err = io.ReadAll(res.Body)
	a.Took = time.Since(start)
	a.assertSane(c.t, method, c.challenged)
	return a, nil
}

// labelOf names a request in messages, without the headers that say little and are long.
func labelOf(method, path string, lines []string) string {
	label := method + " " + path
	for _, line := range lines {
		if name, value, _ := strings.Cut(line, ": "); name == "User-Agent" {
			product, _, _ := strings.Cut(value, "/")
			label += " by " + product
		} else if !strings.HasPrefix(name, "Accept") {
			label += " " + line
		}
	}
	return label
}

func newRequest(ctx context.Context, method, base, path string, lines ...string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, base, nil)
	if err != nil {
		return nil, err
	}
	plain, query, _ := strings.Cut(path, "?")
	r.URL = &url.URL{Scheme: r.URL.Scheme, Host: r.URL.Host, Opaque: plain, RawQuery: query}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		if name == "Host" {
			r.Host = value
			continue
		}
		r.Header.Add(name, value)
	}
	if r.Header.Get("User-Agent") == "" {
		r.Header.Set("User-Agent", "conformance")
	}
	return r, nil
}

// never are the headers that must not leave a mirror (docs/clients.md), and those of the
// upstream that tell about it or about its credentials.
var never = []string{
	"Www-Authenticate", "Set-Cookie", "Content-Encoding", "Strict-Transport-Security", "Location",
	"Ratelimit-Limit", "Ratelimit-Remaining", "X-Ratelimit-Limit", "X-Ratelimit-Remaining", "Docker-Ratelimit-Source",
}

// assertSane checks what holds for every answer: no 401 and no challenge (T01), nothing of
// the upstream's, a length, and for errors a document.
func (a *answer) assertSane(t testing.TB, method string, challenged bool) {
	t.Helper()
	if a.Status == http.StatusUnauthorized && !challenged {
		t.Errorf("%s: 401, which makes dockerd hand out its user's password", a.request)
	}
	for _, name := range never {
		if v := a.Header.Values(name); len(v) > 0 && (name != "Www-Authenticate" || !challenged) {
			t.Errorf("%s: header %s: %q must never leave the mirror", a.request, name, v)
		}
	}
	if got := a.Header.Get("Docker-Distribution-Api-Version"); got != "registry/2.0" {
		t.Errorf("%s: Docker-Distribution-Api-Version %q, want registry/2.0", a.request, got)
	}
	if a.Status == http.StatusNotModified {
		return
	}
	if a.Length < 0 {
		t.Errorf("%s: no Content-Length (status %d)", a.request, a.Status)
	}
	if method == http.MethodHead {
		if len(a.Body) > 0 {
			t.Errorf("%s: HEAD has a body of %d bytes", a.request, len(a.Body))
		}
		return
	}
	if a.Err == nil && a.Length >= 0 && int64(len(a.Body)) != a.Length {
		t.Errorf("%s: body of %d bytes, Content-Length %d", a.request, len(a.Body), a.Length)
	}
	if a.Status >= 400 {
		a.document(t)
	}
}

// knownCodes are the error codes of the OCI distribution specification, "Error Codes", and
// the one of ours for troubles of the mirror itself.
var knownCodes = []string{
	"BLOB_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "MANIFEST_UNKNOWN", "NAME_INVALID",
	"NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS", "UNAVAILABLE",
	"PAGINATION_NUMBER_INVALID",
}

// document returns code and message of an error document, and checks its form.
func (a *answer) document(t testing.TB) (code, message string) {
	t.Helper()
	if got := a.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s: status %d has Content-Type %q, want application/json", a.request, a.Status, got)
	}
	var doc struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(a.Body, &doc); err != nil || len(doc.Errors) == 0 {
		t.Errorf("%s: status %d, body %q is no error document (%v)", a.request, a.Status, a.Body, err)
		return "", ""
	}
	e := doc.Errors[0]
	if !slices.Contains(knownCodes, e.Code) || e.Message == "" {
		t.Errorf("%s: error {%q, %q}, want a known code and a message", a.request, e.Code, e.Message)
	}
	return e.Code, e.Message
}

// assertError checks status and code of an error.
func (a *answer) assertError(t testing.TB, status int, code string) {
	t.Helper()
	if a.Status != status {
		t.Errorf("%s: status %d (%.200s), want %d %s", a.request, a.Status, a.Body, status, code)
		return
	}
	if len(a.Body) == 0 {
		return // of HEAD
	}
	if got, _ := a.document(t); got != code {
		t.Errorf("%s: code %q, want %q", a.request, got, code)
	}
}

// assertWhole checks that the answer is 200 with exactly these bytes.
func (a *answer) assertWhole(t testing.TB, want []byte) {
	t.Helper()
	if a.Status != http.StatusOK || a.Err != nil || string(a.Body) != string(want) {
		t.Errorf("%s: status %d, %d bytes, error %v (%.200s), want 200 and the %d bytes of the original",
			a.request, a.Status, len(a.Body), a.Err, headOf(a.Body), len(want))
	}
}

func headOf(b []byte) []byte { return b[:min(len(b), 200)] }

func (a *answer) assertHeader(t testing.TB, name, want string) {
	t.Helper()
	if got := a.Header.Values(name); len(got) != 1 || got[0] != want {
		t.Errorf("%s: header %s: %q, want %q", a.request, name, got, want)
	}
}

// assertManifest checks a successful answer of HEAD or GET for a manifest.
func (a *answer) assertManifest(t testing.TB, mediaType, digest string, raw []byte) {
	t.Helper()
	if a.Status != http.StatusOK {
		t.Errorf("%s: status %d (%.200s), want 200", a.request, a.Status, a.Body)
		return
	}
	if !strings.HasPrefix(a.request, http.MethodHead) {
		a.assertWhole(t, raw)
	}
	a.assertHeader(t, "Content-Type", mediaType)
	a.assertHeader(t, "Content-Length", strconv.Itoa(len(raw)))
	a.assertHeader(t, "Docker-Content-Digest", digest)
	a.assertHeader(t, "Etag", `"`+digest+`"`)
}

// assertBlob checks a successful answer of HEAD or GET for a whole blob.
func (a *answer) assertBlob(t testing.TB, digest string, raw []byte) {
	t.Helper()
	if a.Status != http.StatusOK {
		t.Errorf("%s: status %d (%.200s), want 200", a.request, a.Status, headOf(a.Body))
		return
	}
	if !strings.HasPrefix(a.request, http.MethodHead) {
		a.assertWhole(t, raw)
	}
	a.assertHeader(t, "Content-Type", "application/octet-stream")
	a.assertHeader(t, "Content-Length", strconv.Itoa(len(raw)))
	a.assertHeader(t, "Docker-Content-Digest", digest)
	a.assertHeader(t, "Etag", `"`+digest+`"`)
	a.assertHeader(t, "Accept-Ranges", "bytes")
}

// shape is one way in which clients write the URL of a repository of docker.io
// (docs/clients.md, "How a client names a repository").
type shape struct {
	name   string
	before string // of the repository
	ns     string
}

// shapes are all five.
func shapes() []shape {
	return []shape{
		{"ns", "/v2/", "docker.io"},
		{"bare", "/v2/", ""},
		{"prefix", "/v2/docker.io/", ""},
		{"prefix and ns", "/v2/docker.io/", "docker.io"},
		{"root and ns", "/docker.io/v2/", "docker.io"},
	}
}

// path returns the path of a resource, "manifests/latest", perhaps with a query.
func (s shape) path(repo, resource string) string {
	p := s.before + repo + "/" + resource
	if s.ns == "" {
		return p
	}
	separator := "?"
	if strings.Contains(resource, "?") {
		separator = "&"
	}
	return p + separator + "ns=" + url.QueryEscape(s.ns)
}

// nameOf is the repository as a client spells it in this shape.
func (s shape) nameOf(repo string) string {
	return strings.TrimPrefix(strings.TrimPrefix(s.before, "/docker.io"), "/v2/") + repo
}

// eventually waits until done returns true.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %s for: %s", 3*patience, what)
		}
	}
}

// rawGet sends a request over a bare connection, which it returns.
func rawGet(t testing.TB, base, path string, lines ...string) net.Conn {
	t.Helper()
	host := strings.TrimPrefix(base, "http://")
	c, err := net.DialTimeout("tcp", host, patience)
	if err != nil {
		t.Fatalf("dial mirror: %s", err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatalf("set deadline: %s", err)
	}
	head := append([]string{"GET " + path + " HTTP/1.1", "Host: " + host}, lines...)
	if _, err := io.WriteString(c, strings.Join(head, "\r\n")+"\r\n\r\n"); err != nil {
		t.Fatalf("send request: %s", err)
	}
	return c
}

// isCutShort reports whether err is what a client sees of a body that ended short.
func isCutShort(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }

// withBody sends a request with a body of known length.
func (c *client) withBody(method, base, path, body string, lines ...string) *answer {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := newRequest(ctx, method, base, path, lines...)
	if err != nil {
		c.t.Fatalf("%s %s: %s", method, path, err)
	}
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	res, err := c.http.Do(r)
	if err != nil {
		c.t.Fatalf("%s %s: %s", method, path, err)
	}
	defer res.Body.Close()
	a := &answer{request: method + " " + path, Status: res.StatusCode, Header: res.Header, Length: res.ContentLength}
	a.Body, a.Err = io.ReadAll(res.Body)
	a.assertSane(c.t, method, c.challenged)
	return a
}

// assertRetryAfter checks that the answer says in seconds when to come back.
func (a *answer) assertRetryAfter(t testing.TB) {
	t.Helper()
	text := a.Header.Get("Retry-After")
	if n, err := strconv.Atoi(text); err != nil || n < 1 || n > 24*3600 {
		t.Errorf("%s: Retry-After %q, want a number of seconds", a.request, text)
	}
}

// loose is try for answers whose length may be unknown: nothing is checked.
func (c *client) loose(ctx context.Context, base, path string, lines ...string) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	r, err := newRequest(ctx, http.MethodGet, base, path, lines...)
	if err != nil {
		return nil, err
	}
	res, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	a := &answer{request: "GET " + path, Status: res.StatusCode, Header: res.Header, Length: res.ContentLength}
	a.Body, a.Err = io.ReadAll(res.Body)
	return a, nil
}

// recovers waits until path is served again: an upstream that failed several times in a
// row is asked only now and then.
func (c *client) recovers(base, path string) {
	c.t.Helper()
	eventually(c.t, "recovery: "+path, func() bool {
		a, err := c.loose(context.Background(), base, path)
		return err == nil && a.Status == http.StatusOK && a.Err == nil
	})
}
