//go:build linux

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
)

// withMirror starts a mirror, warms it, and stops it when use is done.
func (b *bench) withMirror(ctx context.Context, o mirrorOptions, use func(m *mirror) error) error {
	m, err := b.startMirror(ctx, o)
	if err != nil {
		return err
	}
	if err = m.warm(ctx); err == nil {
		err = use(m)
	}
	return errors.Join(err, m.stop())
}

// measureBlob compares cached blobs with what a static file server does.
func measureBlob(ctx context.Context, b *bench) (rows []row, err error) {
	d, err := b.freshBlob(pick(b, int64(256*mib), 64*mib))
	if err != nil {
		return nil, err
	}
	err = b.withMirror(ctx, mirrorOptions{}, func(m *mirror) (err error) {
		// It is cached after that, and has its name when it has settled.
		if err := errors.Join(checkBody(ctx, m.url+blobPath(d), d), m.settle(ctx)); err != nil {
			return err
		}
		n, err := startNginx(ctx, b.dir, filepath.Dir(m.file(d)))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, n.stop()) }()
		theirs := download{URL: n.url + "/" + filepath.Base(m.file(d)), Size: d.Size}
		if err := checkBody(ctx, theirs.URL, d); err != nil {
			return err
		}
		for _, connections := range []int{1, 8} {
			more, err := b.compareServers(ctx, connections, m, n, m.get(d), theirs)
			if err != nil {
				return err
			}
			rows = append(rows, more...)
		}
		return nil
	})
	return rows, err
}

// compareServers downloads from both in turns.
func (b *bench) compareServers(ctx context.Context, connections int, m *mirror, n *nginx, ours, theirs download) ([]row, error) {
	repeat := max(pick(b, 16, 8)/connections, 2)
	ours.Repeat, theirs.Repeat = repeat, repeat
	var ourRate, ourCost, theirRate, theirCost sample
	err := b.takeTurns(ctx, fmt.Sprintf("%d connections", connections),
		func(int) error {
			return b.transfer(n.process, slices.Repeat([]download{theirs}, connections), &theirRate, &theirCost)
		},
		func(int) error {
			return b.transfer(m.process, slices.Repeat([]download{ours}, connections), &ourRate, &ourCost)
		})
	name := fmt.Sprintf("cached blob, %s: ", plural(connections, "connection"))
	return []row{
		{name: name + "throughput", form: "%.2f", unit: "GiB/s", ours: ourRate, theirs: theirRate,
			against: "nginx", compare: ratio, target: atLeast(0.95)},
		{name: name + "CPU per GiB", form: "%.3f", unit: "s", ours: ourCost, theirs: theirCost,
			against: "nginx", compare: ratio, target: atMost(1.3)},
	}, err
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// transfer downloads all of list at once from p and adds its throughput in GiB/s and
// processor time in seconds per GiB.
func (b *bench) transfer(p *process, list []download, rate, cost *sample) error {
	var total int64
	for _, d := range list {
		total += d.Size * int64(max(d.Repeat, 1))
	}
	var all []fetched
	cpu, err := p.spent(func() (err error) {
		all, err = b.load.fetch(downloads{List: list})
		return err
	})
	if err != nil {
		return err
	}
	*rate = append(*rate, float64(total)/gib/lastOf(all))
	*cost = append(*cost, cpu/(float64(total)/gib))
	return nil
}

// lastOf returns when the last of all downloads was complete.
func lastOf(all []fetched) float64 {
	return slices.MaxFunc(all, func(a, b fetched) int {
		if a.Last < b.Last {
			return -1
		}
		return 1
	}).Last
}

// checkBody fetches a blob and computes its digest: what gives wrong bytes need not be
// measured.
func checkBody(ctx context.Context, url string, d blob) error {
	response, err := getPage(ctx, url, "")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, response.Body); err != nil {
		return fmt.Errorf("GET %s: %w", url, err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != d.Digest {
		return fmt.Errorf("GET %s: the body has the digest %s", url, got)
	}
	return nil
}

// getPage gets url, whose answer must be 200. The caller closes the body.
func getPage(ctx context.Context, url, accept string) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if accept != "" {
		request.Header.Set("Accept", accept)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DisableCompression: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		_ = response.Body.Close()
		return nil, fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return response, nil
}

// manifestAccept is what containerd sends, and others much the same.
const manifestAccept = "application/vnd.docker.distribution.manifest.v2+json, " +
	"application/vnd.docker.distribution.manifest.list.v2+json, " +
	"application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, */*"

// loadBeside starts a load that leaves the first processor to what it asks, and an image to ask for. Who calls it
// stops the load.
func (b *bench) loadBeside(ctx context.Context) (*load, taggedImage, error) {
	l, err := startLoad(ctx, b.dir, otherCPU)
	if err != nil {
		return nil, taggedImage{}, err
	}
	img, err := b.hub.addImage("warm")
	if err != nil {
		return nil, taggedImage{}, errors.Join(err, l.stop())
	}
	return l, img, nil
}

// measureManifest compares cached manifests with what net/http costs at least. Each
// server has one processor and the load has the others, so that what is compared are the
// servers and not how they share with the load.
func measureManifest(ctx context.Context, b *bench) (rows []row, err error) {
	load, img, err := b.loadBeside(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, load.stop()) }()
	err = b.withMirror(ctx, mirrorOptions{on: firstCPU}, func(logging *mirror) error {
		return b.withMirror(ctx, mirrorOptions{on: firstCPU, noAccessLog: true}, func(silent *mirror) error {
			for _, ref := range []struct{ name, ref string }{{"tag", img.Tag}, {"digest", img.Digest}} {
				path := "/v2/" + repository + "/manifests/" + ref.ref
				more, err := b.compareManifests(ctx, "cached manifest by "+ref.name, path, load, logging, silent)
				if err != nil {
					return err
				}
				rows = append(rows, more...)
			}
			return nil
		})
	})
	return rows, err
}

// rated is the requests per second that one server answered, and their cost in
// microseconds of processor time each.
type rated struct{ rate, cost sample }

func (b *bench) compareManifests(ctx context.Context, name, path string, load *load, logging, silent *mirror) (_ []row, err error) {
	for _, m := range []*mirror{logging, silent} {
		if err := answersOK(m.url + path); err != nil {
			return nil, err
		}
	}
	p, err := recordPage(ctx, silent.url, path)
	if err != nil {
		return nil, err
	}
	server, err := startBare(ctx, b.dir, []page{p})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, server.stop()) }()
	hit := func(p *process, addr string, to *rated) func(int) error {
		h := hammer{Addr: addr, Path: path, Accept: manifestAccept, Connections: 16, Seconds: pick(b, 4.0, 1)}
		return func(int) error { return rate(p, load, h, to) }
	}
	var theirs, quiet, loud rated
	err = b.takeTurns(ctx, name,
		hit(server.process, server.addr, &theirs),
		hit(silent.process, hostOf(silent.url), &quiet),
		hit(logging.process, hostOf(logging.url), &loud))
	if err != nil {
		return nil, err
	}
	rows := make([]row, 0, 4)
	for _, r := range []struct {
		how string
		rated
	}{{", no access log", quiet}, {", access log", loud}} {
		rows = append(rows,
			row{name: name + r.how + ": requests per second", form: "%.0f", unit: "/s", ours: r.rate,
				theirs: theirs.rate, against: "bare", compare: ratio, target: atLeast(0.9)},
			row{name: name + r.how + ": CPU per request", form: "%.1f", unit: "µs", ours: r.cost,
				theirs: theirs.cost, against: "bare", compare: ratio})
	}
	return rows, nil
}

func hostOf(url string) string { return strings.TrimPrefix(url, "http://") }

// rate hammers the server p once.
func rate(p *process, load *load, h hammer, to *rated) error {
	var done hammered
	cpu, err := p.spent(func() (err error) {
		done, err = load.hammer(h)
		return err
	})
	if err != nil {
		return err
	}
	to.rate = append(to.rate, float64(done.Requests)/done.Seconds)
	to.cost = append(to.cost, cpu/float64(done.Requests)*1e6)
	return nil
}

// recordPage returns what a server answers, for another one to answer the same.
func recordPage(ctx context.Context, base, path string) (page, error) {
	response, err := getPage(ctx, base+path, manifestAccept)
	if err != nil {
		return page{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return page{}, fmt.Errorf("GET %s: %w", path, err)
	}
	response.Header.Del("Date") // net/http writes its own
	response.Header.Del("Connection")
	return page{Path: path, Header: response.Header, Body: body}, nil
}

// memoryRows are the lines about the memory of a mirror.
func memoryRows(name string, peaks []memory, target float64) []row {
	var resident, anon sample
	for _, m := range peaks {
		resident = append(resident, float64(m.peak)/mib)
		anon = append(anon, float64(m.anon)/mib)
	}
	return []row{
		{name: name + ": peak of VmHWM", form: "%.0f", unit: "MiB", ours: resident, target: atMost(target)},
		{name: name + ": peak of RssAnon", form: "%.0f", unit: "MiB", ours: anon},
	}
}

// measureMemoryCached watches a mirror that sends one cached blob to many at once.
func measureMemoryCached(ctx context.Context, b *bench) ([]row, error) {
	d, err := b.freshBlob(pick(b, int64(64*mib), 16*mib))
	if err != nil {
		return nil, err
	}
	clients := 500
	name := fmt.Sprintf("%d cached downloads at once", clients)
	var peaks []memory
	err = b.takeTurns(ctx, name, func(int) error {
		return b.withMirror(ctx, mirrorOptions{}, func(m *mirror) error {
			if _, err := b.load.fetchOne(m.get(d)); err != nil {
				return err
			}
			return b.watch(m, downloads{List: slices.Repeat([]download{m.get(d)}, clients), Meet: true}, &peaks)
		})
	})
	return memoryRows(name, peaks, 150), err
}

// watch adds the memory that a mirror takes with downloads.
func (b *bench) watch(m *mirror, d downloads, to *[]memory) error {
	most, err := m.most(func() error {
		_, err := b.load.fetch(d)
		return err
	})
	*to = append(*to, most)
	return err
}

// measureMemoryCold watches a mirror that fetches many blobs at once.
func measureMemoryCold(ctx context.Context, b *bench) ([]row, error) {
	const blobs = 16
	size := pick(b, int64(64*mib), 16*mib)
	name := fmt.Sprintf("%d cold blobs of %d MiB at once", blobs, size/mib)
	var list []blob
	for range blobs {
		d, err := b.freshBlob(size)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	var peaks []memory
	err := b.takeTurns(ctx, name, func(int) error {
		return b.withMirror(ctx, mirrorOptions{}, func(m *mirror) error {
			var all downloads
			for _, d := range list {
				all.List = append(all.List, m.get(d))
			}
			return b.watch(m, all, &peaks)
		})
	})
	return memoryRows(name, peaks, 80), err
}
