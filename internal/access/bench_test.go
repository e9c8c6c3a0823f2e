package access

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"forebay/internal/authn"
	"forebay/internal/wire"
)

// BenchmarkAdmit is what it costs beside a request to know who sends it and what it may have, once the
// credential has been proved.
func BenchmarkAdmit(b *testing.B) {
	dir := b.TempDir()
	hash, err := bcrypt.GenerateFromPassword([]byte("hunter2"), bcrypt.MinCost)
	if err != nil {
		b.Fatal(err)
	}
	secret, line, err := authn.NewToken("robot", nil, time.Time{})
	if err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{"htpasswd": "alice:" + string(hash), "tokens": line.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	auth, err := authn.New(authn.Options{HtpasswdFile: filepath.Join(dir, "htpasswd"), TokensFile: filepath.Join(dir, "tokens")})
	if err != nil {
		b.Fatal(err)
	}
	rules, err := NewRules([]Rule{{Who: []string{"known"}, What: []string{"*"}}, {Who: []string{"anyone"}, What: []string{"*"}, Deny: true}}, func(string) bool { return false })
	if err != nil {
		b.Fatal(err)
	}
	door := &Door{Auth: auth, Mode: Required, Rules: rules}
	for name, show := range map[string]func(*http.Request){
		"password": func(r *http.Request) { r.SetBasicAuth("alice", "hunter2") },
		"token":    func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+secret) },
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, "/v2/library/alpine/manifests/1", nil)
			show(r)
			b.ReportAllocs()
			for b.Loop() {
				to := &wire.Route{Resource: wire.Manifests, Upstream: wire.Hub, Repository: "library/alpine"}
				guest, err := door.Admit(r, to)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := guest.May(b.Context(), to); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
