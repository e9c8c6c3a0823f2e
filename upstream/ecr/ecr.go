// Package ecr gets the passwords of Amazon's registries, each of which lives for twelve hours.
//
// It finds out who we are as all programs on AWS do: environment, shared files, web identity,
// container or instance role.
//
// Warning: what it hands out is a secret. Its errors hold none.
package ecr

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/smithy-go"
	"go.uber.org/zap"

	"forebay/internal/wire"
	"forebay/upstream/issue"
)

// Options configures [New]. Registry is required.
type Options struct {
	Registry string   // host name, as [ParseHost] takes it
	Proxy    *url.URL // for requests to ECR; nil means as the environment says
	Log      *zap.Logger
	Now      func() time.Time // replaces the clock
}

// asker asks for the passwords of one registry.
type asker struct {
	opts Options
	site Site
}

// New returns what hands out the passwords of a registry. Nothing is contacted.
func New(o Options) (*issue.Issuer, error) {
	site, err := ParseHost(o.Registry)
	if err != nil {
		return nil, err
	}
	a := &asker{opts: o, site: site}
	return issue.New(issue.Options{Registry: o.Registry, Fetch: a.fetch, Log: o.Log, Now: o.Now}), nil
}

// fetch asks Amazon for a password. Who we are is found out anew each time, so that
// files and roles may change.
func (i *asker) fetch(ctx context.Context) (issue.Password, error) {
	c, err := i.config(ctx)
	if err != nil {
		return issue.Password{}, brief(err)
	}
	client := i.client(c.HTTPClient)
	var token *string
	var until *time.Time
	if i.site.Account == "" {
		out, err := ecrpublic.NewFromConfig(c, func(o *ecrpublic.Options) { o.HTTPClient = client }).
			GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
		if err != nil {
			return issue.Password{}, brief(err)
		}
		if d := out.AuthorizationData; d != nil {
			token, until = d.AuthorizationToken, d.ExpiresAt
		}
	} else {
		out, err := ecr.NewFromConfig(c, func(o *ecr.Options) { o.HTTPClient = client }).
			GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
		if err != nil {
			return issue.Password{}, brief(err)
		}
		if len(out.AuthorizationData) > 0 {
			token, until = out.AuthorizationData[0].AuthorizationToken, out.AuthorizationData[0].ExpiresAt
		}
	}
	p, err := decode(aws.ToString(token))
	if err != nil {
		return issue.Password{}, err
	}
	p.Until = aws.ToTime(until)
	return p, nil
}

// config finds our credentials, for the registry's region.
func (i *asker) config(ctx context.Context) (aws.Config, error) {
	options := []func(*config.LoadOptions) error{
		config.WithRegion(i.site.Region),
		// It is used twice a day: no connection is worth keeping.
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.DisableKeepAlives = true })),
	}
	if i.site.FIPS {
		options = append(options, config.WithUseFIPSEndpoint(aws.FIPSEndpointStateEnabled))
	}
	if i.site.DualStack {
		options = append(options, config.WithUseDualStackEndpoint(aws.DualStackEndpointStateEnabled))
	}
	return config.LoadDefaultConfig(ctx, options...)
}

// client returns one that goes through the proxy, if there is one. The metadata
// services, which tell who we are, are never reached through it.
func (i *asker) client(c aws.HTTPClient) aws.HTTPClient {
	if b, ok := c.(*awshttp.BuildableClient); ok && i.opts.Proxy != nil {
		return b.WithTransportOptions(func(t *http.Transport) { t.Proxy = http.ProxyURL(i.opts.Proxy) })
	}
	return c
}

// decode reads what Amazon hands out: base64 of "AWS:" and the password.
func decode(token string) (issue.Password, error) {
	text, err := base64.StdEncoding.DecodeString(token)
	user, secret, ok := strings.Cut(string(text), ":")
	if err != nil || !ok || user == "" || secret == "" || strings.ContainsFunc(string(text), notPrintable) {
		return issue.Password{}, errors.New("ecr: the answer has no usable password") // and must not be quoted
	}
	return issue.Password{User: user, Secret: secret}, nil
}

func notPrintable(r rune) bool { return r < ' ' || r > '~' }

// textMax bounds the text of a foreign error.
const textMax = 300

// brief returns err in a line: what the service said, else what the SDK says, which
// repeats itself at length.
func brief(err error) error {
	text := err.Error()
	var said smithy.APIError
	if errors.As(err, &said) {
		text = said.ErrorCode() + ": " + said.ErrorMessage()
	}
	text = strings.Join(strings.Fields(text), " ")
	return &quietError{text: "ecr: get authorization token: " + wire.Clip(text, textMax), cause: err}
}

// quietError is a foreign error in fewer words. It can be tested with errors.Is but not
// unwrapped.
type quietError struct {
	text  string
	cause error
}

func (e *quietError) Error() string        { return e.text }
func (e *quietError) Is(target error) bool { return errors.Is(e.cause, target) }
