package conformance

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"forebay/cache"
	"forebay/cache/store"
	"forebay/cache/upkeep"
	"forebay/proxy"
	"forebay/test/hubtest"
	"forebay/upstream"
)

// bubble is a mirror without sockets in front of a hub without sockets, so that both can
// live in a synctest bubble, where hours take no time. It is real from the handler down.
type bubble struct {
	t        *testing.T
	hub      *hubtest.Hub
	registry *upstream.Registry
	cache    *cache.Cache
	keeper   *upkeep.Keeper
	handler  http.Handler
}

// bubbleOptions says what differs from the defaults of the configuration, but for TagTTL.
type bubbleOptions struct {
	hub      hubtest.Options
	registry func(*hubtest.Hub, *upstream.Options)
	fetch    cache.UpstreamOptions
}

func newBubble(t *testing.T, o bubbleOptions) *bubble {
	t.Helper()
	o.hub.InMemory = true
	b := &bubble{t: t, hub: hubtest.New(t, o.hub)}
	host := strings.TrimPrefix(b.hub.URL(hubtest.RoleAuth), "http://")
	ro := upstream.Options{
		Name: "docker.io", Endpoints: []upstream.Endpoint{{URL: b.hub.RegistryURL()}},
		Dial: b.hub.DialContext, TrustedRealms: []string{host}, Reserve: 0.2,
	}
	if o.registry != nil {
		o.registry(b.hub, &ro)
	}
	var err error
	if b.registry, err = upstream.New(ro); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.registry.Close)
	o.fetch.Upstream = b.registry
	if o.fetch.TagTTL == 0 {
		o.fetch.TagTTL = time.Minute
	}
	if b.cache, err = cache.Open(cache.Options{Store: store.Options{Dir: t.TempDir()}, Upstreams: map[string]cache.UpstreamOptions{"docker.io": o.fetch}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = b.cache.Run(ctx) }) // ends with ctx, whose error it is
	t.Cleanup(func() {
		cancel()
		running.Wait()
		if err := b.cache.Close(); err != nil {
			t.Error(err)
		}
	})
	b.keeper = upkeep.New(b.cache, upkeep.Options{})
	if b.handler, err = proxy.New(proxy.Options{Cache: b.cache, Upstreams: map[string][]string{"docker.io": nil}}); err != nil {
		t.Fatal(err)
	}
	return b
}

// ask sends a request as a client of mirrors, of the given address.
func (b *bubble) ask(method, client, path string) *answer {
	b.t.Helper()
	return b.askAs(agentContainerd, method, client, path)
}

func (b *bubble) askAs(agent, method, client, path string) *answer {
	b.t.Helper()
	r := httptest.NewRequest(method, path, nil)
	r.RemoteAddr = client + ":40000"
	r.Header.Set("User-Agent", agent)
	w := httptest.NewRecorder()
	start := time.Now()
	b.handler.ServeHTTP(w, r)
	res := w.Result()
	a := &answer{request: method + " " + path, Status: res.StatusCode, Header: res.Header, Length: -1, Took: time.Since(start)}
	a.Body, a.Err = io.ReadAll(res.Body)
	if n, err := strconv.ParseInt(res.Header.Get("Content-Length"), 10, 64); err == nil {
		a.Length = n
	}
	a.assertSane(b.t, method, false)
	return a
}

func (b *bubble) get(path string) *answer { return b.ask(http.MethodGet, "10.0.0.1", path) }

// pull pulls one platform of an image as containerd does, and reports the first answer
// that was no success, or nil.
func (b *bubble) pull(client string, img *hubtest.Image, platform int) *answer {
	b.t.Helper()
	base := "/v2/" + img.Repo + "/"
	head := b.ask(http.MethodHead, client, base+"manifests/"+img.Tag+"?ns=docker.io")
	if head.Status != http.StatusOK {
		return head
	}
	digest := head.Header.Get("Docker-Content-Digest")
	a := b.ask(http.MethodGet, client, base+"manifests/"+digest+"?ns=docker.io")
	if a.Status != http.StatusOK || digest != img.Digest {
		return failed(a)
	}
	child := img.Children[platform]
	paths := []string{"blobs/" + child.Config.Digest}
	if img.Index {
		paths = append([]string{"manifests/" + child.Digest}, paths...)
	}
	for _, l := range child.Layers {
		paths = append(paths, "blobs/"+l.Digest)
	}
	for _, path := range paths {
		a := b.ask(http.MethodGet, client, base+path+"?ns=docker.io")
		if a.Status != http.StatusOK {
			return a
		}
		_, digest, _ := strings.Cut(path, "/")
		if string(a.Body) != string(b.hub.Bytes(digest)) {
			b.t.Errorf("%s: %d bytes that differ from the original", a.request, len(a.Body))
		}
	}
	return nil
}

func failed(a *answer) *answer {
	if a.Status == http.StatusOK {
		return nil
	}
	return a
}

// cost is what something cost the registry.
type cost struct {
	requests, heads, gets, charged int
	bytes                          int64
}

func (b *bubble) spent() cost {
	c := b.hub.Counters()
	var s cost
	for key, n := range c.Requests {
		s.requests += n
		if key.Role != hubtest.RoleRegistry || key.Status != http.StatusOK || key.Route != hubtest.RouteManifestTag && key.Route != hubtest.RouteManifestDigest {
			continue
		}
		switch key.Method {
		case http.MethodHead:
			s.heads += n
		case http.MethodGet:
			s.gets += n
		}
	}
	for _, n := range c.BlobBytes {
		s.bytes += n
	}
	s.charged = b.hub.ChargedTotal()
	return s
}

func (c cost) minus(d cost) cost {
	return cost{c.requests - d.requests, c.heads - d.heads, c.gets - d.gets, c.charged - d.charged, c.bytes - d.bytes}
}
