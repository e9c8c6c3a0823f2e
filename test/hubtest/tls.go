package hubtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"sync"
	"time"
)

// authority is an in-memory certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	born time.Time

	mu     sync.Mutex
	issued map[string]*tls.Certificate // by host and fault
}

func newAuthority(now time.Time) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make CA key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "hubtest CA"},
		NotBefore:             now.Add(-48 * time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse CA certificate: %w", err)
	}
	return &authority{cert: cert, key: key, born: now, issued: map[string]*tls.Certificate{}}, nil
}

// issue returns a certificate for host, broken as f says.
func (a *authority) issue(host string, f DialFault) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	id := host + " " + string(f)
	if c := a.issued[id]; c != nil {
		return c, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(a.issued)) + 2),
		Subject:      pkix.Name{CommonName: host},
		NotBefore:    a.born.Add(-48 * time.Hour),
		NotAfter:     a.born.AddDate(5, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if f == TLSExpired {
		template.NotAfter = a.born.Add(-24 * time.Hour)
	}
	if f == TLSWrongName {
		host = "other.example"
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	c := &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key}
	a.issued[id] = c
	return c, nil
}

func (a *authority) serverConfig(s *server) *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			host, _, err := net.SplitHostPort(s.dialAddr())
			if err != nil {
				return nil, err
			}
			return a.issue(host, s.hub.denials.fault(host))
		},
	}
	if s.hub.fixed.ClientCerts && (s.site.role == RoleRegistry || s.site.role == RoleAuth) {
		config.ClientAuth, config.ClientCAs = tls.RequireAndVerifyClientCert, s.hub.RootCAs()
	}
	return config
}

// ClientPair returns a certificate that Options.ClientCerts wants, and its key, as PEM.
func (h *Hub) ClientPair() (cert, key []byte) {
	if h.ca == nil {
		panic("hubtest: ClientPair needs Options.Named or Options.TLS")
	}
	pair, err := h.ca.issue("client.example", DialOK)
	must(err)
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	must(err)
	return pemOf(pair.Certificate[0]), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// RootCAs returns the pool that trusts the hub's certificates. It needs
// Options.Named or Options.TLS.
func (h *Hub) RootCAs() *x509.CertPool {
	if h.ca == nil {
		panic("hubtest: RootCAs needs Options.Named or Options.TLS")
	}
	pool := x509.NewCertPool()
	pool.AddCert(h.ca.cert)
	return pool
}

// CAPEM returns the certificate of the hub's authority, for clients that read a file.
func (h *Hub) CAPEM() []byte {
	if h.ca == nil {
		panic("hubtest: CAPEM needs Options.Named or Options.TLS")
	}
	return pemOf(h.ca.cert.Raw)
}

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
