//go:build linux

package main

import "context"

// policySettings are rules that match every tag and replace none.
const policySettings = `policies:
- {name: aged, age: 7d, digests: any}
- {name: lists, deny: ["docker.io/evil/*", "upstream=nowhere.example"]}
`

// measurePolicy compares cached manifests by tag of a mirror with policies with those of one without.
func measurePolicy(ctx context.Context, b *bench) ([]row, error) {
	return b.compareSettings(ctx, "with policies", policySettings)
}

// compareSettings compares cached manifests by tag of a mirror with more settings with those of one without. What
// they cost is judged, since the rate is the machine's, too.
func (b *bench) compareSettings(ctx context.Context, how, more string) (rows []row, err error) {
	err = b.withMirror(ctx, mirrorOptions{on: firstCPU, noAccessLog: true}, func(plain *mirror) error {
		return b.withMirror(ctx, mirrorOptions{on: firstCPU, noAccessLog: true, more: more}, func(with *mirror) error {
			got, err := b.rateManifest(ctx, "cached manifest "+how, asked{plain, ""}, asked{with, ""})
			if err != nil {
				return err
			}
			name := "cached manifest by tag " + how
			rows = append(rows,
				row{name: name + ": requests per second", form: "%.0f", unit: "/s", ours: got.of[1].rate, theirs: got.of[0].rate, against: "without", compare: ratio},
				row{name: name + ": CPU per request", form: "%.1f", unit: "µs", ours: got.of[1].cost, theirs: got.of[0].cost, against: "without", compare: ratio, target: atMost(1.02)})
			return nil
		})
	})
	return rows, err
}
