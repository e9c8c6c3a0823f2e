package e2e

import (
	"cmp"
	"net"
	"slices"
	"strings"
	"testing"

	"forebay/test/hubtest"
)

// What a policy denies is refused in the way that stops each client, as docs/policies.md says in its table: with
// Docker Hub there to be asked, its book shows who went round the mirror, and that what cannot be stopped is not.
func TestDeniedReachesWhoCanBeStopped(t *testing.T) { testDenied(t, allClients(), clients()) }

// What those say that resolve by the code of containerd, by tag and by digest: the digest that is none, and the
// type that they do not know.
const (
	refusedHeader = `"policy lists: docker.io/` + plainOCI + `:` + catalogueTag + `: it is denied`
	refusedType   = "application/vnd.forebay.refused.lists+json"
)

// testDenied has clients refused an image, and others get another one.
func testDenied(t *testing.T, refused, others []client) {
	w := newWorld(t, worldOptions{mirror: mirrorOptions{more: "policies: [{name: lists, deny: [\"docker.io/" + plainOCI + "\"]}]\n"}})
	hub := hubtest.New(t, hubtest.Options{Named: true, Backend: w.registry.url, Anonymous: hubtest.Unlimited()})
	w.front.close()
	w.front = openFront(t, hub)
	t.Setenv("SSL_CERT_FILE", writeFile(t, stateDir(t), "ca.pem", string(hub.CAPEM()))) // all of them believe it
	const direct, number = "DENIED", "unsupported schema version 403"
	goes := map[string]string{"dockerd": "tag digest", "podman": "digest", "skopeo": "digest", "buildah": "digest"}
	says := map[string][2]string{ // by tag, by digest
		"crane": {direct, direct}, "regctl": {"403", "403"}, "oras": {"denied: policy lists", "denied: policy lists"}, "podman": {number}, "skopeo": {number}, "buildah": {number},
	}
	denied := w.images[plainOCI]
	for _, c := range refused {
		if says[c.name] == [2]string{} {
			says[c.name] = [2]string{refusedHeader, refusedType}
		}
		for i, name := range []string{plainOCI + ":" + catalogueTag, plainOCI + "@" + denied.digest.String()} {
			how := [2]string{"tag", "digest"}[i]
			t.Run(c.name+" by "+how, func(t *testing.T) {
				tap := openTap(t, w.mirror)
				s := c.open(t, tap.addr)
				before := hub.Count(hubtest.Query{Route: hubtest.RouteManifest})
				err := tryPull(t.Context(), s, name, denied.digest.String())
				for _, e := range tap.take() {
					t.Logf("%s %s = %d %s", e.method, e.path, e.status, e.response.Get("Content-Type"))
				}
				hub.Settle(t)
				went, sent := len(w.front.settled(t)) > 0, hub.Count(hubtest.Query{Route: hubtest.RouteManifest}) > before
				switch blobs := says[c.name][1] == refusedType && how == "digest"; {
				case strings.Contains(goes[c.name], how):
					if err != nil || !went || !sent {
						t.Errorf("it pulled with %v, went to Docker Hub: %t, which gave it manifests: %t; docs/policies.md says that it cannot be stopped", err, went, sent)
					}
				case err == nil || sent || went && !blobs: // it looks for what is no image as a blob, which that digest is not
					t.Errorf("it pulled with %v, went to Docker Hub: %t, which gave it manifests: %t; want it stopped", err, went, sent)
				case !strings.Contains(err.Error(), says[c.name][i]):
					t.Errorf("it says %v, want %q in it", err, says[c.name][i])
				}
			})
		}
	}
	if n := w.hub.ManifestGets(denied.digest.String()); n != 0 {
		t.Errorf("the mirror fetched what is denied %d times, want never", n)
	}
	// The others are not in the way of that.
	for _, c := range others {
		pull(t, c.open(t, w.mirror.addr), manyOCI+":"+catalogueTag, w.images[manyOCI])
	}
	w.assertFetchedOnce(t)
}

// With "fallback: none" and no way to Docker Hub nobody gets what is held back. Whoever has another way tries that,
// which its own firewall has to close, and most show the rule.
func TestHeldWithoutFallback(t *testing.T) { testHeld(t, allClients()) }

func testHeld(t *testing.T, all []client) {
	w := newWorld(t, worldOptions{mirror: mirrorOptions{more: "fallback: none\npolicies: [{name: held, match: [\"docker.io/" + plainOCI + "\"], age: 7d, first_sight: hold}]\n"}})
	direct := map[string]bool{"crane": true, "regctl": true, "oras": true}
	says := map[string]string{"dockerd": "registry-1.docker.io", "containerd-1.6": "403 Forbidden"}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			s := c.open(t, w.mirror.addr)
			w.front.settled(t)
			err := tryPull(t.Context(), s, plainOCI+":"+catalogueTag, w.images[plainOCI].digest.String())
			if err == nil {
				t.Fatal("it pulled what is held back")
			}
			if want := cmp.Or(says[c.name], "policy held: docker.io/"+plainOCI); !strings.Contains(err.Error(), want) {
				t.Errorf("it says %v, want %q in it", err, want)
			}
			if went := len(w.front.settled(t)) > 0; went == direct[c.name] {
				t.Errorf("it tried Docker Hub: %t; docs/policies.md says otherwise", went)
			}
			pull(t, s, manyOCI+":"+catalogueTag, w.images[manyOCI])
		})
	}
	if n := w.hub.ManifestGets(w.images[plainOCI].digest.String()); n != 0 {
		t.Errorf("the mirror fetched what is held back %d times, want never", n)
	}
}

// settled is take, of all who dialled until now: whoever has a client's answer knows nothing of when its connections
// are accepted.
func (f *front) settled(t *testing.T) (calls []call) {
	t.Helper()
	for _, l := range f.listeners {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		own := c.LocalAddr().String()
		err = eventually(stopWithin, func() error {
			f.mu.Lock()
			defer f.mu.Unlock()
			i := slices.IndexFunc(f.calls, func(one call) bool { return one.from == own })
			if i < 0 {
				return net.ErrClosed
			}
			f.calls = slices.Delete(f.calls, i, i+1)
			return nil
		})
		c.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return f.take()
}
