// Package s3 keeps blobs as objects of a bucket: Amazon S3, or a server that speaks its API.
//
// It promises that an object is whole, since a put and the end of an upload in parts are
// atomic, and that an object that exists is not written again. It does not promise that an
// object has its digest: its reader must check that.
//
// An object is called PREFIX/blobs/ALGORITHM/xx/HEX, xx being the first two of HEX.
//
// Warning: the SDK holds keys, and [Bucket.Presign] returns a URL that is as good as one.
// Neither is in an error or a log line.
package s3

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"

	"forebay/cache/tier"
	"forebay/internal/wire"
)

// Options configures a [Bucket]. Name is required.
type Options struct {
	Name      string
	Region    string // "" is what the environment says, else us-east-1 with an Endpoint
	Endpoint  string // base URL of a server other than Amazon's
	Prefix    string // of all names, without slashes at its ends
	PathStyle bool   // the bucket is in the path of the URL and not in the host

	// AccessKeyID and SecretAccessKey are the credentials. Without them they are found as
	// by all programs on AWS: environment, shared files, web identity, container or instance role.
	AccessKeyID     string
	SecretAccessKey string
	Profile         string // section of the shared files

	Encryption   string // "AES256", "aws:kms", or "" for what the bucket does by itself
	KMSKeyID     string // for aws:kms; "" is the account's own
	StorageClass string // "" is STANDARD
	Owner        string // account that must own the bucket; "" is not checked

	CAFile    string // PEM certificates to trust beside the system's
	PartSize  int64  // of uploads in parts, and the size above which they are made; 0 means 32 MiB
	UserAgent string
	Timeouts  Timeouts
	Log       *zap.Logger
	Names     Names
}

// Names are what settings are called where they are made, for errors that say what to
// change. Empty ones are called as in [Options].
type Names struct {
	Bucket, Region, Endpoint, StorageClass, Owner string
	AccessKeyID, SecretAccessKey                  string
	Credentials                                   string // both keys
}

func (n *Names) setDefaults() {
	for _, one := range []struct {
		of   *string
		want string
	}{
		{&n.Bucket, "Name"}, {&n.Region, "Region"}, {&n.Endpoint, "Endpoint"}, {&n.StorageClass, "StorageClass"}, {&n.Owner, "Owner"},
		{&n.AccessKeyID, "AccessKeyID"}, {&n.SecretAccessKey, "SecretAccessKey"}, {&n.Credentials, "AccessKeyID and SecretAccessKey"},
	} {
		*one.of = cmp.Or(*one.of, one.want)
	}
}

// Timeouts bound requests. Zero values mean the defaults.
type Timeouts struct {
	Connect time.Duration // 5 s, TLS included
	Answer  time.Duration // until the head of an answer to what is small: 10 s
	Stall   time.Duration // without a byte in either direction: 30 s
	Backoff time.Duration // longest pause before a request is repeated: 2 s
}

// The SDK takes these as the least part and the most parts of an upload.
const (
	partDefault = 32 << 20
	partLeast   = 5 << 20
	partsMost   = 10000
	// copyMost is the largest object that can be copied in one request.
	copyMost = 5 << 30
)

// Bucket is a bucket. Its methods may be called concurrently.
type Bucket struct {
	opts      Options
	prefix    string // of the names of objects, with a slash at its end
	client    *s3.Client
	transport *http.Transport
	calls     calls
	log       *zap.Logger

	// unconditional: the server does not know conditional writes.
	unconditional atomic.Bool
	// copyStale: the server does not make an object younger by CopyObject.
	copyStale atomic.Bool
	copyMost  int64
}

var _ tier.Bucket = (*Bucket)(nil)

// New returns the bucket of o. It makes no request to the bucket; [Bucket.Check] does.
func New(ctx context.Context, o Options) (*Bucket, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.PartSize == 0 {
		o.PartSize = partDefault
	}
	if o.PartSize < partLeast {
		return nil, fmt.Errorf("parts of %d bytes: S3 wants at least %d", o.PartSize, partLeast)
	}
	o.Timeouts.setDefaults()
	o.Names.setDefaults()
	b := &Bucket{opts: o, log: o.Log, prefix: "blobs/", calls: newCalls(), copyMost: copyMost}
	if p := strings.Trim(o.Prefix, "/"); p != "" {
		b.prefix = p + "/blobs/"
	}
	cfg, err := b.settings(ctx)
	if err != nil {
		return nil, err
	}
	b.client = s3.NewFromConfig(cfg, func(c *s3.Options) {
		c.UsePathStyle = o.PathStyle
		if o.Endpoint != "" {
			c.BaseEndpoint = aws.String(o.Endpoint)
		}
		// Checksums are sent only where they are needed, since some servers refuse them.
		c.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		c.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	})
	return b, nil
}

func (t *Timeouts) setDefaults() {
	for _, d := range []struct {
		of   *time.Duration
		want time.Duration
	}{{&t.Connect, 5 * time.Second}, {&t.Answer, 10 * time.Second}, {&t.Stall, 30 * time.Second}, {&t.Backoff, 2 * time.Second}} {
		if *d.of <= 0 {
			*d.of = d.want
		}
	}
}

// settings finds region and credentials.
func (b *Bucket) settings(ctx context.Context) (aws.Config, error) {
	o := b.opts
	trust, err := o.trust()
	if err != nil {
		return aws.Config{}, err
	}
	load := []func(*config.LoadOptions) error{
		// The SDK adds what AWS_CA_BUNDLE says, for which it wants a client of its own.
		config.WithHTTPClient(awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { o.adjust(t, trust) })),
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(r *retry.StandardOptions) {
				r.MaxAttempts, r.MaxBackoff = 3, o.Timeouts.Backoff
			})
		}),
		config.WithAppID(o.UserAgent),
	}
	if o.Region != "" {
		load = append(load, config.WithRegion(o.Region))
	}
	if o.Profile != "" {
		load = append(load, config.WithSharedConfigProfile(o.Profile))
	}
	if o.AccessKeyID != "" {
		load = append(load, config.WithCredentialsProvider(credentials.NewStaticCredentialsProvider(o.AccessKeyID, o.SecretAccessKey, "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return cfg, fmt.Errorf("settings of AWS: %w", err)
	}
	client, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if !ok {
		panic(fmt.Sprintf("s3: the SDK made another client: %T", cfg.HTTPClient))
	}
	b.transport = client.GetTransport()
	cfg.HTTPClient = &http.Client{
		Transport: &counting{next: b.transport, calls: &b.calls},
		// A redirect means another region, which is a fault of the settings.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if cfg.Region == "" && o.Endpoint != "" {
		cfg.Region = "us-east-1" // what servers other than Amazon's call themselves
	}
	if cfg.Region == "" {
		return cfg, fmt.Errorf("no region: set %s or AWS_REGION", o.Names.Region)
	}
	return cfg, nil
}

// Close closes idle connections.
func (b *Bucket) Close() { b.transport.CloseIdleConnections() }

// trust returns the certificates to trust, nil for the system's.
func (o Options) trust() (*x509.CertPool, error) {
	if o.CAFile == "" {
		return nil, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	pem, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%q has no certificate in PEM form", o.CAFile)
	}
	return pool, nil
}

// adjust gives the SDK's connections our timeouts.
func (o Options) adjust(t *http.Transport, trust *x509.CertPool) {
	dialer := &net.Dialer{Timeout: o.Timeouts.Connect, KeepAlive: 30 * time.Second}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: c, stall: o.Timeouts.Stall}, nil
	}
	t.TLSHandshakeTimeout = o.Timeouts.Connect
	t.MaxIdleConns, t.MaxIdleConnsPerHost = 128, 64
	t.IdleConnTimeout = 30 * time.Second
	t.ForceAttemptHTTP2 = false
	t.DisableCompression = true // blobs as they are
	t.WriteBufferSize, t.ReadBufferSize = 64<<10, 64<<10
	if trust != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}
	}
}

// conn closes a connection on which no byte moves for a while. Progress in one direction
// counts for both, since an answer waits for the end of its request.
type conn struct {
	net.Conn
	stall time.Duration
}

func (c *conn) Read(b []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

// key returns the name of an object. The digest is checked, since it may come from a client.
func (b *Bucket) key(d v1.Hash) (string, error) {
	if _, err := wire.ParseDigest(d.String()); err != nil {
		return "", err
	}
	return b.prefix + d.Algorithm + "/" + d.Hex[:2] + "/" + d.Hex, nil
}

// digest returns the digest in the name of an object.
func (b *Bucket) digest(key string) (v1.Hash, bool) {
	rest, ok := strings.CutPrefix(key, b.prefix)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 3 || len(parts[2]) < 2 || parts[2][:2] != parts[1] {
		return v1.Hash{}, false
	}
	d, err := wire.ParseDigest(parts[0] + ":" + parts[2])
	return d, err == nil
}

// bucket, owner, class, encryption and kmsKey are what requests say besides.
func (b *Bucket) bucket() *string           { return &b.opts.Name }
func (b *Bucket) owner() *string            { return optional(b.opts.Owner) }
func (b *Bucket) class() types.StorageClass { return types.StorageClass(b.opts.StorageClass) }
func (b *Bucket) kmsKey() *string           { return optional(b.opts.KMSKeyID) }
func (b *Bucket) crypt() types.ServerSideEncryption {
	return types.ServerSideEncryption(b.opts.Encryption)
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
