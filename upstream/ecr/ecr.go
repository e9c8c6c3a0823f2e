// Package ecr gets the passwords of Amazon's registries, each of which lives for twelve hours.
//
// It promises to ask Amazon once for all who wait, to ask before a password expires, and
// never to ask more than a few times a minute. It finds out who we are as all programs on
// AWS do: environment, shared files, web identity, container or instance role.
//
// Warning: what it hands out is a secret. Its errors hold none.
package ecr

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/smithy-go"
	"go.uber.org/zap"

	"forebay/internal/logkey"
	"forebay/internal/wire"
)

// Options configures an [Issuer]. Registry is required.
type Options struct {
	Registry string   // host name, as [ParseHost] takes it
	Proxy    *url.URL // for requests to ECR; nil means as the environment says
	Log      *zap.Logger
	Now      func() time.Time // replaces the clock
}

const (
	// askTimeout bounds one request for a password, with the retries of the SDK and the
	// search for who we are. Those who wait have 16 s in all.
	askTimeout = 12 * time.Second
	// refreshBefore is how long before its end a password is replaced in the background.
	refreshBefore = time.Hour
	// refreshAgain is the pause after a replacement that failed while the old one lives.
	refreshAgain = time.Minute
	// renewAgain is the least age of a password that is replaced because it was refused. A
	// refusal mostly means that the account may not pull, which no password changes.
	renewAgain = time.Minute
	// askAgain is the pause after an error.
	askAgain = 5 * time.Second
	// lifeUnknown is the life of a password that comes without one.
	lifeUnknown = time.Hour
)

// Issuer hands out the password of one registry. It satisfies auth.Issuer.
type Issuer struct {
	opts Options
	site Site

	stopping context.Context // done after Close: the life of requests, which have no caller
	stop     context.CancelFunc
	work     sync.WaitGroup // requests in progress

	mu      sync.Mutex
	last    password
	running *run      // a request in progress, or nil
	err     error     // of the last request, if it failed
	errAt   time.Time // when
}

// password is what Amazon hands out for a registry.
type password struct {
	user, secret string
	from, until  time.Time
}

// run is a request in progress. Its fields are set before done is closed.
type run struct {
	done     chan struct{}
	password password
	err      error
}

// New returns an issuer. Nothing is contacted.
func New(o Options) (*Issuer, error) {
	site, err := ParseHost(o.Registry)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	i := &Issuer{opts: o, site: site}
	i.stopping, i.stop = context.WithCancel(context.Background())
	return i, nil
}

// Close ends a request in progress and waits for it.
func (i *Issuer) Close() {
	i.stop()
	i.work.Wait()
}

// Issue returns the user name and the password to use now. renew says that those it
// returned last were refused.
func (i *Issuer) Issue(ctx context.Context, renew bool) (user, secret string, err error) {
	i.mu.Lock()
	now := i.opts.Now()
	failed := i.err != nil && now.Sub(i.errAt) < askAgain
	good := i.last.secret != "" && now.Before(i.last.until)
	if good && (!renew || now.Sub(i.last.from) < renewAgain || failed) {
		if now.After(i.last.until.Add(-refreshBefore)) && (i.err == nil || now.Sub(i.errAt) >= refreshAgain) {
			i.begin() // and nobody waits for it
		}
		defer i.mu.Unlock()
		return i.last.user, i.last.secret, nil
	}
	if failed {
		defer i.mu.Unlock()
		return "", "", i.err
	}
	r := i.begin()
	i.mu.Unlock()
	select {
	case <-r.done:
		return r.password.user, r.password.secret, r.err
	case <-ctx.Done():
		return "", "", context.Cause(ctx)
	}
}

// begin joins the request in progress or starts one. i.mu is held.
func (i *Issuer) begin() *run {
	if i.running == nil {
		r := &run{done: make(chan struct{})}
		i.running = r
		i.work.Go(func() { i.ask(r) }) // ends with the request, or with Close
	}
	return i.running
}

// ask makes one request in a context of its own: it belongs to all who wait.
func (i *Issuer) ask(r *run) {
	ctx, cancel := context.WithTimeout(i.stopping, askTimeout)
	defer cancel()
	r.password, r.err = i.fetch(ctx)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.running = nil
	if i.err = r.err; r.err == nil {
		i.last = r.password
		i.opts.Log.Info("registry password issued", logkey.Host(i.opts.Registry), zap.Time("until", r.password.until))
	} else {
		i.errAt = i.opts.Now()
		i.opts.Log.Warn("no registry password", logkey.Host(i.opts.Registry), logkey.Err(r.err))
	}
	close(r.done)
}

// fetch asks Amazon for a password. Who we are is found out anew each time, so that
// files and roles may change.
func (i *Issuer) fetch(ctx context.Context) (password, error) {
	c, err := i.config(ctx)
	if err != nil {
		return password{}, brief(err)
	}
	client := i.client(c.HTTPClient)
	var token *string
	var until *time.Time
	if i.site.Account == "" {
		out, err := ecrpublic.NewFromConfig(c, func(o *ecrpublic.Options) { o.HTTPClient = client }).
			GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
		if err != nil {
			return password{}, brief(err)
		}
		if d := out.AuthorizationData; d != nil {
			token, until = d.AuthorizationToken, d.ExpiresAt
		}
	} else {
		out, err := ecr.NewFromConfig(c, func(o *ecr.Options) { o.HTTPClient = client }).
			GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
		if err != nil {
			return password{}, brief(err)
		}
		if len(out.AuthorizationData) > 0 {
			token, until = out.AuthorizationData[0].AuthorizationToken, out.AuthorizationData[0].ExpiresAt
		}
	}
	p, err := decode(aws.ToString(token))
	if err != nil {
		return password{}, err
	}
	p.from = i.opts.Now()
	if p.until = aws.ToTime(until); !p.until.After(p.from) {
		p.until = p.from.Add(lifeUnknown)
	}
	return p, nil
}

// config finds our credentials, for the registry's region.
func (i *Issuer) config(ctx context.Context) (aws.Config, error) {
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
func (i *Issuer) client(c aws.HTTPClient) aws.HTTPClient {
	if b, ok := c.(*awshttp.BuildableClient); ok && i.opts.Proxy != nil {
		return b.WithTransportOptions(func(t *http.Transport) { t.Proxy = http.ProxyURL(i.opts.Proxy) })
	}
	return c
}

// decode reads what Amazon hands out: base64 of "AWS:" and the password.
func decode(token string) (password, error) {
	text, err := base64.StdEncoding.DecodeString(token)
	user, secret, ok := strings.Cut(string(text), ":")
	if err != nil || !ok || user == "" || secret == "" || strings.ContainsFunc(string(text), notPrintable) {
		return password{}, errors.New("ecr: the answer has no usable password") // and must not be quoted
	}
	return password{user: user, secret: secret}, nil
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

// String names the registry.
func (i *Issuer) String() string { return fmt.Sprintf("passwords of %s", i.opts.Registry) }

// Format writes no secret, for every verb.
func (i *Issuer) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, i.String()) }
