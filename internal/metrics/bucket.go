package metrics

import (
	"time"

	"forebay/cache/tier"
	"forebay/internal/tally"
)

// s3 writes what the bucket was asked.
func (c *collector) s3(to sink) {
	for _, o := range operations(c.s.S3()) {
		for outcome, count := range o.outcomes {
			to.count(c.f.s3, count, o.name, outcome)
		}
		to.times(c.f.s3Took, o.took, o.name)
	}
}

// operation is what was asked of the bucket by one operation, whatever came of it.
type operation struct {
	name     string           // one of a fixed few
	outcomes map[string]int64 // calls by how they ended, of a fixed few
	took     tally.Snapshot
}

// operations adds up calls, which come by operation and outcome.
func operations(calls []tier.Calls) []operation {
	var all []operation
	for _, c := range calls {
		if len(all) == 0 || all[len(all)-1].name != c.Operation {
			o := operation{name: c.Operation, outcomes: map[string]int64{}}
			for _, bound := range tier.LatencyBounds() {
				o.took.Buckets = append(o.took.Buckets, tally.Bucket{UpTo: durationOf(bound)})
			}
			all = append(all, o)
		}
		o := &all[len(all)-1]
		o.outcomes[c.Outcome] += c.Count
		o.took.Count += uint64(c.Count)
		o.took.Sum += durationOf(c.Seconds)
		for i, n := range c.Within {
			o.took.Buckets[i].Count += uint64(n)
		}
	}
	return all
}

func durationOf(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
