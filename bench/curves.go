//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// measureCurves takes what a cached manifest costs against how many ask for it at once, and what a start, its
// memory and a cached manifest cost against how many upstreams there are. What the number of blobs and tags costs
// is measured by TestAMillionBlobs of test/disktest.
func measureCurves(ctx context.Context, b *bench) (rows []row, err error) {
	load, img, err := b.loadBeside(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, load.stop()) }()
	ask := func(m *mirror, clients int) hammer {
		return hammer{Addr: hostOf(m.url), Path: "/v2/" + repository + "/manifests/" + img.Tag, Accept: manifestAccept,
			Connections: clients, Seconds: pick(b, 4.0, 1)}
	}
	byClients, err := b.costByClients(ctx, load, ask)
	if err != nil {
		return nil, err
	}
	byUpstreams, err := b.costByUpstreams(ctx, load, ask)
	return append(byClients, byUpstreams...), err
}

func (b *bench) costByClients(ctx context.Context, load *load, ask func(*mirror, int) hammer) (rows []row, err error) {
	counts := []int{1, 4, 16, 64, 256, 1024}
	got, most := make([]rated, len(counts)), make([]sample, len(counts))
	err = b.withMirror(ctx, mirrorOptions{on: firstCPU, noAccessLog: true}, func(m *mirror) error {
		turns := make([]func(int) error, len(counts))
		for i, n := range counts {
			turns[i] = func(int) error {
				used, err := m.most(func() error { return rate(m.process, load, ask(m, n), &got[i]) })
				most[i] = append(most[i], float64(used.anon)/mib)
				return err
			}
		}
		return b.takeTurns(ctx, "clients", turns...)
	})
	for i, n := range counts {
		name := fmt.Sprintf("cached manifest, %s at once: ", plural(n, "client"))
		rows = append(rows,
			row{name: name + "requests per second", form: "%.0f", unit: "/s", ours: got[i].rate},
			row{name: name + "CPU per request", form: "%.1f", unit: "µs", ours: got[i].cost, theirs: got[0].cost, against: "1 client", compare: ratio},
			row{name: name + "most RssAnon", form: "%.0f", unit: "MiB", ours: most[i]})
	}
	return rows, err
}

func (b *bench) costByUpstreams(ctx context.Context, load *load, ask func(*mirror, int) hammer) (rows []row, err error) {
	counts := []int{1, 10, 100, 1000}
	got, starts, memory := make([]rated, len(counts)), make([]sample, len(counts)), make([]sample, len(counts))
	turns := make([]func(int) error, len(counts))
	for i, n := range counts {
		var more strings.Builder
		for k := range n - 1 {
			fmt.Fprintf(&more, "  registry-%d.example: {}\n", k) // that nobody asks for
		}
		turns[i] = func(int) error {
			begin := time.Now()
			return b.withMirror(ctx, mirrorOptions{on: firstCPU, noAccessLog: true, more: more.String()}, func(m *mirror) error {
				starts[i] = append(starts[i], m.answered.Sub(begin).Seconds()*1000)
				used, err := memoryOf(m.pid())
				if err != nil {
					return err
				}
				memory[i] = append(memory[i], float64(used.anon)/mib)
				return rate(m.process, load, ask(m, 16), &got[i])
			})
		}
	}
	err = b.takeTurns(ctx, "upstreams", turns...)
	for i, n := range counts {
		name := plural(n, "upstream") + ": "
		rows = append(rows,
			row{name: name + "start until it answers", form: "%.0f", unit: "ms", ours: starts[i], theirs: starts[0], against: "1 upstream", compare: ratio},
			row{name: name + "RssAnon after it", form: "%.0f", unit: "MiB", ours: memory[i], theirs: memory[0], against: "1 upstream", compare: ratio},
			row{name: name + "CPU of a cached manifest", form: "%.1f", unit: "µs", ours: got[i].cost, theirs: got[0].cost, against: "1 upstream", compare: ratio})
	}
	return rows, err
}
