package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// large is a file that is sent whole.
func large(t *testing.T) (name string, content []byte) {
	t.Helper()
	name, content = filepath.Join(t.TempDir(), "large"), bytes.Repeat([]byte("forebay\n"), 1<<18)
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name, content
}

func sends(t *testing.T, name string) http.Handler {
	t.Helper()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, err := os.Open(name)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		w.Header().Set("From", r.RemoteAddr)
		_, _ = io.Copy(w, f)
	})
}

func TestUnixSocket(t *testing.T) {
	name, content := large(t)
	folder, err := os.MkdirTemp("", "s") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	path := filepath.Join(folder, "s")
	// What a killed process left is in nobody's way.
	left, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	left.(*net.UnixListener).SetUnlinkOnClose(false)
	left.Close()

	start(t, Options{Addr: "unix:" + path, Handler: sends(t, name)}, nil)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != socketMode {
		t.Errorf("the socket has mode %v (%v), want %o", info.Mode(), err, socketMode)
	}
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
	defer c.CloseIdleConnections()
	res, err := c.Get("http://mirror/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(content))
	}
	// One that is used is not taken away.
	second, err := New(Options{Addr: "unix:" + path, Handler: sends(t, name)})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Listen(); err == nil || !strings.Contains(err.Error(), "another process listens there") {
		t.Errorf("Listen = %v on a socket in use", err)
	}
}

func TestSocketOfSystemd(t *testing.T) {
	s, err := New(Options{Addr: "systemd:registry", Handler: http.NotFoundHandler()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(); err == nil || !strings.Contains(err.Error(), "FileDescriptorName=registry") {
		t.Errorf("Listen = %v without systemd", err)
	}
}

// A proxy of the list says whom it connects for; from elsewhere such a line is a fault, and a proxy
// that says nothing is not served.
func TestProxyProtocol(t *testing.T) {
	name, content := large(t)
	s, _ := start(t, Options{Handler: sends(t, name), Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}, nil)
	ask := func(from, line string) (string, []byte, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
		c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := d.DialContext(ctx, "tcp", s.Addr().String())
			if err == nil {
				_, err = io.WriteString(conn, line)
			}
			return conn, err
		}}, Timeout: patience}
		res, err := c.Get("http://mirror/")
		if err != nil {
			return "", nil, err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return "", nil, fmt.Errorf("status %d", res.StatusCode)
		}
		got, err := io.ReadAll(res.Body)
		return res.Header.Get("From"), got, err
	}
	const line = "PROXY TCP4 192.0.2.7 10.0.0.1 4711 5000\r\n"
	if from, got, err := ask("127.0.0.2", line); err != nil || from != "192.0.2.7:4711" || !bytes.Equal(got, content) {
		t.Errorf("through the proxy: from %s, %d bytes, %v", from, len(got), err)
	}
	if _, _, err := ask("127.0.0.2", ""); err == nil {
		t.Error("a proxy that says nothing is served")
	}
	if _, _, err := ask("127.0.0.3", line); err == nil {
		t.Error("anybody says who it is")
	}
	if from, _, err := ask("127.0.0.3", ""); err != nil || !strings.HasPrefix(from, "127.0.0.3:") {
		t.Errorf("without a proxy: from %s, %v", from, err)
	}
}

// authority signs certificates of clients.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, file string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) client(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// A client may show a certificate of the authority, or none; that of another is refused, and the
// authority may change while the server runs.
func TestCertificatesOfClients(t *testing.T) {
	cas := filepath.Join(t.TempDir(), "cas.pem")
	first := newAuthority(t, cas)
	whose := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.VerifiedChains) > 0 {
			name = r.TLS.VerifiedChains[0][0].Subject.CommonName
		}
		fmt.Fprint(w, name, " by ", r.Proto)
	})
	folder := t.TempDir()
	cert, key := filepath.Join(folder, "cert"), filepath.Join(folder, "key")
	writePair(t, cert, key, "mirror")
	for _, http2 := range []bool{false, true} {
		s, _ := start(t, Options{Handler: whose, TLSCert: cert, TLSKey: key, ClientCAs: cas, HTTP2: http2}, nil)
		ask := func(shown ...tls.Certificate) (string, error) {
			c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: shown}, ForceAttemptHTTP2: http2, DisableKeepAlives: true}, Timeout: patience}
			res, err := c.Get("https://" + s.Addr().String())
			if err != nil {
				return "", err
			}
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			return string(text), err
		}
		proto := " by HTTP/1.1"
		if http2 {
			proto = " by HTTP/2.0"
		}
		if got, err := ask(first.client(t, "node-7")); err != nil || got != "node-7"+proto {
			t.Errorf("a client with a certificate is %q, %v", got, err)
		}
		if got, err := ask(); err != nil || got != "nobody"+proto {
			t.Errorf("a client without one is %q, %v", got, err)
		}
		before := first
		second := newAuthority(t, cas)
		deadline := time.Now().Add(patience)
		for {
			got, err := ask(second.client(t, "node-8"))
			if err == nil && got == "node-8"+proto {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("under the new authority a client is %q, %v", got, err)
			}
		}
		if got, err := ask(before.client(t, "node-7")); err == nil {
			t.Errorf("a certificate of nobody's makes a client %q", got)
		}
		first = second
	}
}
