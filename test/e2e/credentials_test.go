package e2e

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

const (
	hubUser     = "hubuser"
	hubPassword = "hub-pass-41c7"
)

// T01 of docs/clients.md, moby#42022: dockerd gives its Docker Hub password to any mirror that
// challenges it. T20: what a client sends is neither used nor logged nor sent on.
func TestClientCredentialsStayWithClient(t *testing.T) {
	for _, c := range []client{
		{name: "dockerd", open: func(t testing.TB, addr string) store {
			d := startDocker(t, addr, nil)
			writeFile(t, d.config, "config.json", dockerLogin("https://index.docker.io/v1/"))
			return d
		}},
		{name: "containerd-1.6", open: func(t testing.TB, addr string) store {
			s := openContainerd16(t, addr).(*containerdStore)
			s.user = hubUser + ":" + hubPassword
			return s
		}},
		{name: "containerd-2.4", open: func(t testing.TB, addr string) store {
			s := openContainerd24(t, addr).(*containerdStore)
			s.user = hubUser + ":" + hubPassword
			return s
		}},
		{name: "podman", open: func(t testing.TB, addr string) store {
			p := openPodman(t, addr).(*podmanStore)
			writeFile(t, p.dir, "auth.json", dockerLogin("docker.io", addr))
			return p
		}},
		{name: "skopeo", open: func(t testing.TB, addr string) store {
			s := openSkopeo(t, addr).(*skopeoStore)
			writeFile(t, s.dir, "containers/auth.json", dockerLogin("docker.io", addr))
			return s
		}},
		{name: "crane", open: func(t testing.TB, addr string) store {
			s := openCrane(t, addr).(*craneStore)
			writeFile(t, s.dir, "config.json", dockerLogin(addr))
			return s
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, worldOptions{})
			tap := openTap(t, w.mirror)
			s := c.open(t, tap.addr)
			pull(t, s, plainDocker+":"+catalogueTag, w.images[plainDocker])
			missing := tryPull(t.Context(), s, "library/missing:1.0", "")
			if missing == nil {
				t.Error("pulled an image that does not exist")
			}
			said := tap.take()
			if len(said) == 0 {
				t.Fatal("the client did not come through the tap")
			}
			for _, e := range said {
				if e.status == 401 || e.response.Get("WWW-Authenticate") != "" {
					t.Errorf("%s %s = %d with challenge %q, want none", e.method, e.path, e.status, e.response.Get("WWW-Authenticate"))
				}
			}
			assertNoSecret(t, "the mirror's log", w.mirror.log(t))
			assertNoSecret(t, "what the hub saw", w.hub.Ledger())
			for role := range w.hub.Counters().TokensIssued {
				if strings.HasPrefix(role, hubUser) {
					t.Errorf("the mirror used the client's account for %q", role)
				}
			}
			w.hub.AssertClean(t)
		})
	}
}

func dockerLogin(servers ...string) string {
	var auths []string
	for _, s := range servers {
		auths = append(auths, fmt.Sprintf("%q: {\"auth\": %q}", s, basicAuth()))
	}
	return `{"auths": {` + strings.Join(auths, ", ") + `}}`
}

func basicAuth() string {
	return base64.StdEncoding.EncodeToString([]byte(hubUser + ":" + hubPassword))
}

func assertNoSecret(t *testing.T, where, text string) {
	t.Helper()
	for _, secret := range []string{hubPassword, basicAuth()} {
		if strings.Contains(text, secret) {
			t.Errorf("%s has a client's password", where)
		}
	}
}
