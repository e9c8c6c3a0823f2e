package dial

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"time"
)

const (
	// headersMax bounds the headers of an answer. A signed Location has some 2 KiB.
	headersMax = 128 << 10
	// idleTimeout is below the 60 s after which many registries close.
	idleTimeout = 50 * time.Second
)

// Transport returns connections that d dials: those of one endpoint, its redirect targets
// and its token server. It follows no redirect. The caller closes its idle connections.
func (d *Dialer) Transport() (*http.Transport, error) {
	opts := &d.opts
	config, err := opts.TLS.config()
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		DialContext:            d.DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    opts.Handshake,
		ResponseHeaderTimeout:  opts.FirstByte,
		MaxResponseHeaderBytes: headersMax,
		DisableCompression:     true, // sizes and digests are those of the bytes as stored
		ForceAttemptHTTP2:      true, // which an own DialContext turns off
		MaxIdleConnsPerHost:    opts.IdleConns,
		IdleConnTimeout:        idleTimeout,
		HTTP2: &http.HTTP2Config{ // a dead connection must not look like a slow one
			SendPingTimeout: opts.FirstByte / 2,
			PingTimeout:     opts.FirstByte / 2,
		},
	}
	t.Proxy = func(req *http.Request) (*url.URL, error) { return d.proxyFor(req.URL) }
	return t, nil
}

// TLS says whom to trust and who we are.
type TLS struct {
	RootCAs  *x509.CertPool // whom to trust; nil means the system's authorities
	CAFile   string         // PEM certificates to trust beside RootCAs
	CertFile string         // PEM, our own certificate, with KeyFile
	KeyFile  string         // PEM
}

func (t TLS) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: t.RootCAs}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("certificates to trust: %w", err)
		}
		if config.RootCAs, err = basePool(t.RootCAs); err != nil {
			return nil, fmt.Errorf("certificates to trust: %w", err)
		}
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificates to trust: %q holds no PEM certificate", t.CAFile)
		}
	}
	if t.CertFile == "" && t.KeyFile == "" {
		return config, nil
	}
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("client certificate: %w", err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}

// basePool returns a pool that may be added to.
func basePool(given *x509.CertPool) (*x509.CertPool, error) {
	if given != nil {
		return given.Clone(), nil
	}
	return x509.SystemCertPool()
}
