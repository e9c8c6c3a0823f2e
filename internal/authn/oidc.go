package authn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// Issuer is who signs tokens that are believed here: an OpenID provider, or the API server of a
// Kubernetes cluster, whose tokens of service accounts have the same form.
type Issuer struct {
	URL      string // as in the claim iss; its /.well-known/openid-configuration says where its keys are
	Audience string // that a token must name
	// NameClaim and GroupsClaim are the claims with the name and the groups. Default sub, groups.
	NameClaim, GroupsClaim string
	CAFile                 string // PEM certificates to trust beside the system's
	// BearerFile has a token that is shown to the issuer, as an API server wants one; read each time.
	BearerFile string
}

// Bounds on asking an issuer for its keys.
const (
	issuerTimeout = 5 * time.Second
	issuerRetry   = 15 * time.Second // after it could not be asked
)

// algorithms are those that a token may be signed by: none that is symmetric, whatever it says.
var algorithms = []string{oidc.RS256, oidc.RS384, oidc.RS512, oidc.ES256, oidc.ES384, oidc.ES512, oidc.PS256, oidc.PS384, oidc.PS512, oidc.EdDSA}

// issuer verifies the tokens of one.
type issuer struct {
	Issuer
	client *http.Client

	mu       sync.Mutex
	verifier *oidc.IDTokenVerifier // guarded by mu; nil until the issuer was asked
	next     time.Time             // guarded by mu; it is not asked before
}

func newIssuer(i Issuer) (*issuer, error) {
	if i.NameClaim == "" {
		i.NameClaim = "sub"
	}
	if i.GroupsClaim == "" {
		i.GroupsClaim = "groups"
	}
	// The address is the operator's, and the client has a timeout for all of it.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
	if i.CAFile != "" {
		pem, err := os.ReadFile(i.CAFile)
		if err != nil {
			return nil, err
		}
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%q holds no PEM certificate", i.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return &issuer{Issuer: i, client: &http.Client{Timeout: issuerTimeout, Transport: bearing{transport, i.BearerFile}}}, nil
}

// bearing shows the token in a file.
type bearing struct {
	next http.RoundTripper
	file string // "" for none
}

func (b bearing) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.file != "" {
		token, err := os.ReadFile(b.file)
		if err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	return b.next.RoundTrip(r)
}

// verify returns whose token it is.
func (i *issuer) verify(ctx context.Context, token string) (proof, bool) {
	v := i.ready()
	if v == nil {
		return proof{}, false
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, i.client), issuerTimeout)
	defer cancel()
	parsed, err := v.Verify(ctx, token)
	if err != nil {
		return proof{}, false
	}
	var all map[string]any
	if parsed.Claims(&all) != nil {
		return proof{}, false
	}
	name, _ := all[i.NameClaim].(string)
	if name == "" {
		return proof{}, false
	}
	return proof{id: Identity{Name: name, Groups: groupsOf(all[i.GroupsClaim]), By: ByToken}, until: parsed.Expiry}, true
}

// groupsOf returns the groups of a claim, which is a list or a single one.
func groupsOf(claim any) []string {
	var groups []string
	switch claim := claim.(type) {
	case string:
		groups = []string{claim}
	case []any:
		for _, g := range claim {
			if s, ok := g.(string); ok {
				groups = append(groups, s)
			}
		}
	}
	slices.Sort(groups)
	return groups
}

// ready returns what verifies tokens; nil while the issuer could not be asked for its keys. They
// are asked for again, by the library, when a token names one that is not known.
func (i *issuer) ready() *oidc.IDTokenVerifier {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.verifier != nil || time.Now().Before(i.next) {
		return i.verifier
	}
	// The provider outlives the request: its context is that of the keys, asked for later.
	ctx := oidc.ClientContext(context.Background(), i.client)
	provider, err := oidc.NewProvider(ctx, i.URL)
	if err != nil {
		i.next = time.Now().Add(issuerRetry)
		return nil
	}
	i.verifier = provider.VerifierContext(ctx, &oidc.Config{ClientID: i.Audience, SupportedSigningAlgs: algorithms})
	return i.verifier
}
