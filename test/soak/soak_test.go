//go:build linux

// Package soak runs the program for as long as one likes, with clients that pull at random,
// neighbours that misbehave, a registry that fails in ever new ways, and restarts. It checks that
// no body that ended well was wrong, that every image can be had in the end, and that nothing
// grows: memory, goroutines, descriptors, disk.
//
// FOREBAY_SOAK says how long, such as 2h; without it, it is short.
package soak

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"forebay/test/hubtest"
)

const (
	repositories = 6
	tags         = 10
	layerSize    = 1000 << 10 // and less than of what any part is verified before it is believed (docs/adr/0008)
	// maxSize is less than what there is, so that it is evicted all the time. The index, of which
	// nothing is evicted, may take two thirds of it after some hours.
	maxSize = 96 << 20
)

func duration(t *testing.T) time.Duration {
	text := os.Getenv("FOREBAY_SOAK")
	if text == "" {
		return 12 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 5*time.Second {
		t.Fatalf("FOREBAY_SOAK=%q is no duration of at least 5s", text)
	}
	return d
}

// world is the registry's content and what the clients have seen.
type world struct {
	t      *testing.T
	hub    *hubtest.Hub
	m      *mirror
	images []*hubtest.Image
	bytes  map[string][]byte // by digest

	whole, part, failed, hostile atomic.Int64
	sent, answered               atomic.Int64 // since the last start
}

func TestSoak(t *testing.T) {
	length := duration(t)
	w := &world{t: t, hub: hubtest.New(t, hubtest.Options{Anonymous: hubtest.Unlimited()}), bytes: map[string][]byte{}}
	w.fill()
	w.m = newMirror(t, w.hub, maxSize)
	idle := w.m.usage(t)

	// Three stretches, between which it is told to stop, and is killed.
	for stretch := range 3 {
		switch stretch {
		case 1:
			w.m.stop(t)
		case 2:
			w.m.kill(t)
		}
		if stretch > 0 {
			w.m.start(t)
		}
		w.sent.Store(0)
		w.answered.Store(0)
		w.stretch(length / 3)
		t.Logf("after %s: %d bodies whole and right, %d parts, %d refused or cut, %d by hostile neighbours; %s",
			length/3*time.Duration(stretch+1), w.whole.Load(), w.part.Load(), w.failed.Load(), w.hostile.Load(), w.m.usage(t))
	}
	if w.whole.Load() < 20 || w.part.Load() == 0 || w.hostile.Load() == 0 {
		t.Errorf("hardly anything happened")
	}
	w.everythingIsThere()
	// The counters know of every request that was answered, and of none that was not sent.
	if counted := int64(w.m.metric(t, "forebay_requests_total")); counted < w.answered.Load() || counted > w.sent.Load() {
		t.Errorf("the mirror counted %d requests; %d were sent and %d answered", counted, w.sent.Load(), w.answered.Load())
	}
	w.m.assertSettles(t, idle, maxSize)
	w.hub.AssertClean(t)
}

// fill puts images into the registry and remembers their bytes.
func (w *world) fill() {
	for r := range repositories {
		for n := range tags {
			repo := fmt.Sprintf("acme/app%d", r)
			img := w.hub.PushImage(repo, fmt.Sprint("v", n), hubtest.ImageSpec{LayerSize: layerSize + int64(n*1000), Seed: uint64(r*tags + n + 1)})
			w.images = append(w.images, img)
		}
	}
	direct := hubtest.New(w.t, hubtest.Options{Profile: hubtest.Plain, Anonymous: hubtest.Unlimited()})
	for i, img := range w.images {
		copied := direct.PushImage(img.Repo, img.Tag, hubtest.ImageSpec{LayerSize: layerSize + int64(i%tags*1000), Seed: uint64(i + 1)})
		for _, b := range copied.Blobs() {
			response, err := http.Get(direct.RegistryURL() + "/v2/" + img.Repo + "/blobs/" + b.Digest)
			if err != nil {
				w.t.Fatal(err)
			}
			text, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil || hubtest.Digest(text) != b.Digest {
				w.t.Fatalf("blob %s: %v", b.Digest, err)
			}
			w.bytes[b.Digest] = text
		}
	}
	for _, img := range w.images {
		for _, b := range img.Blobs() {
			if w.bytes[b.Digest] == nil {
				w.t.Fatalf("two hubs make different blobs of one seed")
			}
		}
	}
}

// stretch lets all of them loose for a while.
func (w *world) stretch(d time.Duration) {
	ctx, cancel := context.WithTimeout(w.t.Context(), d)
	defer cancel()
	var all sync.WaitGroup
	for i := range 6 {
		all.Go(func() { w.puller(ctx, rand.New(rand.NewPCG(uint64(i), rand.Uint64()))) })
	}
	for range 3 {
		all.Go(func() { w.neighbour(ctx) })
	}
	all.Go(func() { w.trouble(ctx) })
	all.Wait()
}

// faults are what the registry and its CDNs do for a while.
func faults() []hubtest.Rule {
	return []hubtest.Rule{
		{Do: hubtest.Status(http.StatusInternalServerError), Every: 3},
		{Do: hubtest.Status(http.StatusTooManyRequests), Route: hubtest.RouteManifest, Every: 2},
		{Do: hubtest.Drop(1000, hubtest.FIN), Route: hubtest.RouteBlob, Every: 2},
		{Do: hubtest.Drop(200<<10, hubtest.RST), Route: hubtest.RouteBlob, Every: 2},
		{Do: hubtest.Corrupt(100 << 10), Route: hubtest.RouteBlob, Every: 3},
		{Do: hubtest.Corrupt(10), Route: hubtest.RouteManifest, Every: 3},
		{Do: hubtest.Delay(300 * time.Millisecond), Every: 4},
		{Do: hubtest.ShortRange(1000), Route: hubtest.RouteBlob, Every: 3},
		{Do: hubtest.IgnoreRange(), Route: hubtest.RouteBlob, Every: 2},
		{Do: hubtest.NoDigestHeader(), Route: hubtest.RouteManifest},
		{Do: hubtest.ExpireToken(), Every: 5},
		{Do: hubtest.StatusHTML(http.StatusBadGateway), Every: 2},
	}
}

// trouble has the registry fail, in turn with times in which it does not.
func (w *world) trouble(ctx context.Context) {
	for {
		if rand.IntN(8) == 0 {
			w.hub.SwitchOff()
			pause(ctx, 300*time.Millisecond)
			if err := w.hub.SwitchOn(); err != nil {
				w.t.Error(err)
				return
			}
		} else {
			all := faults()
			rule := w.hub.AddRule(all[rand.IntN(len(all))])
			pause(ctx, time.Duration(100+rand.IntN(400))*time.Millisecond)
			rule.Remove()
		}
		if !pause(ctx, time.Duration(rand.IntN(400))*time.Millisecond) {
			return
		}
	}
}

// pause waits, and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// ask sends one request and hands over the answer, if there is one.
func (w *world) ask(ctx context.Context, c *http.Client, method, path, ranged string, read func(*http.Response)) {
	request, err := http.NewRequestWithContext(ctx, method, w.m.url+path, nil)
	if err != nil {
		w.t.Error(err)
		return
	}
	if ranged != "" {
		request.Header.Set("Range", ranged)
	}
	w.sent.Add(1)
	response, err := c.Do(request)
	if err != nil {
		w.failed.Add(1)
		return
	}
	defer response.Body.Close()
	w.answered.Add(1)
	read(response)
}

func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}, Timeout: time.Minute}
}

// puller pulls images, whole and in parts, and compares every byte that came to a good end.
func (w *world) puller(ctx context.Context, r *rand.Rand) {
	c := newClient()
	for ctx.Err() == nil {
		img := w.images[r.IntN(len(w.images))]
		w.ask(ctx, c, http.MethodGet, "/v2/"+img.Repo+"/manifests/"+img.Tag, "", func(a *http.Response) {
			text, err := io.ReadAll(a.Body)
			if a.StatusCode != http.StatusOK || err != nil {
				w.failed.Add(1)
			} else if hubtest.Digest(text) != img.Digest {
				w.t.Errorf("%s:%s: a manifest that is another one", img.Repo, img.Tag)
			}
		})
		for _, b := range img.Blobs() {
			w.blob(ctx, c, r, img.Repo, b.Digest)
		}
		pause(ctx, time.Duration(r.IntN(20))*time.Millisecond) // what is refused is refused at once
	}
}

func (w *world) blob(ctx context.Context, c *http.Client, r *rand.Rand, repo, digest string) {
	want, ranged := w.bytes[digest], ""
	if r.IntN(3) == 0 {
		from := r.IntN(len(want))
		to, until := len(want)-1, "" // how a download goes on that broke off
		if r.IntN(2) == 0 {
			to = from + r.IntN(len(want)-from)
			until = strconv.Itoa(to)
		}
		want, ranged = want[from:to+1], fmt.Sprintf("bytes=%d-%s", from, until)
	}
	w.ask(ctx, c, http.MethodGet, "/v2/"+repo+"/blobs/"+digest, ranged, func(a *http.Response) {
		text, err := io.ReadAll(a.Body)
		switch {
		case err != nil || a.StatusCode >= 300:
			w.failed.Add(1)
		case ranged != "" && a.StatusCode != http.StatusPartialContent:
			w.t.Errorf("%s of %s: status %d", ranged, digest, a.StatusCode)
		case string(text) != string(want):
			w.t.Errorf("%s %s: a body that ended well is wrong: %d bytes, want %d", digest, ranged, len(text), len(want))
		case ranged != "":
			w.part.Add(1)
		default:
			w.whole.Add(1)
		}
	})
}

// neighbour asks for what there is not, leaves in the middle, reads slowly, and writes.
func (w *world) neighbour(ctx context.Context) {
	c := newClient()
	for ctx.Err() == nil {
		img := w.images[rand.IntN(len(w.images))]
		blob := "/v2/" + img.Repo + "/blobs/" + img.Blobs()[0].Digest
		nothing := func(*http.Response) {}
		switch rand.IntN(6) {
		case 0:
			w.ask(ctx, c, http.MethodGet, fmt.Sprintf("/v2/made/up%d/manifests/latest", rand.IntN(1e6)), "", nothing)
		case 1:
			w.ask(ctx, c, http.MethodGet, fmt.Sprintf("/v2/%s/blobs/sha256:%064x", img.Repo, rand.Uint64()), "", nothing)
		case 2: // leaves after some bytes
			w.ask(ctx, c, http.MethodGet, blob, "", func(a *http.Response) { _, _ = io.CopyN(io.Discard, a.Body, 1000) })
		case 3: // reads slowly, and leaves
			w.ask(ctx, c, http.MethodGet, blob, "", func(a *http.Response) {
				for range 3 {
					_, _ = io.CopyN(io.Discard, a.Body, 100)
					pause(ctx, 100*time.Millisecond)
				}
			})
		case 4:
			w.ask(ctx, c, http.MethodPut, blob, "", nothing)
		case 5:
			w.ask(ctx, c, http.MethodGet, blob, "bytes=0-0,5-9,7-"+strings.Repeat("9", 30), nothing)
		}
		w.hostile.Add(1)
		pause(ctx, time.Duration(rand.IntN(50))*time.Millisecond)
	}
}

// everythingIsThere pulls every image once more, now that nothing fails; what was refused a moment
// ago may be remembered for a while. It is some 300 requests to the registry, to which a mirror that it
// refused sends 60 in the first minute, and ever more in the next ones (upstream/governor).
func (w *world) everythingIsThere() {
	c := newClient()
	deadline := time.Now().Add(6 * time.Minute)
	for _, img := range w.images {
		for _, b := range img.Blobs() {
			for right := false; !right; {
				w.ask(w.t.Context(), c, http.MethodGet, "/v2/"+img.Repo+"/manifests/"+img.Tag, "", func(a *http.Response) { _, _ = io.Copy(io.Discard, a.Body) })
				w.ask(w.t.Context(), c, http.MethodGet, "/v2/"+img.Repo+"/blobs/"+b.Digest, "", func(a *http.Response) {
					text, err := io.ReadAll(a.Body)
					right = err == nil && a.StatusCode == http.StatusOK && string(text) == string(w.bytes[b.Digest])
				})
				if !right && time.Now().After(deadline) {
					w.t.Fatalf("%s %s cannot be had, although nothing fails any more", img.Repo, b.Digest)
				}
				if !right {
					pause(w.t.Context(), 100*time.Millisecond)
				}
			}
		}
	}
}
