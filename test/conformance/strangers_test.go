package conformance

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"forebay/internal/allowance"
	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/test/mirrortest"
)

// neighbour is a client with an address of its own, as each node has one.
func neighbour(t *testing.T, n int) *http.Client {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 9, 0, byte(n))}, Timeout: patience}
	tr := &http.Transport{DialContext: d.DialContext, MaxIdleConnsPerHost: 8}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: time.Minute}
}

// fetchFor gets a path, as one that hangs up when ctx ends.
func fetchFor(ctx context.Context, c *http.Client, method, url string, header ...string) (status int, body []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return 0, nil, err
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] != "" {
			r.Header.Set(header[i], header[i+1])
		}
	}
	res, err := c.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	return res.StatusCode, body, err
}

// Six honest clients pull while three do what they can to be in the way, and one registry lies.
// Nobody honest gets a wrong byte or a failure. How long it takes is told, not tested: the
// machine is shared with the three.
func TestHonestClientsAmongHostileNeighbours(t *testing.T) {
	t.Parallel()
	hub, liar := hubtest.New(t, hubtest.Options{}), hubtest.New(t, hubtest.Options{})
	images := make([]*hubtest.Image, 12)
	content := map[string][]byte{}
	for i := range images {
		images[i] = hub.PushImage(fmt.Sprintf("library/app%d", i), "1", hubtest.ImageSpec{LayerSize: 300 << 10, Layers: 2, Seed: uint64(i + 1)})
		content["manifests/"+images[i].Digest] = images[i].Raw
		for _, d := range images[i].Blobs() {
			content["blobs/"+d.Digest] = hub.Bytes(d.Digest)
		}
	}
	wrong := liar.PutVirtualBlob("evil/app", 3, 200<<10)
	liar.AddRule(hubtest.Rule{Role: hubtest.CDN, Method: http.MethodGet, Ref: wrong, Do: hubtest.Corrupt(7)})
	liar.AddRule(hubtest.Rule{Role: hubtest.RoleRegistry, Route: hubtest.RouteManifest, Do: hubtest.Delay(2 * time.Second)})
	open := func() *mirrortest.Mirror {
		mo := calm(mirrortest.Options{Fallback: proxy.FallbackNone, Upstreams: map[string]mirrortest.Upstream{
			"docker.io": {Hub: hub}, "ghcr.io": {Hub: liar},
		}})
		mo.Cache.Limits = allowance.Limits{NewPerMinute: 6000, Fills: 512}
		return mirrortest.New(t, mo)
	}
	// pullAll has the honest ones pull everything, and returns how long requests took.
	pullAll := func(m *mirrortest.Mirror) (took []time.Duration) {
		var mu sync.Mutex
		var all sync.WaitGroup
		for n := range 6 {
			c := neighbour(t, 10+n)
			all.Go(func() {
				for i := range images {
					img := images[(i+n)%len(images)]
					paths := []string{"manifests/1", "manifests/" + img.Digest}
					for _, d := range img.Blobs() {
						paths = append(paths, "blobs/"+d.Digest)
					}
					for _, path := range paths {
						want := content[path]
						if path == "manifests/1" {
							want = img.Raw
						}
						begin := time.Now()
						status, body, err := fetchFor(t.Context(), c, http.MethodGet, m.URL+"/v2/"+img.Repo+"/"+path)
						if err != nil || status != http.StatusOK || !bytes.Equal(body, want) {
							t.Errorf("honest client %d: %s/%s: status %d, %d bytes of %d, %v", n, img.Repo, path, status, len(body), len(want), err)
						}
						mu.Lock()
						took = append(took, time.Since(begin))
						mu.Unlock()
					}
				}
			})
		}
		all.Wait()
		slices.Sort(took)
		return took
	}
	solo := pullAll(open())
	m := open()
	ctx, stop := context.WithCancel(t.Context())
	var hostile sync.WaitGroup
	sent := make([]int, 3)
	for n := range 3 {
		c := neighbour(t, 100+n)
		hostile.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				digest := hubtest.Digest(fmt.Appendf(nil, "%d of %d", i, n))
				short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
				victim := images[i%len(images)]
				for _, one := range []struct{ method, path, name, value string }{
					{http.MethodGet, "/v2/evil/none/blobs/" + digest, "", ""},
					{http.MethodGet, "/v2/evil/none/blobs/" + victim.Blobs()[0].Digest, "", ""},
					{http.MethodGet, "/v2/evil/app/blobs/" + wrong + "?ns=ghcr.io", "", ""},
					{http.MethodGet, "/v2/evil/app/blobs/" + victim.Blobs()[0].Digest + "?ns=ghcr.io", "", ""},
					{http.MethodHead, fmt.Sprintf("/v2/%s/manifests/t%d", victim.Repo, i), "", ""},
					{http.MethodGet, fmt.Sprintf("/v2/evil/app/manifests/t%d?ns=ghcr.io", i), "", ""},
					{http.MethodGet, "/v2/" + victim.Repo + "/blobs/" + victim.Blobs()[0].Digest, "Range", "bytes=99999999-"},
					{http.MethodGet, "/v2/" + victim.Repo + "/tags/list?n=1", "", ""},
					{http.MethodGet, "/v2/_catalog?n=1000", "", ""},
					{http.MethodGet, "/v2/..%2f..%2fetc/manifests/passwd", "", ""},
					{http.MethodGet, "/v2/" + victim.Repo + "/manifests/1", "Forebay-Hops", "a, b, c, d, e, f, g, h"},
				} {
					_, _, _ = fetchFor(short, c, one.method, m.URL+one.path, one.name, one.value)
					sent[n]++
				}
				cancel()
			}
		})
	}
	among := pullAll(m)
	stop()
	hostile.Wait()
	p99 := func(d []time.Duration) time.Duration { return d[len(d)*99/100] }
	t.Logf("p99 of %d honest requests: %s alone, %s beside %v hostile ones", len(solo), p99(solo), p99(among), sent)
	if sent[0] == 0 || sent[1] == 0 || sent[2] == 0 {
		t.Errorf("hostile clients sent %v requests", sent)
	}
}
