package hubtest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// probe is a plain net/http client of a hub. It follows no redirect by itself.
type probe struct {
	t      testing.TB
	hub    *Hub
	client *http.Client
}

func newProbe(t testing.TB, h *Hub) *probe {
	t.Helper()
	tr := &http.Transport{DialContext: h.DialContext, DisableCompression: true}
	if h.ca != nil {
		tr.TLSClientConfig = clientTLS(h)
		tr.ForceAttemptHTTP2 = h.fixed.HTTP2
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &probe{t, h, &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       20 * time.Second,
	}}
}

// answer is a response read to its end.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
	length int64
	proto  int
}

func (p *probe) try(method, target string, header ...string) (answer, error) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, target, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(b), err, resp.ContentLength, resp.ProtoMajor}, nil
}

// do sends a request and wants an answer.
func (p *probe) do(method, target string, header ...string) answer {
	p.t.Helper()
	a, err := p.try(method, target, header...)
	if err != nil {
		p.t.Fatalf("%s %s: %s", method, target, err)
	}
	return a
}

// registry asks the registry with a bearer token unless token is "".
func (p *probe) registry(method, path, token string, header ...string) answer {
	p.t.Helper()
	if token != "" {
		header = append(header, "Authorization", "Bearer "+token)
	}
	return p.do(method, p.hub.RegistryURL()+path, header...)
}

// pull is registry GET with every manifest type accepted.
func (p *probe) pull(path, token string, header ...string) answer {
	p.t.Helper()
	return p.registry(http.MethodGet, path, token, append(header, acceptAll()...)...)
}

func (p *probe) head(path, token string, header ...string) answer {
	p.t.Helper()
	return p.registry(http.MethodHead, path, token, append(header, acceptAll()...)...)
}

func acceptAll() []string {
	return []string{"Accept", strings.Join([]string{OCIIndex, DockerList, OCIManifest, DockerManifest}, ", ")}
}

// token runs the token flow for one repository.
func (p *probe) token(repo string, auth ...string) string {
	p.t.Helper()
	a := p.do(http.MethodGet, p.tokenURL(repo), auth...)
	if a.status != http.StatusOK {
		p.t.Fatalf("token: status %d, body %s", a.status, a.body)
	}
	var body struct {
		Token       string
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		p.t.Fatal(err)
	}
	if body.AccessToken != "" {
		return body.AccessToken
	}
	return body.Token
}

func (p *probe) tokenURL(repos ...string) string {
	v := url.Values{"service": {"registry.docker.io"}}
	for _, r := range repos {
		v.Add("scope", "repository:"+r+":pull")
	}
	return p.hub.URL(RoleAuth) + "/token?" + v.Encode()
}

// location asks the registry for a blob and returns where it is.
func (p *probe) location(repo, digest, token string) string {
	p.t.Helper()
	a := p.registry(http.MethodGet, "/v2/"+repo+"/blobs/"+digest, token)
	if a.status != http.StatusTemporaryRedirect {
		p.t.Fatalf("blob %s: status %d, want 307; body %s", digest, a.status, a.body)
	}
	return a.header.Get("Location")
}

func wantStatus(t *testing.T, a answer, want int) {
	t.Helper()
	if a.status != want {
		t.Errorf("status = %d, want %d; body %q", a.status, want, a.body)
	}
}

func wantHeader(t *testing.T, a answer, name, want string) {
	t.Helper()
	if got := a.header.Get(name); got != want {
		t.Errorf("header %s = %q, want %q", name, got, want)
	}
}

func wantBody(t *testing.T, a answer, want string) {
	t.Helper()
	if a.err != nil {
		t.Errorf("body: %s", a.err)
	}
	if a.body != want {
		t.Errorf("body = %q (%d bytes), want %q (%d bytes)", a.body, len(a.body), want, len(want))
	}
}

func wantMatch(t *testing.T, what, got, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(got) {
		t.Errorf("%s = %q, want a match of %s", what, got, pattern)
	}
}

func copyTo(w io.Writer, r io.Reader) (int64, error) { return io.Copy(w, r) }
