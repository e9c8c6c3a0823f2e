package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/crypto/bcrypt"

	"forebay/internal/reread"
)

var somewhere = netip.MustParseAddr("192.0.2.7")

// line is one of an htpasswd file, as cheap as bcrypt allows.
func line(t *testing.T, name, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return name + ":" + string(hash) + "\n"
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, o Options) *Authenticator {
	t.Helper()
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// showing is a request with a user's password; with "" for the user, with a bearer token.
func showing(t *testing.T, user, secret string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://mirror.example/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case user != "":
		r.SetBasicAuth(user, secret)
	case secret != "":
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	return r
}

func (a *Authenticator) mustBe(t *testing.T, r *http.Request, want string, groups ...string) {
	t.Helper()
	id, err := a.Identify(r, somewhere, nil)
	if err != nil || Qualified(id) != want || !slices.Equal(id.Groups, groups) {
		t.Errorf("Identify = %s of %v, %v; want %s of %v", Qualified(id), id.Groups, err, want, groups)
	}
}

func (a *Authenticator) mustRefuse(t *testing.T, r *http.Request, want error) {
	t.Helper()
	if id, err := a.Identify(r, somewhere, nil); !errors.Is(err, want) || id.Known() {
		t.Errorf("Identify = %+v, %v; want %v", id, err, want)
	}
}

func TestPasswords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "htpasswd")
		write(t, name, "# people\n\n"+line(t, "alice", "right")+line(t, "bob", "other:one"))
		a := open(t, Options{HtpasswdFile: name, Groups: map[string][]string{"team": {"alice"}, "all": {"bob", "alice"}}})
		for range 2 { // the second is remembered
			a.mustBe(t, showing(t, "alice", "right"), "alice", "all", "team")
		}
		if n := a.proved.Len(); n != 1 {
			t.Errorf("%d are known again, want 1", n)
		}
		a.mustBe(t, showing(t, "bob", "other:one"), "bob", "all")
		for _, r := range []*http.Request{
			showing(t, "alice", "wrong"), showing(t, "alice", ""), showing(t, "carol", "right"), showing(t, "", "right"),
			showing(t, "alice", strings.Repeat("x", 100)),
		} {
			a.mustRefuse(t, r, ErrRefused)
		}
		for _, header := range []string{"Basic", "Basic !!", "Digest x", "Bearer", "eyJ"} {
			r := showing(t, "", "")
			r.Header.Set("Authorization", header)
			a.mustRefuse(t, r, ErrRefused)
		}
		a.mustBe(t, showing(t, "", ""), "")

		// A password that was changed holds no longer, remembered or not; a broken file changes nothing.
		write(t, name, line(t, "alice", "changed at last"))
		time.Sleep(2 * time.Second)
		a.mustRefuse(t, showing(t, "alice", "right"), ErrRefused)
		a.mustBe(t, showing(t, "alice", "changed at last"), "alice", "all", "team")
		write(t, name, "alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n")
		time.Sleep(2 * time.Second)
		a.mustBe(t, showing(t, "alice", "changed at last"), "alice", "all", "team")
		time.Sleep(2 * provedTime)
		a.mustBe(t, showing(t, "alice", "changed at last"), "alice", "all", "team")
	})
}

func TestHtpasswdThatIsNotTaken(t *testing.T) {
	costly := "a:$2y$15$" + strings.Repeat("x", 53)
	for text, want := range map[string]string{
		"alice":                               "line 1 is no NAME:HASH",
		"\nalice:$apr1$x$y":                   `line 2: the password of "alice" is not hashed by bcrypt: use htpasswd -B`,
		costly:                                `the cost of the hash of "a" is 15`,
		line(t, "a", "x") + line(t, "a", "y"): `"a" is there twice`,
	} {
		name := filepath.Join(t.TempDir(), "htpasswd")
		write(t, name, text)
		if _, err := New(Options{HtpasswdFile: name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want %q", err, want)
		}
	}
	if _, err := New(Options{HtpasswdFile: "/nowhere/htpasswd"}); err == nil {
		t.Error("a file that is not there is taken")
	}
}

// Who guesses is kept from it, and nobody else: another address, or who was known before.
func TestGuessesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "htpasswd")
		write(t, name, line(t, "alice", "right"))
		a := open(t, Options{HtpasswdFile: name})
		a.mustBe(t, showing(t, "alice", "right"), "alice")
		for range guessBurst {
			a.mustRefuse(t, showing(t, "alice", "wrong"), ErrRefused)
		}
		a.mustRefuse(t, showing(t, "alice", "wrong"), ErrTooMany)
		a.mustRefuse(t, showing(t, "bob", "any"), ErrTooMany)
		a.mustBe(t, showing(t, "alice", "right"), "alice")
		if _, err := a.Identify(showing(t, "alice", "wrong"), netip.MustParseAddr("192.0.2.8"), nil); !errors.Is(err, ErrRefused) {
			t.Errorf("another address: %v", err)
		}
		time.Sleep(RetryAfter)
		a.mustRefuse(t, showing(t, "alice", "wrong"), ErrRefused)
		a.mustRefuse(t, showing(t, "alice", "wrong"), ErrTooMany)

		// All addresses of one network of IPv6 are one.
		for i := range guessBurst + 1 {
			addr := netip.MustParseAddr(fmt.Sprintf("2001:db8:1:1::%x", i+1))
			want := ErrRefused
			if i == guessBurst {
				want = ErrTooMany
			}
			if _, err := a.Identify(showing(t, "alice", "wrong"), addr, nil); !errors.Is(err, want) {
				t.Errorf("guess %d of %s: %v, want %v", i+1, addr, err, want)
			}
		}
	})
}

// Many at once are no way round the bound, and those who are right are all let in.
func TestGuessesAtOnceAreBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "htpasswd")
	text := ""
	for i := range 3 * guessBurst {
		text += line(t, fmt.Sprint("user", i), "right")
	}
	write(t, name, text)
	a := open(t, Options{HtpasswdFile: name})
	try := func(password string, from netip.Addr) (let, refused, tooMany int) {
		var all sync.WaitGroup
		results := make(chan error, 3*guessBurst)
		for i := range 3 * guessBurst {
			r := showing(t, fmt.Sprint("user", i), password)
			all.Go(func() {
				_, err := a.Identify(r, from, nil)
				results <- err
			})
		}
		all.Wait()
		close(results)
		for err := range results {
			switch {
			case err == nil:
				let++
			case errors.Is(err, ErrRefused):
				refused++
			case errors.Is(err, ErrTooMany):
				tooMany++
			}
		}
		return let, refused, tooMany
	}
	if _, refused, tooMany := try("wrong", somewhere); refused >= 2*guessBurst || refused+tooMany != 3*guessBurst {
		t.Errorf("%d guesses at once were looked at and %d not, want fewer than %d looked at", refused, tooMany, 2*guessBurst)
	}
	if let, _, _ := try("right", netip.MustParseAddr("192.0.2.9")); let != 3*guessBurst {
		t.Errorf("%d of %d who are right were let in", let, 3*guessBurst)
	}
}

// Who was right before is looked at again when the file changes, whatever others behind the same address
// have guessed; once it is wrong it is a guess, too.
func TestWhatWasRightIsNoGuess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "htpasswd")
		write(t, name, line(t, "alice", "right"))
		a := open(t, Options{HtpasswdFile: name})
		a.mustBe(t, showing(t, "alice", "right"), "alice")
		guess := func() {
			for i := range guessBurst + 1 {
				_, _ = a.Identify(showing(t, "alice", fmt.Sprint("wrong", i)), somewhere, nil)
			}
			a.mustRefuse(t, showing(t, "alice", "wrong"), ErrTooMany)
		}
		guess()
		write(t, name, line(t, "alice", "right")+line(t, "bob", "right"))
		time.Sleep(2 * reread.Every)
		a.mustBe(t, showing(t, "alice", "right"), "alice")
		a.mustRefuse(t, showing(t, "bob", "right"), ErrTooMany)
		write(t, name, line(t, "alice", "another"))
		time.Sleep(2 * reread.Every)
		guess()
		a.mustRefuse(t, showing(t, "alice", "right"), ErrRefused)
		a.mustRefuse(t, showing(t, "alice", "right"), ErrTooMany)
	})
}

// Guesses from many addresses at once hold up those addresses: who logs in from another has his turn after
// one of each, and who has logged in before waits for nobody.
func TestFloodsOfGuessesHoldUpNobodyElse(t *testing.T) {
	name := filepath.Join(t.TempDir(), "htpasswd")
	write(t, name, line(t, "alice", "right")+line(t, "bob", "right"))
	a := open(t, Options{HtpasswdFile: name})
	a.mustBe(t, showing(t, "bob", "right"), "bob")
	const attackers = 40
	ctx, end := context.WithCancel(t.Context())
	var all sync.WaitGroup
	var begun, answered atomic.Int64
	for i := range attackers {
		for range guessBurst {
			r := showing(t, "alice", "wrong").WithContext(ctx)
			all.Go(func() {
				begun.Add(1)
				_, _ = a.Identify(r, netip.AddrFrom4([4]byte{203, 0, 113, byte(i)}), nil)
				answered.Add(1)
			})
		}
	}
	for deadline := time.Now().Add(30 * time.Second); begun.Load() < attackers*guessBurst && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	before := answered.Load()
	a.mustBe(t, showing(t, "bob", "right"), "bob")
	if n := answered.Load() - before; n > attackers {
		t.Errorf("%d guesses went before who is known", n)
	}
	before = answered.Load()
	left := attackers*guessBurst - before
	if id, err := a.Identify(showing(t, "alice", "right"), netip.MustParseAddr("192.0.2.9"), nil); err != nil || id.Name != "alice" {
		t.Errorf("Identify = %+v, %v", id, err)
	}
	if n := answered.Load() - before; n > 4*attackers && n > left/2 {
		t.Errorf("%d of %d guesses that waited went before a login from another address, want some %d", n, left, attackers)
	}
	end()
	all.Wait()
}

func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "tokens")
		secret, forEver, err := NewToken("ci", []string{"robots", "builders"}, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		short, hour, err := NewToken("guest", nil, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		write(t, name, "# tokens\n"+forEver.String()+"\n"+hour.String()+"\n")
		if text, err := os.ReadFile(name); err != nil || strings.Contains(string(text), secret) {
			t.Errorf("the file holds the token itself (%v)", err)
		}
		a := open(t, Options{TokensFile: name})
		a.mustBe(t, showing(t, "", secret), "ci", "builders", "robots")
		a.mustBe(t, showing(t, "anybody", secret), "ci", "builders", "robots") // as docker login has it
		a.mustBe(t, showing(t, "", short), "guest")
		a.mustRefuse(t, showing(t, "", secret+"x"), ErrRefused)
		time.Sleep(time.Hour)
		a.mustRefuse(t, showing(t, "", short), ErrRefused)
		write(t, name, "") // revoked
		time.Sleep(2 * time.Second)
		a.mustRefuse(t, showing(t, "", secret), ErrRefused)
	})
	for text, want := range map[string]string{
		"ci abc never":   "line 1 is no NAME SHA256 EXPIRY GROUPS",
		"ci abc never -": "no SHA-256 in hex",
		"ci " + strings.Repeat("ab", 32) + " tomorrow -": `"tomorrow" is no time`,
	} {
		if _, err := ParseTokens([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseTokens(%q) = %v, want %q", text, err, want)
		}
	}
	if _, _, err := NewToken("two words", nil, time.Time{}); err == nil {
		t.Error("a name of two words is taken")
	}
}

func TestTokensOfOurOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, other := open(t, Options{}), open(t, Options{})
		token, lifetime, err := a.Exchange(Identity{Name: "alice", Groups: []string{"team"}, By: ByPassword})
		if err != nil {
			t.Fatal(err)
		}
		nobody, _, err := a.Exchange(Identity{})
		if err != nil {
			t.Fatal(err)
		}
		a.mustBe(t, showing(t, "", token), "alice", "team")
		a.mustBe(t, showing(t, "", nobody), "")
		other.mustRefuse(t, showing(t, "", token), ErrRefused)
		head, rest, _ := strings.Cut(token, ".")
		a.mustRefuse(t, showing(t, "", head+"."+strings.ToUpper(rest)), ErrRefused)
		a.mustRefuse(t, showing(t, "", "eyJhbGciOiJub25lIn0."+strings.Split(token, ".")[1]+"."), ErrRefused)
		time.Sleep(lifetime + time.Second)
		a.mustRefuse(t, showing(t, "", token), ErrRefused)
	})
}

func TestNetworksAndCertificates(t *testing.T) {
	a := open(t, Options{
		Networks: map[string][]netip.Prefix{
			"all": {netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
			"ci":  {netip.MustParsePrefix("192.0.2.7/32")},
		},
		Groups: map[string][]string{"builders": {"network:ci", "certificate:node-7"}, "trap": {"ci", "node-7"}},
	})
	for addr, want := range map[string]string{
		"192.0.2.7": "network:ci", "::ffff:192.0.2.7": "network:ci", "192.0.2.8": "network:all", "2001:db8::1": "network:all", "198.51.100.1": "",
	} {
		id, err := a.Identify(showing(t, "", ""), netip.MustParseAddr(addr), nil)
		if err != nil || Qualified(id) != want {
			t.Errorf("%s is %q, %v; want %q", addr, Qualified(id), err, want)
		}
	}
	a.mustBe(t, showing(t, "", ""), "network:ci", "builders")
	spiffe, err := url.Parse("spiffe://example.org/node")
	if err != nil {
		t.Fatal(err)
	}
	for want, cert := range map[string]*x509.Certificate{
		"certificate:node-7 [builders nodes]":      {Subject: pkix.Name{CommonName: "node-7", Organization: []string{"nodes"}}},
		"certificate:spiffe://example.org/node []": {URIs: []*url.URL{spiffe}, DNSNames: []string{"x.example"}},
		"certificate:x.example []":                 {DNSNames: []string{"x.example"}},
	} {
		// What the certificate says counts, whatever else is shown.
		id, err := a.Identify(showing(t, "alice", "wrong"), somewhere, cert)
		if got := fmt.Sprint(Qualified(id), " ", id.Groups); err != nil || got != want {
			t.Errorf("Identify = %s, %v; want %s", got, err, want)
		}
	}
}

// provider is an issuer with keys that change.
type provider struct {
	*httptest.Server
	mu   sync.Mutex
	keys map[string]*ecdsa.PrivateKey // guarded by mu
	asks int                          // guarded by mu; for its keys
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{keys: map[string]*ecdsa.PrivateKey{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": p.URL, "jwks_uri": p.URL + "/keys", "id_token_signing_alg_values_supported": []string{"ES256", "HS256", "none"}})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asks++
		var set jose.JSONWebKeySet
		for id, key := range p.keys {
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: key.Public(), KeyID: id, Algorithm: "ES256", Use: "sig"})
		}
		_ = json.NewEncoder(w).Encode(set)
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

// rotate makes a key the only one.
func (p *provider) rotate(t *testing.T, id string) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = map[string]*ecdsa.PrivateKey{id: key}
	return key
}

func sign(t *testing.T, alg jose.SignatureAlgorithm, key any, id string, claims map[string]any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: id}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokensOfAnIssuer(t *testing.T) {
	p := newProvider(t)
	first := p.rotate(t, "first")
	a := open(t, Options{Issuers: []Issuer{{URL: p.URL, Audience: "forebay"}}, Groups: map[string][]string{"prod": {"system:serviceaccount:prod:puller"}}})
	claims := func(change map[string]any) map[string]any {
		c := map[string]any{
			"iss": p.URL, "aud": []string{"forebay"}, "sub": "system:serviceaccount:prod:puller", "groups": []string{"pullers"},
			"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
		}
		for k, v := range change {
			c[k] = v
		}
		return c
	}
	good := sign(t, jose.ES256, first, "first", claims(nil))
	a.mustBe(t, showing(t, "", good), "system:serviceaccount:prod:puller", "prod", "pullers")
	a.mustBe(t, showing(t, "any", good), "system:serviceaccount:prod:puller", "prod", "pullers")
	public, err := x509.MarshalPKIXPublicKey(first.Public())
	if err != nil {
		t.Fatal(err)
	}
	forged, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{
		"another audience":     sign(t, jose.ES256, first, "first", claims(map[string]any{"aud": "other"})),
		"another issuer":       sign(t, jose.ES256, first, "first", claims(map[string]any{"iss": "https://evil.example"})),
		"expired":              sign(t, jose.ES256, first, "first", claims(map[string]any{"exp": time.Now().Add(-time.Hour).Unix()})),
		"not yet":              sign(t, jose.ES256, first, "first", claims(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()})),
		"nobody":               sign(t, jose.ES256, first, "first", claims(map[string]any{"sub": ""})),
		"another key":          sign(t, jose.ES256, forged, "first", claims(nil)),
		"public key as secret": sign(t, jose.HS256, public, "first", claims(nil)),
	} {
		t.Run(what, func(t *testing.T) { a.guesses = newGuesses(); a.mustRefuse(t, showing(t, "", token), ErrRefused) })
	}
	a.guesses = newGuesses()
	second := p.rotate(t, "second")
	a.mustBe(t, showing(t, "", sign(t, jose.ES256, second, "second", claims(nil))), "system:serviceaccount:prod:puller", "prod", "pullers")
	p.mu.Lock()
	asks := p.asks
	p.mu.Unlock()
	for range 5 {
		a.mustBe(t, showing(t, "", sign(t, jose.ES256, second, "second", claims(nil))), "system:serviceaccount:prod:puller", "prod", "pullers")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asks != asks {
		t.Errorf("the issuer was asked %d times more for keys that are known", p.asks-asks)
	}
}

// An issuer that is away refuses its tokens and nobody else, and is asked again later.
func TestIssuerThatIsAway(t *testing.T) {
	p := newProvider(t)
	key := p.rotate(t, "k")
	a := open(t, Options{Issuers: []Issuer{{URL: "http://127.0.0.1:1", Audience: "forebay"}, {URL: p.URL, Audience: "forebay"}}})
	token := sign(t, jose.ES256, key, "k", map[string]any{"iss": p.URL, "aud": "forebay", "sub": "x", "exp": time.Now().Add(time.Hour).Unix()})
	a.mustBe(t, showing(t, "", token), "x")
	if a.issuers[0].next.IsZero() {
		t.Error("the issuer that is away is asked at each login")
	}
}
