package hubtest

import (
	"crypto/tls"
	"net/http"
	"testing"
)

func clientTLS(h *Hub) *tls.Config {
	return &tls.Config{RootCAs: h.RootCAs(), MinVersion: tls.VersionTLS12}
}

func TestClientCertsAreWantedByRegistryAndTokenServerOnly(t *testing.T) {
	hub := New(t, Options{TLS: true, ClientCerts: true})
	p := newProbe(t, hub)
	if a, err := p.try(http.MethodGet, hub.RegistryURL()+"/v2/"); err == nil {
		t.Errorf("ping without a certificate = %d, want no connection", a.status)
	}
	if a, err := p.try(http.MethodGet, hub.URL(RoleAuth)+"/token?service=registry.docker.io"); err == nil {
		t.Errorf("token request without a certificate = %d, want no connection", a.status)
	}
	wantStatus(t, p.do(http.MethodGet, hub.URL(RoleCF)+"/"), 404)
	pair, err := tls.X509KeyPair(hub.ClientPair())
	if err != nil {
		t.Fatal(err)
	}
	p = newProbe(t, hub)
	p.client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{pair}
	wantStatus(t, p.do(http.MethodGet, hub.RegistryURL()+"/v2/"), 401)
}
