package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/crypto/acme"
	"golang.org/x/crypto/acme/autocert"
	"golang.org/x/time/rate"

	"forebay/internal/logkey"
)

// ACME is an authority that certifies a server by itself (RFC 8555). Whoever sets it agrees to its
// terms. It proves the names by TLS-ALPN-01 (RFC 8737), on the port of the server, which must be reached as
// port 443.
type ACME struct {
	Hosts     []string // that are certified
	Directory string   // URL; "" means Let's Encrypt
	CAFile    string   // PEM of those to trust for it beside the system's; may be empty
	Email     string
	Folder    string // of certificates and keys, each for its owner only
}

// askTimeout bounds one request to an authority.
const askTimeout = 30 * time.Second

// newACME returns how certificates are had. They are asked for when they are needed first, and again
// when a third of their time is left; what there is goes on while the authority is away.
func newACME(o ACME) (*autocert.Manager, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: askTimeout / 2, IdleConnTimeout: askTimeout}
	if o.CAFile != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		pem, err := os.ReadFile(o.CAFile)
		if err != nil {
			return nil, err
		}
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%q holds no PEM certificate", o.CAFile)
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	return &autocert.Manager{
		Prompt: autocert.AcceptTOS, Cache: autocert.DirCache(o.Folder), HostPolicy: autocert.HostWhitelist(o.Hosts...), Email: o.Email,
		Client: &acme.Client{DirectoryURL: o.Directory, UserAgent: "forebay", HTTPClient: &http.Client{Transport: transport, Timeout: askTimeout}},
	}, nil
}

// certify makes c show the certificates of m. Clients that say no name get the first.
func (o ACME) certify(c *tls.Config, m *autocert.Manager, log *zap.Logger) {
	c.NextProtos = append(c.NextProtos, acme.ALPNProto)
	told := rate.Sometimes{Interval: time.Minute} // of what autocert keeps to itself
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		if hello.ServerName == "" {
			named := *hello
			named.ServerName = o.Hosts[0]
			hello = &named
		}
		cert, err := m.GetCertificate(hello)
		switch {
		case err != nil && slices.Contains(o.Hosts, hello.ServerName):
			told.Do(func() { log.Error("no certificate can be had", zap.String("host", hello.ServerName), logkey.Err(err)) })
		case err == nil && cert.Leaf != nil && time.Until(cert.Leaf.NotAfter) < cert.Leaf.NotAfter.Sub(cert.Leaf.NotBefore)/6:
			told.Do(func() {
				log.Warn("certificate is not renewed", zap.String("host", hello.ServerName), zap.Time("until", cert.Leaf.NotAfter))
			})
		}
		return cert, err
	}
}
