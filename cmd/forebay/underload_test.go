package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"forebay/test/hubtest"
)

// Certificates, passwords, tokens and rules are replaced while clients pull, and wrong passwords come in:
// no pull fails, and everything new holds in the end.
func TestFilesAreReplacedUnderLoad(t *testing.T) {
	hub := hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()})
	image := hub.PushImage("library/alpine", "1", hubtest.ImageSpec{})
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	// replace is what whoever changes such a file should do: write another, and rename.
	replace := func(name, text string) {
		if err := os.WriteFile(in(name+".new"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(in(name+".new"), in(name)); err != nil {
			t.Fatal(err)
		}
	}
	does := func(args ...string) string {
		t.Helper()
		code, out, stderr := execute(t, nil, args...)
		if code != 0 {
			t.Fatalf("%q = %d %s", args, code, stderr)
		}
		return strings.TrimSpace(out)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := "alice:" + string(hash) + "\n"
	replace("htpasswd", users)
	does("gen-cert", "127.0.0.1", "--out", dir)
	token := does("token", "create", "robot", "--file", in("tokens"))
	yaml := func(rule string) {
		replace("forebay.yaml", fmt.Sprintf(`
storage: {dir: %[1]s/store}
upstreams: {docker.io: {endpoints: [%[2]q]}}
tls: {cert_file: %[1]s/server.pem, key_file: %[1]s/server-key.pem}
authentication: required
auth: {htpasswd_file: %[1]s/htpasswd, tokens_file: %[1]s/tokens}
access: [{who: [%[3]s], what: [docker.io]}, {deny: true}]
`, dir, hub.RegistryURL(), rule))
	}
	yaml("alice, robot")
	s := startFile(t, in("forebay.yaml"))
	base := "https" + strings.TrimPrefix(s.registry, "http")
	ca, err := os.ReadFile(in("ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := func(anew bool) *http.Client {
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: anew, TLSClientConfig: &tls.Config{RootCAs: roots}}}
	}
	ask := func(c *http.Client, path string, as func(*http.Request)) (int, *tls.ConnectionState, error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
		if err != nil {
			return 0, nil, err
		}
		as(r)
		response, err := c.Do(r)
		if err != nil {
			return 0, nil, err
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		return response.StatusCode, response.TLS, err
	}
	password := func(name, secret string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(name, secret) }
	}
	bearer := func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }

	var pulls, failed atomic.Int64
	stop := make(chan struct{})
	var all sync.WaitGroup
	for _, as := range []func(*http.Request){password("alice", "hunter2"), bearer} {
		for _, anew := range []bool{true, false} {
			all.Go(func() {
				c := client(anew)
				defer c.CloseIdleConnections()
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					path := []string{"/v2/library/alpine/manifests/1", "/v2/library/alpine/blobs/" + image.Blobs()[i%2].Digest}[i%2]
					if status, _, err := ask(c, path, as); err != nil || status != http.StatusOK {
						if failed.Add(1) < 5 {
							t.Errorf("GET %s = %d, %v", path, status, err)
						}
					}
					pulls.Add(1)
				}
			})
		}
	}
	all.Go(func() { // who guesses, from the same address
		c := client(false)
		defer c.CloseIdleConnections()
		for {
			select {
			case <-stop:
				return
			default:
			}
			if status, _, err := ask(c, "/v2/", password("alice", "wrong")); err != nil || status != http.StatusUnauthorized && status != http.StatusTooManyRequests {
				t.Errorf("a wrong password = %d, %v", status, err)
			}
			<-time.After(5 * time.Millisecond)
		}
	})
	await := func(what string, done func() bool) {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); !done(); <-time.After(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s does not come about", what)
			}
		}
	}
	said := func(what string) int { return strings.Count(s.stderr.String(), what) }
	var serial string
	for round := range 3 {
		before, passwordsBefore := said(`"msg":"certificate reloaded"`), said(`"msg":"file of credentials reloaded"`)
		for _, name := range []string{"server.pem", "server-key.pem"} {
			if err := os.Remove(in(name)); err != nil { // as one does who does not know better
				t.Fatal(err)
			}
		}
		does("gen-cert", "127.0.0.1", "--out", dir)
		users += fmt.Sprintf("user%d:%s\n", round, hash)
		replace("htpasswd", users)
		does("token", "create", fmt.Sprint("robot", round), "--file", in("tokens"))
		yaml(fmt.Sprintf("user%d, alice, robot", round))
		hangUp(t, s, `"msg":"configuration read again"`)
		pulled := pulls.Load()
		await("the new certificate", func() bool { return said(`"msg":"certificate reloaded"`) > before })
		await("new passwords and tokens", func() bool { return said(`"msg":"file of credentials reloaded"`) >= passwordsBefore+2 })
		await("more pulls", func() bool { return pulls.Load() > pulled+20 })
		_, state, err := ask(client(true), "/v2/", bearer)
		if err != nil {
			t.Fatal(err)
		}
		if now := state.PeerCertificates[0].SerialNumber.String(); now == serial {
			t.Errorf("round %d: the certificate is that from before", round)
		} else {
			serial = now
		}
	}
	close(stop)
	all.Wait()
	if failed.Load() != 0 || pulls.Load() < 60 {
		t.Errorf("%d of %d pulls failed, want none of many", failed.Load(), pulls.Load())
	}
}
