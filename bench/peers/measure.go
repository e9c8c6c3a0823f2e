//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"forebay/test/hubtest"
)

const repository = "bench/app"

// client asks as containerd does, and reads everything.
type client struct {
	*http.Client
	base string
}

func newClient(base string, connections int) client {
	return client{&http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, DisableCompression: true},
		Timeout:   3 * time.Minute,
	}, base}
}

// answer is what came, and when.
type answer struct {
	status      int
	digest      string // as the header has it
	bytes       int64
	first, last time.Duration // bytes of the body
}

func (c client) get(path string, header ...string) (answer, error) {
	return c.read(path, io.Discard, header...)
}

// read writes the body to another place.
func (c client) read(path string, to io.Writer, header ...string) (answer, error) {
	request, err := http.NewRequest(http.MethodGet, c.base+path, nil)
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Accept", "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json")
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	start := time.Now()
	response, err := c.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	a := answer{status: response.StatusCode, digest: response.Header.Get("Docker-Content-Digest")}
	var one [1]byte
	n, err := io.ReadFull(response.Body, one[:])
	a.first = time.Since(start)
	if err == nil {
		a.bytes, err = io.CopyBuffer(struct{ io.Writer }{to}, io.MultiReader(bytes.NewReader(one[:n]), response.Body), make([]byte, 256<<10))
	}
	a.last = time.Since(start)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return a, err
}

// whole is get for what must come whole.
func (c client) whole(path string, size int64, header ...string) (answer, error) {
	a, err := c.get(path, header...)
	if err == nil && (a.status >= 300 || size >= 0 && a.bytes != size) {
		err = fmt.Errorf("GET %s: status %d and %d bytes, want %d", path, a.status, a.bytes, size)
	}
	return a, err
}

func manifestPath(repo, ref string) string { return "/v2/" + repo + "/manifests/" + ref }
func blobPath(repo, digest string) string  { return "/v2/" + repo + "/blobs/" + digest }

// usual is how long a tag is fresh where nothing else is said.
const usual = time.Minute

// measure takes all figures of one peer with an empty storage. What lasts is taken if first is set.
func measure(ctx context.Context, p peer, dir string, s scale, seed uint64, first bool, to *results) (err error) {
	hub, err := newHub()
	if err != nil {
		return err
	}
	defer hub.Close()
	m := &measurement{peer: p, dir: dir, hub: hub, scale: s, seed: seed << 20, results: to}
	if err := m.start(ctx, usual); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.running.stop()) }()
	steps := []func(context.Context) error{m.coldBlob, m.cachedBlob, m.manifests, m.crowd, m.coldRange, m.images, m.many}
	if first {
		steps = append(steps, m.startsWithMany, m.startsAnew, m.day, m.faults)
	}
	for _, step := range steps {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

type measurement struct {
	peer    peer
	dir     string
	running *running
	hub     *hubtest.Hub
	scale   scale
	seed    uint64
	results *results
	large   *hubtest.Image // that is kept by now
	again   atomic.Int64   // requests that had to be asked again
}

func (m *measurement) start(ctx context.Context, fresh time.Duration) (err error) {
	m.running, err = m.peer.start(ctx, m.dir, m.hub.RegistryURL(), fresh)
	return err
}

func (m *measurement) tell(what string, value float64) { m.results.add(what, m.peer, value) }

// push makes a new image, one of whose layers is the blob that matters. zot has no blobs but those
// of an image that it was asked for, and waits for them there.
func (m *measurement) push(layers int, size int64) *hubtest.Image {
	m.seed++
	return m.hub.PushImage(repository, fmt.Sprint("v", m.seed), hubtest.ImageSpec{Layers: layers, LayerSize: size, Seed: m.seed})
}

func layerOf(img *hubtest.Image) hubtest.Descriptor { return img.Children[0].Layers[0] }

// pull asks for the tag, and then for the layer.
func (m *measurement) pull(c client, img *hubtest.Image) (answer, error) {
	start := time.Now()
	if _, err := c.whole(manifestPath(repository, img.Tag), -1); err != nil {
		return answer{}, err
	}
	before := time.Since(start)
	layer := layerOf(img)
	a, err := c.whole(blobPath(repository, layer.Digest), layer.Size)
	a.first, a.last = a.first+before, a.last+before
	return a, err
}

// pulls is how many requests that a registry counts have come.
func (m *measurement) pulls() int {
	return m.hub.Count(hubtest.Query{Method: http.MethodGet, Route: hubtest.RouteManifest})
}

func (m *measurement) coldBlob(context.Context) error {
	m.large = m.push(1, m.scale.blob)
	before := m.running.cpu()
	a, err := m.pull(newClient(m.running.url, 1), m.large)
	if err != nil {
		return err
	}
	gib := float64(m.scale.blob) / (1 << 30)
	m.tell("cold image of one layer, MiB/s", gib*1024/a.last.Seconds())
	m.tell("cold image of one layer: its first byte, ms", ms(a.first))
	if m.running.cmd != nil {
		m.tell("cold image of one layer: CPU s/GiB", (m.running.cpu()-before)/gib)
	}
	return nil
}

func (m *measurement) cachedBlob(context.Context) error {
	const connections, each = 4, 4
	c, layer := newClient(m.running.url, connections), layerOf(m.large)
	before, start := m.running.cpu(), time.Now()
	if err := together(connections, func(int) error {
		for range each {
			if _, err := c.whole(blobPath(repository, layer.Digest), layer.Size); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	gib := float64(connections*each*layer.Size) / (1 << 30)
	m.tell("cached blob, 4 connections, MiB/s", gib*1024/time.Since(start).Seconds())
	if m.running.cmd != nil {
		m.tell("cached blob, CPU s/GiB", (m.running.cpu()-before)/gib)
	}
	return nil
}

func (m *measurement) manifests(context.Context) error {
	const connections = 8
	c := newClient(m.running.url, connections)
	took := make([][]time.Duration, connections)
	start := time.Now()
	if err := together(connections, func(i int) error {
		for range m.scale.manifest / connections {
			a, err := c.whole(manifestPath(repository, m.large.Tag), -1)
			if err != nil {
				return err
			}
			took[i] = append(took[i], a.last)
		}
		return nil
	}); err != nil {
		return err
	}
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	m.tell("cached tag, requests/s", float64(len(all))/time.Since(start).Seconds())
	m.tell("cached tag, p50, ms", ms(all[len(all)/2]))
	m.tell("cached tag, p99, ms", ms(all[len(all)*99/100]))
	m.tell("cached tag, p99.9, ms", ms(all[len(all)*999/1000]))
	return nil
}

// crowd has many clients ask for one blob at once, over a line of 64 MiB/s.
func (m *measurement) crowd(context.Context) error {
	defer m.line(64 << 20)()
	img := m.push(1, m.scale.blob/4)
	c := newClient(m.running.url, m.scale.crowd)
	start := time.Now()
	if err := together(m.scale.crowd, func(int) error {
		_, err := m.pull(c, img)
		return err
	}); err != nil {
		return err
	}
	layer := layerOf(img)
	m.tell("clients of one cold image: time of the last, s", time.Since(start).Seconds())
	m.tell("clients of one cold image: bytes from the registry, times its size", float64(m.hub.BlobBytes(layer.Digest))/float64(layer.Size))
	return nil
}

// line limits what the registry sends a second, until it is called.
func (m *measurement) line(bytes int64) (free func()) {
	m.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = bytes })
	return func() { m.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 0 }) }
}

// coldRange asks for the end of a blob that is not there, over a line of 64 MiB/s.
func (m *measurement) coldRange(context.Context) error {
	defer m.line(64 << 20)()
	const tail = 64 << 10
	img, start := m.push(1, m.scale.blob), time.Now()
	c, from := newClient(m.running.url, 1), m.scale.blob-2*tail
	if _, err := c.whole(manifestPath(repository, img.Tag), -1); err != nil {
		return err
	}
	a, err := c.get(blobPath(repository, layerOf(img).Digest), "Range", fmt.Sprintf("bytes=%d-%d", from, from+tail-1))
	if err != nil || a.status >= 400 {
		m.results.note("cold range of 64 KiB, ms", m.peer, "fails")
		return nil
	}
	m.tell("cold range of 64 KiB, ms", ms(time.Since(start)))
	return nil
}

// images pulls small images, each its tag, its configuration and its layers.
func (m *measurement) images(context.Context) error {
	var pushed []*hubtest.Image
	for range m.scale.images {
		pushed = append(pushed, m.push(2, 0))
	}
	before, charged := m.hub.Requests(), m.pulls()
	m.again.Store(0)
	start := time.Now()
	if err := m.pullAll(pushed, 8); err != nil {
		return err
	}
	n := float64(len(pushed))
	m.tell("small cold images/s", n/time.Since(start).Seconds())
	m.tell("small cold images: answers of 500 and more, each asked again", float64(m.again.Load()))
	m.tell("small cold image: requests to the registry", float64(m.hub.Requests()-before)/n)
	m.tell("small cold image: of those counted as pulls", float64(m.pulls()-charged)/n)
	return nil
}

// pullAll pulls images whole, so many at a time.
func (m *measurement) pullAll(images []*hubtest.Image, connections int) error {
	c := newClient(m.running.url, connections)
	return together(connections, func(i int) error {
		for n := i; n < len(images); n += connections {
			if err := m.insist(c, manifestPath(repository, images[n].Tag), -1); err != nil {
				return err
			}
			for _, b := range images[n].Blobs() {
				if err := m.insist(c, blobPath(repository, b.Digest), b.Size); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// insist asks for what must come whole as clients do, which ask again after a failure, each time
// later: who makes a connection to the registry for each blob has none for a minute after 28,000 of them.
func (m *measurement) insist(c client, path string, size int64) error {
	for tries := 1; ; tries++ {
		a, err := c.whole(path, size)
		if a.status < 500 || tries == 12 {
			return err
		}
		m.again.Add(1)
		<-time.After(time.Duration(tries-1) * time.Second)
	}
}

// many has 500 clients download a blob that is kept, all at once. It is small enough that they all
// end within seconds, and large enough that none has ended before the last begins.
func (m *measurement) many(context.Context) error {
	if m.running.cmd == nil {
		return nil
	}
	m.tell("most memory until then, MiB", m.running.memory())
	img := m.push(1, 8<<20)
	if err := m.pullAll([]*hubtest.Image{img}, 1); err != nil {
		return err
	}
	if err := m.running.forgetMemory(); err != nil {
		return err
	}
	c, layer := newClient(m.running.url, 500), layerOf(img)
	if err := together(500, func(int) error {
		_, err := c.whole(blobPath(repository, layer.Digest), layer.Size)
		return err
	}); err != nil {
		return err
	}
	m.tell("500 clients of a cached blob: most memory, MiB", m.running.memory())
	return nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// together runs n at once, and returns the first error.
func together(n int, do func(i int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { errs[i] = do(i) })
	}
	all.Wait()
	return errors.Join(errs...)
}
