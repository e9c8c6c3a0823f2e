//go:build linux

package main

import (
	"context"
	"errors"
)

// policySettings are rules that match every tag and replace none.
const policySettings = `policies:
- {name: aged, age: 7d, digests: any}
- {name: lists, deny: ["docker.io/evil/*", "upstream=nowhere.example"]}
`

// measurePolicy compares cached manifests by tag of a mirror with policies with those of one without.
func measurePolicy(ctx context.Context, b *bench) (rows []row, err error) {
	load, err := startLoad(ctx, b.dir, otherCPU)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, load.stop()) }()
	img, err := b.hub.addImage("warm")
	if err != nil {
		return nil, err
	}
	path := "/v2/" + repository + "/manifests/" + img.Tag
	err = b.withMirror(ctx, mirrorOptions{on: firstCPU, noAccessLog: true}, func(plain *mirror) error {
		return b.withMirror(ctx, mirrorOptions{on: firstCPU, noAccessLog: true, more: policySettings}, func(ruled *mirror) error {
			var got [2]rated
			var measures []func(int) error
			for i, m := range []*mirror{plain, ruled} {
				if err := answersTo(ctx, m.url+path, ""); err != nil {
					return err
				}
				h := hammer{Addr: hostOf(m.url), Path: path, Accept: manifestAccept, Connections: 16, Seconds: pick(b, 4.0, 1)}
				measures = append(measures, func(int) error { return rate(m.process, load, h, &got[i]) })
			}
			if err := b.takeTurns(ctx, "cached manifest with policies", measures...); err != nil {
				return err
			}
			const name = "cached manifest by tag with policies"
			rows = append(rows,
				row{name: name + ": requests per second", form: "%.0f", unit: "/s", ours: got[1].rate, theirs: got[0].rate, against: "without", compare: ratio},
				row{name: name + ": CPU per request", form: "%.1f", unit: "µs", ours: got[1].cost, theirs: got[0].cost, against: "without", compare: ratio, target: atMost(1.02)})
			return nil
		})
	})
	return rows, err
}
