//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
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
	bytes       int64
	first, last time.Duration // bytes of the body
}

func (c client) get(path string, header ...string) (answer, error) {
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
	a := answer{status: response.StatusCode}
	var one [1]byte
	n, err := io.ReadFull(response.Body, one[:])
	a.first = time.Since(start)
	if err == nil {
		a.bytes, err = io.CopyBuffer(io.Discard, struct{ io.Reader }{response.Body}, make([]byte, 256<<10))
	}
	a.bytes += int64(n)
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

func blobPath(digest string) string { return "/v2/" + repository + "/blobs/" + digest }

// measure takes all figures of one peer with an empty storage.
func measure(ctx context.Context, p peer, dir string, s scale, seed uint64, to *results) (err error) {
	hub, err := newHub()
	if err != nil {
		return err
	}
	defer hub.Close()
	hub.PushImage(repository, "latest", hubtest.ImageSpec{})
	r, err := p.start(ctx, dir, hub.RegistryURL())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.stop()) }()
	m := &measurement{peer: p, running: r, hub: hub, scale: s, seed: seed << 20, results: to}
	for _, step := range []func() error{m.coldBlob, m.cachedBlob, m.manifests, m.crowd, m.coldRange, m.images, m.faults} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := step(); err != nil {
			return err
		}
	}
	if r.cmd != nil {
		to.add("most memory, MiB", p, r.memory())
	}
	return nil
}

type measurement struct {
	peer    peer
	running *running
	hub     *hubtest.Hub
	scale   scale
	seed    uint64
	results *results
	large   string // a blob that is kept by now
}

func (m *measurement) tell(what string, value float64) { m.results.add(what, m.peer, value) }

func (m *measurement) freshBlob(size int64) string {
	m.seed++
	return m.hub.PutVirtualBlob(repository, m.seed, size)
}

// pulls is how many requests that a registry counts have come.
func (m *measurement) pulls() int {
	return m.hub.Count(hubtest.Query{Method: http.MethodGet, Route: hubtest.RouteManifest})
}

func (m *measurement) coldBlob() error {
	m.large = m.freshBlob(m.scale.blob)
	c := newClient(m.running.url, 1)
	if _, err := c.whole("/v2/"+repository+"/manifests/latest", -1); err != nil {
		return err
	}
	before := m.running.cpu()
	a, err := c.whole(blobPath(m.large), m.scale.blob)
	if err != nil {
		return err
	}
	gib := float64(m.scale.blob) / (1 << 30)
	m.tell("cold blob, MiB/s", gib*1024/a.last.Seconds())
	m.tell("cold blob, first byte, ms", ms(a.first))
	if m.running.cmd != nil {
		m.tell("cold blob, CPU s/GiB", (m.running.cpu()-before)/gib)
	}
	return nil
}

func (m *measurement) cachedBlob() error {
	const connections, each = 4, 4
	c := newClient(m.running.url, connections)
	before, start := m.running.cpu(), time.Now()
	if err := together(connections, func(int) error {
		for range each {
			if _, err := c.whole(blobPath(m.large), m.scale.blob); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	gib := float64(connections*each*m.scale.blob) / (1 << 30)
	m.tell("cached blob, 4 connections, MiB/s", gib*1024/time.Since(start).Seconds())
	if m.running.cmd != nil {
		m.tell("cached blob, CPU s/GiB", (m.running.cpu()-before)/gib)
	}
	return nil
}

func (m *measurement) manifests() error {
	const connections = 8
	c := newClient(m.running.url, connections)
	took := make([][]time.Duration, connections)
	start := time.Now()
	if err := together(connections, func(i int) error {
		for range m.scale.manifest / connections {
			a, err := c.whole("/v2/"+repository+"/manifests/latest", -1)
			if err != nil {
				return err
			}
			took[i] = append(took[i], a.last)
		}
		return nil
	}); err != nil {
		return err
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	m.tell("cached tag, requests/s", float64(len(all))/time.Since(start).Seconds())
	m.tell("cached tag, p50, ms", ms(all[len(all)/2]))
	m.tell("cached tag, p99, ms", ms(all[len(all)*99/100]))
	m.tell("cached tag, p99.9, ms", ms(all[len(all)*999/1000]))
	return nil
}

// crowd has many clients ask for one blob at once, over a line of 64 MiB/s.
func (m *measurement) crowd() error {
	size := m.scale.blob / 4
	m.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 64 << 20 })
	defer m.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 0 })
	digest := m.freshBlob(size)
	c := newClient(m.running.url, m.scale.crowd)
	start := time.Now()
	if err := together(m.scale.crowd, func(int) error {
		_, err := c.whole(blobPath(digest), size)
		return err
	}); err != nil {
		return err
	}
	m.tell("clients of one cold blob: time of the last, s", time.Since(start).Seconds())
	m.tell("clients of one cold blob: bytes from the registry, times its size", float64(m.hub.BlobBytes(digest))/float64(size))
	return nil
}

// coldRange asks for the end of a blob that is not there, over a line of 64 MiB/s.
func (m *measurement) coldRange() error {
	const tail = 64 << 10
	m.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 64 << 20 })
	defer m.hub.Set(func(o *hubtest.Options) { o.LineBytesPerSecond = 0 })
	digest := m.freshBlob(m.scale.blob)
	from := m.scale.blob - 2*tail
	a, err := newClient(m.running.url, 1).get(blobPath(digest), "Range", fmt.Sprintf("bytes=%d-%d", from, from+tail-1))
	if err != nil || a.status >= 400 {
		m.results.note("cold range of 64 KiB, ms", m.peer, "fails")
		return nil
	}
	m.tell("cold range of 64 KiB, ms", ms(a.last))
	return nil
}

// images pulls small images, each its tag, its configuration and its layers.
func (m *measurement) images() error {
	type pull struct{ paths []string }
	var pulls []pull
	for i := range m.scale.images {
		img := m.hub.PushImage(repository, fmt.Sprint("v", i), hubtest.ImageSpec{Seed: m.seed + uint64(i) + 1})
		one := pull{[]string{fmt.Sprintf("/v2/%s/manifests/v%d", repository, i)}}
		for _, b := range img.Blobs() {
			one.paths = append(one.paths, blobPath(b.Digest))
		}
		pulls = append(pulls, one)
	}
	const connections = 8
	c := newClient(m.running.url, connections)
	before, charged := m.hub.Requests(), m.pulls()
	start := time.Now()
	if err := together(connections, func(i int) error {
		for n := i; n < len(pulls); n += connections {
			for _, path := range pulls[n].paths {
				if _, err := c.whole(path, -1); err != nil {
					return err
				}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	n := float64(len(pulls))
	m.tell("small cold images/s", n/time.Since(start).Seconds())
	m.tell("small cold image: requests to the registry", float64(m.hub.Requests()-before)/n)
	m.tell("small cold image: of those counted as pulls", float64(m.pulls()-charged)/n)
	return nil
}

// faults tells what a client gets of a tag that is known, and of one that is not, when the
// registry limits or is gone.
func (m *measurement) faults() error {
	c := newClient(m.running.url, 1)
	rule := m.hub.AddRule(hubtest.Rule{Do: hubtest.Status(http.StatusTooManyRequests)})
	ask := func(what, path string) {
		a, err := c.get(path)
		text := fmt.Sprintf("%d in %.0f ms", a.status, ms(a.last))
		if err != nil {
			text = "no answer"
		}
		m.results.note(what, m.peer, text)
	}
	ask("registry answers 429: known tag", "/v2/"+repository+"/manifests/latest")
	ask("registry answers 429: unknown tag", "/v2/"+repository+"/manifests/never")
	rule.Remove()
	m.hub.SwitchOff()
	ask("registry is gone: known tag", "/v2/"+repository+"/manifests/latest")
	ask("registry is gone: kept blob", strings.TrimSpace(blobPath(m.large)))
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
