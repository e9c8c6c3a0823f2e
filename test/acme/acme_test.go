// Package acme tests that a listener is certified by an authority: a mirror in a process of its own,
// and a real ACME server, Pebble, beside it. Nothing of it is reachable from elsewhere.
package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	host      = "mirror.example"
	operators = "operators.example" // of the admin listener
	// validity is how long certificates hold, in seconds: long enough for a slow machine, and so short that
	// a renewal can be waited for.
	validity = 60
)

// program is one that runs beside the test.
type program struct {
	cmd *exec.Cmd
	mu  sync.Mutex
	out bytes.Buffer // guarded by mu
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.Write(b)
}

func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// start runs a program, which is killed at the end.
func start(t *testing.T, name string, env []string, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.Command(name, args...)}
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = append(os.Environ(), env...), p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			said := p.said()
			t.Logf("%s said:\n%s", filepath.Base(name), said[max(0, len(said)-8000):])
		}
	})
	return p
}

func (p *program) stop() {
	_ = p.cmd.Process.Kill() // it may have ended
	_ = p.cmd.Wait()         // which tells that it was killed
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !done(); <-time.After(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s does not come about", what)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func must(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// everywhere is a DNS server by which every name means this machine. Pebble asks by TCP (RFC 7766).
func everywhere(t *testing.T) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				_ = answer(conn) // the asker may be gone
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// answer answers one question.
func answer(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	var size uint16
	if err := binary.Read(conn, binary.BigEndian, &size); err != nil {
		return err
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(conn, b); err != nil {
		return err
	}
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		return err
	}
	m.Response = true
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
	}
	b, err := m.Pack()
	if err != nil {
		return err
	}
	_, err = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}

// world is a mirror and an authority.
type world struct {
	dir, forebay, pebble string
	port, admin          int // of the mirror
	mirror, authority    *program
	roots                *x509.CertPool // of the authority
}

func newWorld(t *testing.T) *world {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{dir: t.TempDir(), port: freePort(t), admin: freePort(t), roots: x509.NewCertPool(), pebble: filepath.Join(root, "bin", "pebble")}
	if _, err := os.Stat(w.pebble); err != nil {
		t.Fatal("the ACME server for tests is missing: build it with `make bin/pebble`")
	}
	w.forebay = filepath.Join(w.dir, "forebay")
	must(t, root, "go", "build", "-o", w.forebay, "./cmd/forebay")
	must(t, w.dir, w.forebay, "gen-cert", "127.0.0.1", "--out", w.dir)
	directory, management := freePort(t), freePort(t)
	settings, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprint("127.0.0.1:", directory), "managementListenAddress": fmt.Sprint("127.0.0.1:", management),
		"certificate": filepath.Join(w.dir, "server.pem"), "privateKey": filepath.Join(w.dir, "server-key.pem"),
		"httpPort": freePort(t), "tlsPort": w.port, "keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles": map[string]any{"default": map[string]any{"description": "short", "validityPeriod": validity}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, "pebble.json", string(settings))
	w.authority = start(t, w.pebble, []string{"PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=5"}, "-config", filepath.Join(w.dir, "pebble.json"), "-dnsserver", everywhere(t))
	ca, err := os.ReadFile(filepath.Join(w.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	trust := x509.NewCertPool()
	trust.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: trust}}}
	await(t, "the authority", func() bool {
		response, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/roots/0", management))
		if err != nil {
			return false
		}
		defer response.Body.Close()
		pem, err := io.ReadAll(response.Body)
		w.write(t, "roots.pem", string(pem))
		return err == nil && w.roots.AppendCertsFromPEM(pem)
	})
	w.write(t, "forebay.yaml", fmt.Sprintf(`
listen: 127.0.0.1:%d
admin_listen: 127.0.0.1:%[5]d
log: {format: json}
storage: {dir: %[2]s/store}
offline: true
tls: {acme: {hosts: [%[3]s], directory: "https://127.0.0.1:%[4]d/dir", ca_file: %[2]s/ca.pem, email: operator@example.com}}
admin_tls: {acme: {hosts: [%[6]s], directory: "https://127.0.0.1:%[4]d/dir", ca_file: %[2]s/ca.pem}}
`, w.port, w.dir, host, directory, w.admin, operators))
	w.run(t)
	return w
}

func (w *world) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) run(t *testing.T) {
	t.Helper()
	w.mirror = start(t, w.forebay, nil, "serve", "--config", filepath.Join(w.dir, "forebay.yaml"))
	await(t, "the mirror", func() bool { return strings.Contains(w.mirror.said(), `"msg":"listening"`) })
}

// pull asks the mirror, and returns the certificate that it shows to who asks for that name; "" says none.
func (w *world) pull(ctx context.Context, name string) (*x509.Certificate, error) {
	trust := &tls.Config{RootCAs: w.roots, ServerName: name}
	if name == "" {
		trust.InsecureSkipVerify = true // VerifyConnection is as strict, for a name that was not said
		trust.VerifyConnection = func(s tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				between.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: w.roots, Intermediates: between, DNSName: host})
			return err
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: trust}, Timeout: 30 * time.Second}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://127.0.0.1:%d/v2/", w.port), nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET /v2/ = %s", response.Status)
	}
	return response.TLS.PeerCertificates[0], nil
}

func TestAuthorityCertifiesTheListener(t *testing.T) {
	w := newWorld(t)
	first, err := w.pull(t.Context(), host)
	if err != nil {
		t.Fatalf("the first pull: %v", err)
	}
	if same, err := w.pull(t.Context(), ""); err != nil || !same.Equal(first) {
		t.Errorf("who says no name gets another certificate, or %v", err)
	}
	// The admin listener is certified too, though the authority reaches the other one only.
	if out, err := exec.Command(w.forebay, "status", "--config", filepath.Join(w.dir, "forebay.yaml"), "--ca-file", filepath.Join(w.dir, "roots.pem")).CombinedOutput(); err != nil {
		t.Errorf("a command that asks the admin listener: %v\n%s", err, out)
	}
	if _, err := w.pull(t.Context(), "other.example"); err == nil || strings.Contains(w.authority.said(), "other.example") {
		t.Errorf("for a name that is not among hosts: %v", err)
	}
	err = filepath.WalkDir(filepath.Join(w.dir, "store", "acme"), func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if want := map[bool]fs.FileMode{true: 0o700, false: 0o600}[e.IsDir()]; err == nil && info.Mode().Perm() != want {
			t.Errorf("%s has mode %04o, want %04o", e.Name(), info.Mode().Perm(), want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}

	// It is renewed before its end, and meanwhile every pull is answered by one that holds.
	var second *x509.Certificate
	await(t, "a renewal", func() bool {
		if second, err = w.pull(t.Context(), host); err != nil {
			t.Fatalf("while it is renewed: %v", err)
		}
		return !second.Equal(first)
	})
	if left := time.Until(first.NotAfter); left <= 0 {
		t.Errorf("it is renewed %s after its end", -left)
	}

	// Without the authority the mirror goes on, and starts, by what it has, and says when that will end.
	w.authority.stop()
	w.mirror.stop()
	w.run(t)
	kept, err := w.pull(t.Context(), host)
	if err != nil {
		t.Fatalf("after a restart without the authority: %v", err)
	}
	if kept.Equal(first) {
		t.Error("the certificate that was renewed was not kept")
	}
	await(t, "a warning", func() bool {
		if now, err := w.pull(t.Context(), host); err != nil || !now.Equal(kept) {
			t.Fatalf("without the authority: %v", err)
		}
		return strings.Contains(w.mirror.said(), `"msg":"certificate is not renewed"`)
	})
}
