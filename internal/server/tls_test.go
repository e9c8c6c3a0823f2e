package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"forebay/internal/reread"
)

// writePair writes a self-signed certificate and its key, and returns the certificate.
func writePair(t *testing.T, certFile, keyFile, name string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(50, 0, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if file == "" {
			continue
		}
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestCertificateIsReloaded(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writePair(t, certFile, keyFile, "first")
	core, logged := observer.New(zapcore.InfoLevel)
	synctest.Test(t, func(t *testing.T) {
		k, err := newKeyPair(certFile, keyFile, zap.New(core))
		if err != nil {
			t.Fatal(err)
		}
		expect := func(step, want string, errorLines int) {
			t.Helper()
			<-time.After(2 * reread.Every)
			for range 3 { // more handshakes change nothing
				pair, err := k.get(nil)
				if err != nil {
					t.Fatalf("%s: %v", step, err)
				}
				if got := pair.Leaf.Subject.CommonName; got != want {
					t.Errorf("%s: certificate %q, want %q", step, got, want)
				}
				<-time.After(2 * reread.Every)
			}
			if n := logged.FilterLevelExact(zapcore.ErrorLevel).Len(); n != errorLines {
				t.Errorf("%s: %d errors logged, want %d", step, n, errorLines)
			}
		}
		expect("at first", "first", 0)
		writePair(t, certFile, "", "second") // its key is not there yet
		expect("a certificate without its key", "first", 1)
		writePair(t, certFile, keyFile, "third")
		expect("both", "third", 1)
		if err := os.Remove(keyFile); err != nil {
			t.Fatal(err)
		}
		expect("the key is gone", "third", 2)
		writePair(t, certFile, keyFile, "fourth")
		expect("both again", "fourth", 2)
	})
	if n := logged.FilterMessage("certificate reloaded").Len(); n != 2 {
		t.Errorf("%d reloads logged, want 2", n)
	}
}

// client trusts cert and nothing else.
func client(cert *x509.Certificate, http2 bool) *http.Client {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(http2)
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: &protocols}}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cert := writePair(t, certFile, keyFile, "mirror")
	const size = 1 << 20
	for _, http2 := range []bool{false, true} {
		s, _ := start(t, Options{Handler: serveFile(bigFile(t, size), nil), TLSCert: certFile, TLSKey: keyFile, HTTP2: http2}, nil)
		c := client(cert, true)
		resp, err := c.Get("https://" + s.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		c.CloseIdleConnections()
		if want := map[bool]int{false: 1, true: 2}[http2]; resp.ProtoMajor != want || n != size || err != nil {
			t.Errorf("HTTP2 %t: HTTP/%d, %d bytes, %v, want HTTP/%d and %d bytes", http2, resp.ProtoMajor, n, err, want, size)
		}
		old := &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11, RootCAs: x509.NewCertPool()}
		if c, err := tls.Dial("tcp", s.Addr().String(), old); err == nil {
			c.Close()
			t.Error("TLS 1.1 was accepted")
		}
	}
}

func TestUnencryptedHTTP2(t *testing.T) {
	for _, on := range []bool{false, true} {
		s, _ := start(t, Options{Handler: http.NotFoundHandler(), HTTP2: on}, nil)
		var protocols http.Protocols
		protocols.SetUnencryptedHTTP2(true)
		c := &http.Client{Transport: &http.Transport{Protocols: &protocols}}
		resp, err := c.Get("http://" + s.Addr().String())
		if (err == nil) != on {
			t.Errorf("HTTP2 %t: %v", on, err)
		}
		if err == nil {
			resp.Body.Close()
			if resp.ProtoMajor != 2 {
				t.Errorf("HTTP/%d, want HTTP/2", resp.ProtoMajor)
			}
		}
		c.CloseIdleConnections()
		// HTTP/1.1 works either way.
		if resp, err := http.Get("http://" + s.Addr().String()); err != nil || resp.Body.Close() != nil || resp.ProtoMajor != 1 {
			t.Errorf("HTTP2 %t: HTTP/1.1: %v", on, err)
		}
		http.DefaultClient.CloseIdleConnections()
	}
}

// A stream that its client does not read is reset, and the others of its connection go on.
func TestStalledStreamIsCutOff(t *testing.T) {
	ended := make(chan error, 2)
	file := serveFile(bigFile(t, 64<<20), ended)
	s, _ := start(t, Options{HTTP2: true, WriteIdle: 200 * time.Millisecond, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/waits" {
			// The handler takes its time between two pieces: no fault of the client.
			fmt.Fprint(w, "a")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-time.After(time.Second):
			case <-r.Context().Done():
			}
			fmt.Fprint(w, "b")
			return
		}
		file.ServeHTTP(w, r)
	})}, nil)
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	c := &http.Client{Transport: &http.Transport{Protocols: &protocols}}
	defer c.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	get := func(path string) *http.Response {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	stalled := get("/")
	defer stalled.Body.Close()
	if err := await(t, "the end of the stalled stream", ended); err == nil {
		t.Error("the stalled answer ended without an error")
	}
	waits := get("/waits")
	defer waits.Body.Close()
	if got, err := io.ReadAll(waits.Body); string(got) != "ab" || err != nil {
		t.Errorf("the other stream: %q, %v, want it whole", got, err)
	}
	if _, err := io.Copy(io.Discard, stalled.Body); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the stalled stream ended with %v, want a reset", err)
	}
}
