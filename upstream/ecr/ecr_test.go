package ecr

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"forebay/internal/pull"
	"forebay/test/hubtest"
	"forebay/upstream"
	"forebay/upstream/auth"
	"forebay/upstream/issue"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	private = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	keyID   = "AKIDEXAMPLE"
	key     = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
)

// amazon is an endpoint that hands out passwords, one after the other.
type amazon struct {
	t   *testing.T
	url string

	mu     sync.Mutex
	now    time.Time
	issued int
	scopes []string                         // of the signatures, "region/service"
	fault  func(w http.ResponseWriter) bool // answers in place of the endpoint if it returns true
}

// newAmazon starts an endpoint and makes the environment that of a program on AWS.
func newAmazon(t *testing.T) *amazon {
	t.Helper()
	a := &amazon{t: t, now: time.Unix(1_790_000_000, 0)}
	server := httptest.NewServer(a)
	t.Cleanup(server.Close)
	a.url = server.URL
	none := t.TempDir() + "/none"
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": keyID, "AWS_SECRET_ACCESS_KEY": key, "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "",
		"AWS_CONFIG_FILE": none, "AWS_SHARED_CREDENTIALS_FILE": none, "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_ENDPOINT_URL_ECR": server.URL, "AWS_ENDPOINT_URL_ECR_PUBLIC": server.URL, "AWS_MAX_ATTEMPTS": "1",
		"AWS_REGION": "ap-south-2", "AWS_CA_BUNDLE": "", "HTTP_PROXY": "", "HTTPS_PROXY": "",
	} {
		t.Setenv(name, value)
	}
	return a
}

// signature is what a request is signed with, by AWS Signature Version 4.
var signature = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=` + keyID + `/[0-9]{8}/([a-z0-9-]+/[a-z-]+)/aws4_request, ` +
	`SignedHeaders=[a-z0-9;-]*host[a-z0-9;-]*x-amz-date[a-z0-9;-]*, Signature=[0-9a-f]{64}$`)

func (a *amazon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	signed := signature.FindStringSubmatch(r.Header.Get("Authorization"))
	if signed == nil || r.Header.Get("X-Amz-Date") == "" {
		a.t.Errorf("request is not signed: %q", r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusForbidden)
		return
	}
	a.mu.Lock()
	a.scopes = append(a.scopes, signed[1])
	fault := a.fault
	a.mu.Unlock()
	if fault != nil && fault(w) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.issued++
	data := map[string]any{
		"authorizationToken": base64.StdEncoding.EncodeToString([]byte("AWS:" + a.secret())),
		"expiresAt":          float64(a.now.Add(12 * time.Hour).Unix()),
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	var body any
	switch target := r.Header.Get("X-Amz-Target"); target {
	case "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken":
		body = map[string]any{"authorizationData": []any{data}}
	case "SpencerFrontendService.GetAuthorizationToken":
		body = map[string]any{"authorizationData": data}
	default:
		a.t.Errorf("request is for %q", target)
	}
	if err := json.NewEncoder(w).Encode(body); err != nil {
		a.t.Error(err)
	}
}

// secret is the latest password. a.mu is held.
func (a *amazon) secret() string { return fmt.Sprintf("password-%d", a.issued) }

func (a *amazon) time() time.Time {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.now
}

func (a *amazon) pass(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now = a.now.Add(d)
}

func (a *amazon) requests() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.scopes)
}

func (a *amazon) fail(f func(w http.ResponseWriter) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.fault = f
}

func (a *amazon) issuer(registry string) *issue.Issuer {
	a.t.Helper()
	i, err := New(Options{Registry: registry, Now: a.time})
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(i.Close)
	return i
}

// wantSecret asks for a password and waits until no request is in progress.
func wantSecret(t *testing.T, i *issue.Issuer, renew bool, want string) {
	t.Helper()
	user, secret, err := i.Issue(t.Context(), renew)
	if err != nil || user != "AWS" || secret != want {
		t.Errorf("Issue(renew %v) = %q, %q, %v; want AWS, %q", renew, user, secret, err, want)
	}
	i.Wait()
}

func TestParseHost(t *testing.T) {
	for host, want := range map[string]Site{
		private: {Account: "123456789012", Region: "eu-west-1"},
		"123456789012.DKR.ecr.us-gov-east-1.amazonaws.com":  {Account: "123456789012", Region: "us-gov-east-1"},
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com": {Account: "123456789012", Region: "us-east-1", FIPS: true},
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":  {Account: "123456789012", Region: "cn-north-1"},
		"123456789012.dkr-ecr.eu-west-1.on.aws":             {Account: "123456789012", Region: "eu-west-1", DualStack: true},
		"123456789012.dkr-ecr-fips.us-west-2.on.aws":        {Account: "123456789012", Region: "us-west-2", FIPS: true, DualStack: true},
		Public:                        {Region: "us-east-1"},
		"docker.io":                   {},
		"12345.dkr.ecr.eu-west-1.com": {},
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example": {},
		"123456789012.dkr.ecr.eu-west-1/x.amazonaws.com":            {},
		"x.123456789012.dkr.ecr.eu-west-1.amazonaws.com":            {},
		private + ":443": {},
	} {
		got, err := ParseHost(host)
		if got != want || (err == nil) != (want.Region != "") {
			t.Errorf("ParseHost(%q) = %+v, %v; want %+v", host, got, err, want)
		}
	}
}

func TestRequestIsSignedForTheRegistrysRegion(t *testing.T) {
	a := newAmazon(t)
	wantSecret(t, a.issuer(private), false, "password-1")
	wantSecret(t, a.issuer(Public), false, "password-2")
	wantSecret(t, a.issuer("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"), false, "password-3")
	if got, want := strings.Join(a.scopes, " "), "eu-west-1/ecr us-east-1/ecr-public cn-north-1/ecr"; got != want {
		t.Errorf("signed for %q, want %q", got, want)
	}
}

func TestProfileOfTheSharedFilesIsUsed(t *testing.T) {
	a := newAmazon(t)
	file := t.TempDir() + "/credentials"
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", file)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	i := a.issuer(private)
	if _, _, err := i.Issue(t.Context(), false); err == nil {
		t.Error("Issue without anybody to be gives no error")
	}
	write(t, file, "[default]\naws_access_key_id = "+keyID+"\naws_secret_access_key = "+key+"\n")
	a.pass(issue.AskAgain)
	wantSecret(t, i, false, "password-1")
}

func TestOnePasswordForAllWhoWaitAndForHours(t *testing.T) {
	a := newAmazon(t)
	i := a.issuer(private)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, secret, err := i.Issue(t.Context(), false); secret != "password-1" || err != nil {
				t.Errorf("Issue = %q, %v", secret, err)
			}
		})
	}
	wg.Wait()
	a.pass(11*time.Hour - time.Second)
	wantSecret(t, i, false, "password-1")
	if n := a.requests(); n != 1 {
		t.Errorf("Amazon saw %d requests, want 1", n)
	}
}

func TestPasswordIsReplacedBeforeItsEndWithoutAWait(t *testing.T) {
	a := newAmazon(t)
	i := a.issuer(private)
	wantSecret(t, i, false, "password-1")
	a.pass(11*time.Hour + time.Second)
	wantSecret(t, i, false, "password-1") // and the next is fetched behind it
	wantSecret(t, i, false, "password-2")

	// An outage of Amazon's hurts only when the password ends.
	a.pass(11*time.Hour + time.Second)
	a.fail(func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusServiceUnavailable); return true })
	before := a.requests()
	for range 10 {
		wantSecret(t, i, false, "password-2")
	}
	if n := a.requests() - before; n != 1 {
		t.Errorf("Amazon saw %d requests in an outage, want 1 in a minute", n)
	}
	a.pass(issue.RefreshAgain)
	wantSecret(t, i, false, "password-2")
	if n := a.requests() - before; n != 2 {
		t.Errorf("Amazon saw %d requests, want another after a minute", n)
	}
	a.pass(time.Hour)
	if _, _, err := i.Issue(t.Context(), false); err == nil {
		t.Error("Issue with a password that has ended gives no error")
	}
	a.fail(nil)
	a.pass(issue.AskAgain)
	wantSecret(t, i, false, "password-3")
}

func TestRefusedPasswordIsReplacedOnce(t *testing.T) {
	a := newAmazon(t)
	i := a.issuer(private)
	wantSecret(t, i, false, "password-1")
	wantSecret(t, i, true, "password-1") // it is new: another would be no better
	a.pass(issue.RenewAgain)
	wantSecret(t, i, true, "password-2")
	wantSecret(t, i, true, "password-2")
	wantSecret(t, i, false, "password-2")
}

func TestFailureIsToldWithoutSecrets(t *testing.T) {
	a := newAmazon(t)
	for name, test := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   string
	}{
		"denied": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.1")
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"__type":"AccessDeniedException","message":"User: arn:aws:iam::1:user/x is not authorized"}`)
		}, "AccessDeniedException: User: arn"},
		"no password": {func(w http.ResponseWriter) {
			fmt.Fprint(w, `{"authorizationData":[]}`)
		}, "no usable password"},
		"nonsense": {func(w http.ResponseWriter) {
			fmt.Fprintf(w, `{"authorizationData":[{"authorizationToken":%q}]}`, base64.StdEncoding.EncodeToString([]byte("hunter2")))
		}, "no usable password"},
		"HTML": {func(w http.ResponseWriter) { fmt.Fprint(w, "<html>") }, "get authorization token"},
	} {
		a.fail(func(w http.ResponseWriter) bool { test.answer(w); return true })
		i := a.issuer(private)
		_, _, err := i.Issue(t.Context(), false)
		if err == nil || !strings.Contains(err.Error(), test.want) || len(err.Error()) > 400 {
			t.Errorf("%s: error is %v, want %q in it", name, err, test.want)
		} else if strings.Contains(err.Error(), key) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error tells too much: %v", name, err)
		}
		before := a.requests()
		if _, _, again := i.Issue(t.Context(), false); again == nil || a.requests() != before {
			t.Errorf("%s: asked again at once: %v", name, again)
		}
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	a := newAmazon(t)
	i := a.issuer(private)
	release := make(chan struct{})
	a.fail(func(http.ResponseWriter) bool { <-release; return false })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := i.Issue(ctx, false); !errors.Is(err, context.Canceled) {
		t.Errorf("Issue = %v, want canceled", err)
	}
	close(release)
	wantSecret(t, i, false, "password-1")
}

func TestCloseEndsARequestInProgress(t *testing.T) {
	a := newAmazon(t)
	i, err := New(Options{Registry: private, Now: a.time})
	if err != nil {
		t.Fatal(err)
	}
	asked, release := make(chan struct{}), make(chan struct{})
	a.fail(func(http.ResponseWriter) bool { close(asked); <-release; return true })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { _, _, err := i.Issue(ctx, false); done <- err }()
	<-asked
	i.Close()
	if err := <-done; err == nil {
		t.Error("Issue gives no error after Close")
	}
	cancel()
	close(release)
}

func TestProxyCarriesTheRequest(t *testing.T) {
	a := newAmazon(t)
	t.Setenv("AWS_ENDPOINT_URL_ECR", "http://ecr.invalid")
	proxy, err := url.Parse(a.url)
	if err != nil {
		t.Fatal(err)
	}
	i, err := New(Options{Registry: private, Now: a.time, Proxy: proxy})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(i.Close)
	wantSecret(t, i, false, "password-1")
}

// TestECRPasswordIsReplacedWhenTheRegistryRefusesIt pulls through a registry that takes
// the latest password only, and says so with 401 or 403.
func TestECRPasswordIsReplacedWhenTheRegistryRefusesIt(t *testing.T) {
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		a := newAmazon(t)
		hub := hubtest.New(t, hubtest.Options{Profile: hubtest.ECR})
		hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
		hub.AddUser(hubtest.User{Name: "AWS", Secrets: []string{"password-1"}, Repos: []string{"acme/*"}})
		r, err := upstream.New(upstream.Options{
			Name: private, Endpoints: []upstream.Endpoint{{URL: hub.RegistryURL()}},
			Credentials: auth.Credentials{Issuer: a.issuer(private)},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.Close)
		get := func() error { _, _, err := r.Manifest(t.Context(), "acme/app", "latest"); return err }
		if err := get(); err != nil {
			t.Errorf("Manifest: %v", err)
		}
		a.pass(2 * time.Hour)
		hub.AddUser(hubtest.User{Name: "AWS", Secrets: []string{"password-2"}, Repos: []string{"acme/*"}})
		if status == http.StatusForbidden {
			old := "Basic " + base64.StdEncoding.EncodeToString([]byte("AWS:password-1"))
			hub.AddRule(hubtest.Rule{
				Role: hubtest.RoleRegistry, Do: hubtest.TokenExpired(status),
				When: func(s *hubtest.State) bool { return s.Request.Header.Get("Authorization") == old },
			})
		}
		if err := get(); err != nil {
			t.Errorf("Manifest after %d: %v", status, err)
		}
		if n := a.requests(); n != 2 {
			t.Errorf("Amazon saw %d requests, want 2", n)
		}

		// Refused for good: one more password, and then the refusal is passed on.
		a.pass(2 * time.Hour)
		hub.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Do: hubtest.TokenExpired(status)})
		for range 3 {
			if err := get(); pull.KindOf(err) != pull.Denied {
				t.Errorf("Manifest = %v, want denied", err)
			}
		}
		if n := a.requests(); n != 3 {
			t.Errorf("Amazon saw %d requests, want 3", n)
		}
		hub.AssertClean(t)
	}
}

// TestECRPublicWithAPassword: the password goes to the token server, and is no bearer token.
func TestECRPublicWithAPassword(t *testing.T) {
	a := newAmazon(t)
	hub := hubtest.New(t, hubtest.Options{Profile: hubtest.ECRPublic})
	hub.PushImage("acme/app", "latest", hubtest.ImageSpec{})
	hub.AddUser(hubtest.User{Name: "AWS", Secrets: []string{"password-1"}})
	r, err := upstream.New(upstream.Options{
		Name: Public, Endpoints: []upstream.Endpoint{{URL: hub.RegistryURL()}},
		Credentials: auth.Credentials{Issuer: a.issuer(Public)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	if _, err := r.Resolve(t.Context(), "acme/app", "latest"); err != nil {
		t.Errorf("Resolve: %v", err)
	}
	if n := hub.Counters().TokensIssued["AWS aws"]; n != 1 {
		t.Errorf("tokens issued: %v, want one for AWS with scope aws", hub.Counters().TokensIssued)
	}
	hub.AssertClean(t)
}

func TestFailureOfAmazonIsAFailureOfTheUpstream(t *testing.T) {
	a := newAmazon(t)
	a.fail(func(w http.ResponseWriter) bool { w.WriteHeader(http.StatusServiceUnavailable); return true })
	hub := hubtest.New(t, hubtest.Options{Profile: hubtest.ECR})
	r, err := upstream.New(upstream.Options{
		Name: private, Endpoints: []upstream.Endpoint{{URL: hub.RegistryURL()}}, Credentials: auth.Credentials{Issuer: a.issuer(private)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	_, err = r.Resolve(t.Context(), "acme/app", "latest")
	if pull.KindOf(err) != pull.Unavailable || !strings.Contains(fmt.Sprint(err), "ecr: ") {
		t.Errorf("Resolve = %v, want unavailable and why", err)
	}
}

func TestNothingPrintsThePassword(t *testing.T) {
	a := newAmazon(t)
	i := a.issuer(private)
	wantSecret(t, i, false, "password-1")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		if text := fmt.Sprintf(verb, i); strings.Contains(text, "password-") {
			t.Errorf("%s prints %s", verb, text)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(base64.StdEncoding.EncodeToString([]byte("AWS:secret")))
	f.Add("QVdTOg==")
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		p, err := decode(token)
		if err == nil && (p.User == "" || p.Secret == "" || strings.ContainsAny(p.User+p.Secret, "\r\n\x00")) {
			t.Errorf("decode(%q) = %q, %q", token, p.User, p.Secret)
		}
	})
}
