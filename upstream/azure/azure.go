// Package azure gets the passwords of Azure's registries, *.azurecr.io, each of which lives for three hours.
//
// Who we are the platform says: Workload Identity by a file with a token of Kubernetes (AZURE_FEDERATED_TOKEN_FILE),
// App Service and Container Apps by IDENTITY_ENDPOINT, a virtual machine by its metadata service. AZURE_CLIENT_ID
// chooses among several managed identities. That token is exchanged at the registry for one of its own
// (Azure/acr, "AAD-OAuth", "Calling POST /oauth2/exchange").
package azure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"go.uber.org/zap"

	"forebay/upstream/issue"
)

// Options configures [New]. Registry is required.
type Options struct {
	Registry string   // host name, NAME.azurecr.io
	Proxy    *url.URL // for the registry and for Entra; nil means as the environment says
	Log      *zap.Logger
	Now      func() time.Time // replaces the clock
}

const (
	// userName says that the password is a token of the registry.
	userName = "00000000-0000-0000-0000-000000000000"
	// passwordLife is how long the registry's token lives, which the exchange does not say.
	passwordLife = 3 * time.Hour
	// resource is what the identity's token is for. Registries take it unless their policy wants their own.
	resource = "https://management.azure.com/"
)

// asker asks for the passwords of one registry.
type asker struct {
	opts     Options
	metadata string // base URL of the metadata service
	exchange string // URL at the registry
}

// New returns what hands out the passwords of a registry. Nothing is contacted.
func New(o Options) *issue.Issuer {
	a := &asker{opts: o, metadata: "http://169.254.169.254", exchange: "https://" + o.Registry + "/oauth2/exchange"}
	return issue.New(issue.Options{Registry: o.Registry, Fetch: a.fetch, Log: o.Log, Now: o.Now})
}

func (a *asker) fetch(ctx context.Context) (issue.Password, error) {
	identity, err := a.identity(ctx)
	if err != nil {
		return issue.Password{}, err
	}
	var reply struct {
		Token string `json:"refresh_token"`
	}
	form := url.Values{"grant_type": {"access_token"}, "service": {a.opts.Registry}, "access_token": {identity}}
	if tenant := os.Getenv("AZURE_TENANT_ID"); tenant != "" {
		form.Set("tenant", tenant)
	}
	if err := a.post(ctx, a.exchange, form, &reply); err != nil {
		return issue.Password{}, err
	}
	now := time.Now
	if a.opts.Now != nil {
		now = a.opts.Now
	}
	return issue.Password{User: userName, Secret: reply.Token, Until: now().Add(passwordLife)}, nil
}

// identity returns a token of the identity that the platform gives us.
func (a *asker) identity(ctx context.Context) (string, error) {
	if file := os.Getenv("AZURE_FEDERATED_TOKEN_FILE"); file != "" {
		return a.federated(ctx, file)
	}
	address, version, header, secret := a.metadata+"/metadata/identity/oauth2/token", "2018-02-01", "Metadata", "true"
	if endpoint := os.Getenv("IDENTITY_ENDPOINT"); endpoint != "" {
		address, version, header, secret = endpoint, "2019-08-01", "X-Identity-Header", os.Getenv("IDENTITY_HEADER")
	}
	query := url.Values{"api-version": {version}, "resource": {resource}}
	if client := os.Getenv("AZURE_CLIENT_ID"); client != "" {
		query.Set("client_id", client)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"?"+query.Encode(), nil)
	if err != nil {
		return "", errors.New("IDENTITY_ENDPOINT is no URL")
	}
	req.Header.Set(header, secret)
	var reply token
	if err := issue.Direct(req, &reply); err != nil {
		return "", err
	}
	return reply.value()
}

// federated exchanges the token that Kubernetes puts into a file for one of the identity, at Entra.
func (a *asker) federated(ctx context.Context, file string) (string, error) {
	assertion, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("AZURE_FEDERATED_TOKEN_FILE: %w", err)
	}
	authority := cmp.Or(os.Getenv("AZURE_AUTHORITY_HOST"), "https://login.microsoftonline.com/")
	var reply token
	err = a.post(ctx, strings.TrimSuffix(authority, "/")+"/"+os.Getenv("AZURE_TENANT_ID")+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {os.Getenv("AZURE_CLIENT_ID")}, "scope": {resource + ".default"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {strings.TrimSpace(string(assertion))},
	}, &reply)
	if err != nil {
		return "", err
	}
	return reply.value()
}

// token is the reply of those who vouch for an identity.
type token struct {
	Value string `json:"access_token"`
}

func (t token) value() (string, error) {
	if t.Value == "" {
		return "", errors.New("the platform gives no token")
	}
	return t.Value, nil
}

func (a *asker) post(ctx context.Context, address string, form url.Values, reply any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return errors.New("AZURE_AUTHORITY_HOST is no URL")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	proxy := http.ProxyFromEnvironment
	if a.opts.Proxy != nil {
		proxy = http.ProxyURL(a.opts.Proxy)
	}
	return issue.Ask(req, proxy, reply)
}
