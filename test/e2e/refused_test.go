package e2e

import (
	"net"
	"slices"
	"strings"
	"testing"

	"forebay/test/hubtest"
)

// What a policy denies is refused in the way that stops each client, as docs/policies.md says in its table: with
// Docker Hub there to be asked, its book shows who went round the mirror, and that what cannot be stopped is not.
func TestDeniedReachesWhoCanBeStopped(t *testing.T) {
	w := newWorld(t, worldOptions{mirror: mirrorOptions{more: "policies: [{name: lists, deny: [\"docker.io/" + plainOCI + "\"]}]\n"}})
	hub := hubtest.New(t, hubtest.Options{Named: true, Backend: w.registry.url, Anonymous: hubtest.Unlimited()})
	w.front.close()
	w.front = openFront(t, hub)
	t.Setenv("SSL_CERT_FILE", writeFile(t, stateDir(t), "ca.pem", string(hub.CAPEM()))) // all of them believe it
	const direct, typed, number, header = "DENIED", "application/vnd.forebay.refused.lists+json", "unsupported schema version 403", `"policy lists: docker.io/` + plainOCI + `:` + catalogueTag + `: it is denied`
	goes := map[string]string{"dockerd": "tag digest", "podman": "digest", "skopeo": "digest", "buildah": "digest"}
	says := map[string][2]string{ // by tag, by digest
		"crane": {direct, direct}, "regctl": {"403", "403"}, "oras": {"denied: policy lists", "denied: policy lists"}, "podman": {number}, "skopeo": {number}, "buildah": {number},
		"containerd-1.6": {header, typed}, "containerd-2.4": {header, typed}, "containerd-2.4-parallel": {header, typed},
	}
	denied := w.images[plainOCI]
	for _, c := range allClients() {
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
				switch blobs := strings.HasPrefix(c.name, "containerd") && how == "digest"; {
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
	for _, c := range clients() {
		pull(t, c.open(t, w.mirror.addr), manyOCI+":"+catalogueTag, w.images[manyOCI])
	}
	w.assertFetchedOnce(t)
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
