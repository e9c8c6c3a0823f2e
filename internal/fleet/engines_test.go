package fleet

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program starts a redis-server, or one as a sentinel, and waits until it listens.
func program(t *testing.T, port string, args ...string) *exec.Cmd {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Fatal("redis-server is missing: install it with `make deps`")
	}
	cmd := exec.Command("redis-server", args...)
	cmd.Dir = t.TempDir()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // unless the test did
		_ = cmd.Wait()
	})
	await(t, "redis-server to listen", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return cmd
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// Behind sentinels the engine is whom they say, and after a failover another. Every question is answered
// meanwhile. Sentinels with the engine's password and without one are in use.
func TestEngineBehindSentinels(t *testing.T) {
	for name, auth := range map[string]string{"with a password": "requirepass hunter2\nsentinel sentinel-pass hunter2\n", "without one": ""} {
		t.Run(name, func(t *testing.T) {
			first, second, watch := freePort(t), freePort(t), freePort(t)
			common := []string{"--bind", "127.0.0.1", "--save", "", "--requirepass", "hunter2", "--masterauth", "hunter2"}
			leader := program(t, first, append(common, "--port", first)...)
			program(t, second, append(common, "--port", second, "--replicaof", "127.0.0.1 "+first)...)
			file := filepath.Join(t.TempDir(), "sentinel.conf")
			text := fmt.Sprintf("bind 127.0.0.1\nport %s\n%ssentinel monitor forebay 127.0.0.1 %s 1\nsentinel auth-pass forebay hunter2\nsentinel down-after-milliseconds forebay 500\nsentinel failover-timeout forebay 5000\n", watch, auth, first)
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			program(t, watch, file, "--sentinel")
			s := &server{t: t}
			f, err := New(Options{Engine: "sentinel://127.0.0.1:" + watch + "/forebay", Password: "hunter2", Secret: []byte("x"), Identity: func(string) string { return "same" }})
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			f.engine.most = callLoaded
			s.reach(f)
			r := newRegistry("a")
			confirm(t, f, time.Now(), time.Minute, r)
			if n := f.Figures().Asked; n != 1 {
				t.Fatalf("%d asked for all, want 1", n)
			}
			await(t, "the sentinel to know who could take over", func() bool { return strings.Contains(replicas(t, watch, auth), "master-link-status\r\n$2\r\nok") })
			if err := leader.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			await(t, "the other one to be the engine", func() bool {
				confirm(t, f, time.Now(), time.Minute, r) // answered all the while
				return f.Figures().Asked > 1 && f.Figures().Since.IsZero()
			})
		})
	}
}

// replicas is what a sentinel says of those that could take over. It asks the leader for them every ten seconds.
func replicas(t *testing.T, port, auth string) string {
	t.Helper()
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := "SENTINEL REPLICAS forebay\r\n"
	if auth != "" {
		ask = "AUTH hunter2\r\n" + ask
	}
	if _, err := io.WriteString(conn, ask); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	said, _ := io.ReadAll(conn) // until then: it does not close
	return string(said)
}

// An engine by TLS is believed by the certificates of the system, and no other is.
func TestEngineByTLS(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	paper := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	cert, err := x509.CreateCertificate(rand.Reader, paper, paper, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "EC PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program(t, port, "--bind", "127.0.0.1", "--port", "0", "--tls-port", port, "--tls-cert-file", certFile, "--tls-key-file", keyFile, "--tls-auth-clients", "no", "--save", "", "--requirepass", "hunter2")
	o := Options{Engine: "valkeys://127.0.0.1:" + port, Password: "hunter2", Secret: []byte("x"), Identity: func(string) string { return "same" }}
	stranger, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	await(t, "the certificate to be refused", func() bool {
		confirm(t, stranger, time.Now(), time.Minute, newRegistry("a"))
		return stranger.Figures().Err != nil
	})
	o.Engine = "valkey://127.0.0.1:" + port
	plain, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	await(t, "who speaks no TLS to be told why he hears nothing", func() bool {
		confirm(t, plain, time.Now(), time.Minute, newRegistry("a"))
		err := plain.Figures().Err
		return err != nil && strings.Contains(err.Error(), "wants TLS")
	})
	o.Engine = "valkeys://127.0.0.1:" + port
	f, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	roots := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(parsed)
	f.engine.options.TLSConfig.RootCAs = roots // as if the system had it
	f.engine.most = callLoaded
	(&server{t: t}).reach(f)
	confirm(t, f, time.Now(), time.Minute, newRegistry("a"))
	if n := f.Figures().Asked; n != 1 {
		t.Errorf("%d asked for all, want 1", n)
	}
}
