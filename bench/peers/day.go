//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"forebay/test/hubtest"
)

// startsWithMany stops what has many blobs, and takes the time until it serves them again.
func (m *measurement) startsWithMany(ctx context.Context) error {
	const layers = 49 // and a configuration
	if m.running.cmd == nil {
		return nil
	}
	var pushed []*hubtest.Image
	for range max(m.scale.kept/(layers+1), 1) {
		pushed = append(pushed, m.push(layers, 1<<10))
	}
	if err := m.pullAll(pushed, 16); err != nil {
		return err
	}
	start := time.Now()
	if err := m.running.stop(); err != nil {
		return err
	}
	stopped := time.Now()
	if err := m.start(ctx, usual); err != nil {
		return err
	}
	layer := layerOf(pushed[0])
	if _, err := newClient(m.running.url, 1).whole(blobPath(repository, layer.Digest), layer.Size); err != nil {
		return err
	}
	m.tell("many blobs: stop, ms", ms(stopped.Sub(start)))
	m.tell("many blobs: start until one is served, ms", ms(time.Since(stopped)))
	return nil
}

// startsAnew starts the peer with an empty folder, and a tag that is fresh for a second.
func (m *measurement) startsAnew(ctx context.Context) error {
	if err := m.running.stop(); err != nil {
		return err
	}
	m.dir = filepath.Join(m.dir, "anew")
	return m.start(ctx, time.Second)
}

// Of the fleet's day: its images, by how many bases, and how often a machine takes the most popular
// of them against the second (Zipf's exponent; what is published of registries lies between 1 and 1.3:
// Anwar et al., FAST 2018).
const (
	apps, bases = 60, 6
	popularity  = 1.1
	movesOfApp  = 4
)

func app(n int) string { return fmt.Sprintf("fleet/app%02d", n) }

// happens is one thing in the day of a fleet.
type happens struct {
	app   int
	moves bool // its tag does; else it is pulled
}

// fleetDay is a day of machines of a CI, each of which starts with nothing: what is pulled, and when tags
// move. The same seed makes the same day.
func fleetDay(seed uint64, pulls int) (all []happens) {
	random := rand.New(rand.NewPCG(seed, 0))
	popular := rand.NewZipf(random, popularity, 1, apps-1)
	for range pulls {
		all = append(all, happens{app: int(popular.Uint64())})
	}
	for n := range apps * movesOfApp {
		all = slices.Insert(all, random.IntN(len(all)), happens{n % apps, true})
	}
	return all
}

// release pushes another version of an image: a base that others have too, a layer of its own, and
// one for the version.
func (m *measurement) release(n, version int) {
	put := func(seed uint64, size int64) hubtest.Descriptor {
		return hubtest.Descriptor{MediaType: hubtest.OCILayer, Size: size, Digest: m.hub.PutVirtualBlob(app(n), seed, size)}
	}
	list := []hubtest.Descriptor{
		put(uint64(1<<40+n%bases), 2<<20), put(uint64(2<<40+n), 1<<20), put(uint64(3<<40+n<<16+version), 256<<10),
	}
	var ids []string
	for _, l := range list {
		ids = append(ids, l.Digest)
	}
	config := mustJSON(map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	m.hub.PutManifest(app(n), "latest", hubtest.OCIManifest, mustJSON(map[string]any{
		"schemaVersion": 2, "mediaType": hubtest.OCIManifest, "layers": list,
		"config": hubtest.Descriptor{MediaType: hubtest.OCIConfig, Size: int64(len(config)), Digest: m.hub.PutBlob(app(n), config)},
	}))
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // of maps and strings
	}
	return b
}

// machine pulls an image as one does that has nothing, and returns the digests of the tag and of the
// configuration.
func (m *measurement) machine(c client, repo string) (digest, config string, err error) {
	var raw bytes.Buffer
	a, err := c.read(manifestPath(repo, "latest"), &raw)
	if err == nil && a.status != http.StatusOK {
		err = fmt.Errorf("%s: status %d", repo, a.status)
	}
	if err != nil {
		return "", "", err
	}
	var manifest struct {
		Config hubtest.Descriptor
		Layers []hubtest.Descriptor
	}
	if err := json.Unmarshal(raw.Bytes(), &manifest); err != nil {
		return "", "", err
	}
	for _, b := range append(manifest.Layers, manifest.Config) {
		if _, err := c.whole(blobPath(repo, b.Digest), b.Size); err != nil {
			return "", "", err
		}
	}
	return a.digest, manifest.Config.Digest, nil
}

// sent is how many bytes of blobs have come from the registry.
func (m *measurement) sent() (all int64) {
	for _, n := range m.hub.Counters().BlobBytes {
		all += n
	}
	return all
}

// day plays the day of a fleet, which lasts some minutes here, so that a second, which is how long a tag is
// fresh where that can be set, is a quarter of an hour of it.
func (m *measurement) day(ctx context.Context) error {
	for n := range apps {
		m.release(n, 0)
	}
	all := fleetDay(1, m.scale.day)
	version, every := make([]int, apps), m.scale.lasts/time.Duration(len(all))
	requests, charged, start := m.hub.Requests(), m.pulls(), time.Now()
	sent := m.sent()
	var old atomic.Int64
	c := newClient(m.running.url, 64)
	type taken struct {
		long time.Duration
		err  error
	}
	ended := make(chan taken, len(all))
	pulls := 0
	for i, h := range all {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(start.Add(time.Duration(i) * every))):
		}
		if h.moves {
			version[h.app]++
			m.release(h.app, version[h.app])
			continue
		}
		pulls++
		go func() {
			begin, now := time.Now(), m.hub.Tag(app(h.app), "latest")
			got, _, err := m.machine(c, app(h.app))
			if err == nil && got != now && got != m.hub.Tag(app(h.app), "latest") {
				old.Add(1)
			}
			ended <- taken{time.Since(begin), err}
		}()
	}
	var took []time.Duration
	failed := 0
	for range pulls {
		t := <-ended
		if t.err != nil {
			failed++
			continue
		}
		took = append(took, t.long)
	}
	slices.Sort(took)
	m.tell("day of a CI fleet: pulls that failed", float64(failed))
	m.tell("day of a CI fleet: requests to the registry", float64(m.hub.Requests()-requests))
	m.tell("day of a CI fleet: of those counted as pulls", float64(m.pulls()-charged))
	m.tell("day of a CI fleet: MiB from the registry", float64(m.sent()-sent)/(1<<20))
	m.tell("day of a CI fleet: pulls of a tag as it was before it moved", float64(old.Load()))
	if len(took) > 0 {
		m.tell("day of a CI fleet: p50 of a pull, ms", ms(took[len(took)/2]))
		m.tell("day of a CI fleet: p99 of a pull, ms", ms(took[len(took)*99/100]))
	}
	return nil
}

// faults tells what a client gets of a tag that is known and not fresh any more, of one that was never
// asked for, and of a blob that is kept, while the registry is slow, is gone, and limits. That comes last: who
// heeds it does not ask for a while.
func (m *measurement) faults(ctx context.Context) error {
	c := newClient(m.running.url, 1)
	_, kept, err := m.machine(c, app(0))
	if err != nil {
		return err
	}
	var undone error
	for _, fault := range []struct {
		name string
		set  func() (undo func())
	}{
		{"registry takes 2 s to answer", func() func() { return m.hub.AddRule(hubtest.Rule{Do: hubtest.Delay(2 * time.Second)}).Remove }},
		{"registry is gone", func() func() {
			m.hub.SwitchOff()
			return func() { undone = m.hub.SwitchOn() }
		}},
		{"registry answers 429", func() func() {
			return m.hub.AddRule(hubtest.Rule{Do: hubtest.Status(http.StatusTooManyRequests)}).Remove
		}},
	} {
		unknown := m.push(1, 0)
		undo := fault.set()
		for _, ask := range []struct{ what, path string }{
			{"known tag", manifestPath(app(0), "latest")},
			{"kept blob", blobPath(app(0), kept)},
			{"unknown tag", manifestPath(repository, unknown.Tag)},
		} {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(1500 * time.Millisecond): // for the tag to be old
			}
			a, err := c.get(ask.path)
			text := fmt.Sprintf("%d in %.0f ms", a.status, ms(a.last))
			if err != nil {
				text = "no answer"
			}
			m.results.note(fault.name+": "+ask.what, m.peer, text)
		}
		if undo(); undone != nil {
			return undone
		}
	}
	return nil
}
