package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	samples "forebay/deploy/config"
	"forebay/test/hubtest"
)

// Each configuration that Forebay comes with starts as it is, but for where it listens, keeps
// and pulls from, and an image comes through it.
func TestEverySampleServes(t *testing.T) {
	entries, err := samples.Files.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	code, listed, stderr := execute(t, nil, "config", "example")
	if code != 0 {
		t.Fatalf("config example: %d: %s", code, stderr)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".yaml")
		if !strings.Contains("\n"+listed, "\n"+name+" ") {
			t.Errorf("config example does not list %s:\n%s", name, listed)
		}
		t.Run(name, func(t *testing.T) { serveSample(t, name) })
	}
	if code, _, _ := execute(t, nil, "config", "example", "nothing"); code != 2 {
		t.Errorf("an example that there is not: %d, want 2", code)
	}
}

func serveSample(t *testing.T, name string) {
	code, text, stderr := execute(t, nil, "config", "example", name)
	if code != 0 {
		t.Fatalf("config example %s: %d: %s", name, code, stderr)
	}
	hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
	hub.AddUser(hubtest.User{Name: "ci-robot", Secrets: []string{"hunter22"}, Plan: hubtest.Unlimited()})
	image := hub.PushImage("library/app", "1", hubtest.ImageSpec{})
	dir := t.TempDir()
	trust := writeSampleFiles(t, dir)
	t.Setenv("FOREBAY_STORAGE_DIR", filepath.Join(dir, "storage"))
	t.Setenv("FOREBAY_UPSTREAMS_DOCKER_IO_ENDPOINTS", hub.RegistryURL())
	t.Setenv("FOREBAY_UPSTREAMS_DOCKER_IO_TRUSTED_REALMS", strings.TrimPrefix(hub.URL(hubtest.RoleAuth), "http://"))
	if strings.Contains(text, "\n  s3:") {
		t.Setenv("FOREBAY_STORAGE_S3_ENDPOINT", emptyBucket(t))
		t.Setenv("FOREBAY_STORAGE_S3_PATH_STYLE", "true")
	}
	scheme := "http"
	if strings.Contains(text, "\ntls:") {
		scheme = "https"
	}
	paths := []string{"/v2/library/app/manifests/1"}
	for _, blob := range image.Blobs() {
		paths = append(paths, "/v2/library/app/blobs/"+blob.Digest)
	}
	file := filepath.Join(dir, "forebay.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	serve := func() {
		t.Helper()
		s := startFile(t, file)
		for _, path := range paths {
			pullThrough(t, scheme+"://"+strings.TrimPrefix(s.registry, "http://")+path, trust)
		}
		if code := s.stop(); code != 0 {
			t.Errorf("serve = %d:\n%s", code, s.stderr)
		}
	}
	if strings.Contains(text, "\noffline: true") {
		t.Setenv("FOREBAY_OFFLINE", "false") // until it has something
		serve()
		t.Setenv("FOREBAY_OFFLINE", "")
		hub.SwitchOff()
	}
	if strings.Contains(text, "\nfleet:") {
		serveReplicas(t, file, dir, paths)
		return
	}
	serve()
}

// serveReplicas starts three mirrors of one configuration, each with a folder of its own, which a real engine
// has fetch each thing once.
func serveReplicas(t *testing.T, file, dir string, paths []string) {
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is missing: install it with `make deps`")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	engine := l.Addr().String()
	_ = l.Close()
	_, port, _ := net.SplitHostPort(engine)
	redis := exec.Command("redis-server", "--bind", "127.0.0.1", "--port", port, "--save", "", "--dir", dir)
	if err := redis.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = redis.Process.Kill()
		_ = redis.Wait() // it was killed
	})
	t.Setenv("FOREBAY_FLEET_ENGINE", "valkey://"+engine)
	t.Setenv("FOREBAY_FLEET_LISTEN", "127.0.0.1:0")
	for i := range 3 {
		t.Setenv("FOREBAY_STORAGE_DIR", filepath.Join(dir, fmt.Sprint("replica", i)))
		s := startFile(t, file)
		for _, path := range paths {
			pullThrough(t, s.registry+path, nil)
		}
	}
}

func pullThrough(t *testing.T, url string, trust *x509.CertPool) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trust}}}
	response, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
		t.Errorf("GET %s = %s, %v", url, response.Status, err)
	}
}

// writeSampleFiles writes the files that the samples name, and returns the authority of the
// certificate.
func writeSampleFiles(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for name, text := range map[string][]byte{
		"hub-token": []byte("hunter22\n"), "fleet-secret": []byte("0123456789abcdef0123456789abcdef\n"), "s3-secret": []byte("hunter22\n"), "registry-password": []byte("hunter22\n"),
		"tls.crt": certificate, "ca.pem": certificate, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(certificate)
	return trust
}

// emptyBucket takes what is put into it, and has nothing.
func emptyBucket(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPut:
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("ETag", `"x"`)
		case r.URL.Query().Has("list-type"):
			_, _ = io.WriteString(w, "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "<Error><Code>NoSuchKey</Code></Error>")
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}
