package metrics

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"forebay/cache/tier"
	"forebay/internal/tally"
)

func TestCallsBecomeMetrics(t *testing.T) {
	within := make([]int64, len(tier.LatencyBounds()))
	within[len(within)-1] = 2
	got := operations([]tier.Calls{
		{Operation: "GetObject", Outcome: "absent", Count: 1, Seconds: 0.5, Within: within},
		{Operation: "GetObject", Outcome: "ok", Count: 2, Seconds: 1, Within: within},
		{Operation: "PutObject", Outcome: "ok", Count: 1, Within: within},
	})
	buckets := func(last uint64) (all []tally.Bucket) {
		for _, bound := range tier.LatencyBounds() {
			all = append(all, tally.Bucket{UpTo: durationOf(bound)})
		}
		all[len(all)-1].Count = last
		return all
	}
	want := []operation{
		{name: "GetObject", outcomes: map[string]int64{"absent": 1, "ok": 2}, took: tally.Snapshot{Count: 3, Sum: durationOf(1.5), Buckets: buckets(4)}},
		{name: "PutObject", outcomes: map[string]int64{"ok": 1}, took: tally.Snapshot{Count: 1, Buckets: buckets(2)}},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(operation{})); diff != "" {
		t.Errorf("operations (-want +got)\n%s", diff)
	}
}
