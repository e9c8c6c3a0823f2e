package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"go.uber.org/zap"

	"forebay/internal/reread"
)

// keyPair is a certificate and its key in files.
type keyPair struct {
	files *reread.Files[*tls.Certificate]
}

func newKeyPair(certFile, keyFile string, log *zap.Logger) (keyPair, error) {
	files, err := reread.New("certificate", log, func() (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("read TLS certificate %q with key %q: %w", certFile, keyFile, err)
		}
		return &pair, nil
	}, certFile, keyFile)
	return keyPair{files}, err
}

// get serves [tls.Config].
func (k keyPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) { return k.files.Get(), nil }

// clientCAs is the configuration of TLS with those who sign certificates of clients.
type clientCAs struct{ files *reread.Files[*tls.Config] }

func newClientCAs(file string, base *tls.Config, log *zap.Logger) (clientCAs, error) {
	files, err := reread.New("certificate", log, func() (*tls.Config, error) {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read certificates of clients' authorities: %q holds no PEM certificate", file)
		}
		c := base.Clone()
		c.GetConfigForClient, c.ClientCAs, c.ClientAuth = nil, pool, tls.VerifyClientCertIfGiven
		return c, nil
	}, file)
	return clientCAs{files}, err
}

// config serves [tls.Config].
func (c clientCAs) config(*tls.ClientHelloInfo) (*tls.Config, error) { return c.files.Get(), nil }
