package metrics

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"forebay/cache/store"
	"forebay/internal/tally"
	"forebay/upstream"
)

// collector reads the figures of cache and upstreams when somebody asks.
type collector struct {
	f *families
	s Sources
}

// Describe describes nothing, since series come and go with what registries say: the
// registry then checks each metric as it is collected.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	to := sink{ch}
	if c.s.Ready != nil {
		to.truth(c.f.ready, c.s.Ready() == nil)
	} else {
		to.truth(c.f.ready, true)
	}
	if c.s.Troubles != nil {
		c.troubles(to)
	}
	if c.s.InUse != nil {
		if n := c.s.InUse(); !n.At.IsZero() {
			to.gauge(c.f.inUse, float64(n.Complete), "complete")
			to.gauge(c.f.inUse, float64(n.Incomplete), "incomplete")
		}
	}
	for _, r := range c.s.Registries() {
		c.registry(to, r, time.Now())
	}
	for _, u := range c.s.Keeper.Cache.Upstreams() {
		if !u.LastAsked.IsZero() {
			to.truth(c.f.up, u.FailsFrom.IsZero(), u.Name)
		}
	}
	if c.s.Fleet != nil {
		n := c.s.Fleet()
		for result, count := range map[string]int64{"shared": n.Shared, "asked": n.Asked, "alone": n.Alone} {
			to.count(c.f.fleetTags, count, result)
		}
		for role, count := range map[string]int64{"lead": n.Led, "follow": n.Followed, "alone": n.ByItself} {
			to.count(c.f.fleetFetches, count, role)
		}
		to.count(c.f.fleetBytes, n.BytesIn, "in")
		to.count(c.f.fleetBytes, n.BytesOut, "out")
		to.count(c.f.fleetTakeovers, n.Takeovers)
		to.gauge(c.f.fleetMembers, float64(n.Members))
		to.count(c.f.fleetDuplicates, n.Duplicates)
		to.count(c.f.fleetDisbelieved, n.Forged)
		to.count(c.f.fleetFailed, n.Failed)
		to.truth(c.f.fleetDegraded, !n.Since.IsZero())
	}
	if c.s.Notify != nil {
		for _, n := range c.s.Notify() {
			for result, count := range map[string]int64{"sent": n.Sent, "failed": n.Failed, "dropped": n.Dropped} {
				to.count(c.f.notified, count, n.Target, result)
			}
			to.gauge(c.f.notifying, float64(n.Waiting), n.Target)
		}
	}
	if c.s.Rules != nil {
		n := c.s.Rules.Counts()
		for result, count := range map[string]int64{"kept": n.Kept.Load(), "replaced": n.Replaced.Load(), "refused": n.Refused.Load(), "observed": n.Observed.Load()} {
			to.count(c.f.rulings, count, result)
		}
		to.count(c.f.judged, n.Judged.Load()-n.Failed.Load(), "answered")
		to.count(c.f.judged, n.Failed.Load(), "failed")
		to.gauge(c.f.policyWaiting, float64(c.s.Rules.Waiting()))
	}
	c.fills(to)
	c.store(to)
	if c.s.S3 != nil {
		c.s3(to)
	}
}

// troubles writes what is wrong. Several of one kind are one series.
func (c *collector) troubles(to sink) {
	told := map[[3]string]bool{}
	for _, t := range c.s.Troubles() {
		if labels := [3]string{string(t.Kind), string(t.Severity), t.Upstream}; !told[labels] {
			told[labels] = true
			to.gauge(c.f.trouble, 1, labels[:]...)
		}
	}
}

// sink makes metrics.
type sink struct{ ch chan<- prometheus.Metric }

func (s sink) count(f *Family, n int64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(f.desc, prometheus.CounterValue, float64(n), labels...)
}

func (s sink) gauge(f *Family, v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, v, labels...)
}

func (s sink) truth(f *Family, v bool, labels ...string) {
	n := 0.0
	if v {
		n = 1
	}
	s.gauge(f, n, labels...)
}

// times writes a histogram of durations, in seconds.
func (s sink) times(f *Family, t tally.Snapshot, labels ...string) {
	buckets := make(map[float64]uint64, len(t.Buckets))
	for _, b := range t.Buckets {
		buckets[b.UpTo.Seconds()] = b.Count
	}
	s.ch <- prometheus.MustNewConstHistogram(f.desc, t.Count, t.Sum.Seconds(), buckets, labels...)
}

// missing makes the scrape report that a metric could not be read.
func (s sink) missing(f *Family, err error) {
	if err != nil {
		s.ch <- prometheus.NewInvalidMetric(f.desc, err)
	}
}

// registry writes what one registry was asked, and what it will still give.
func (c *collector) registry(to sink, r *upstream.Registry, now time.Time) {
	name, n, s := r.Name(), r.Figures(), r.Status()
	for kind := range n.Requests {
		k := upstream.RequestKind(kind).String()
		var all int64
		for _, count := range n.Requests[kind] {
			all += count
		}
		if all == 0 {
			continue // a registry without HEADs for blobs should have no series for them
		}
		for outcome, count := range n.Requests[kind] {
			to.count(c.f.asked, count, name, k, upstream.RequestOutcome(outcome).String())
		}
		to.times(c.f.askedTook, n.Latencies[kind], name, k)
	}
	to.count(c.f.spentPulls, n.Pulls, name)
	to.count(c.f.received, n.Bytes, name)
	to.count(c.f.failovers, n.Failovers, name)
	to.count(c.f.probes, n.Probes, name)
	for limit, count := range n.Limited {
		to.count(c.f.limited, count, name, limit)
	}
	to.gauge(c.f.transfers, float64(n.Transfers), name)
	to.gauge(c.f.questions, float64(n.Questions), name)
	for _, e := range s.Endpoints {
		to.truth(c.f.breaker, e.Open, name, e.URL)
		to.gauge(c.f.failures, float64(e.Failures), name, e.URL)
		to.truth(c.f.paused, !e.PausedUntil.IsZero(), name, e.URL)
	}
	to.truth(c.f.low, s.Low, name)
	to.gauge(c.f.reserve, c.s.Reserves()[name], name)
	for i, b := range s.Budgets {
		if !sameBefore(s.Budgets[:i], b) {
			c.budget(to, name, b, now)
		}
	}
}

// sameBefore reports whether an earlier account has the same name: one user with two
// passwords. Only the first of them is reported.
func sameBefore(before []upstream.Budget, b upstream.Budget) bool {
	for _, other := range before {
		if other.Host == b.Host && other.Credential == b.Credential {
			return true
		}
	}
	return false
}

// budget writes what a registry will still give to one credential, as far as it said so.
func (c *collector) budget(to sink, name string, b upstream.Budget, now time.Time) {
	labels := []string{name, b.Host, b.Credential}
	to.truth(c.f.held, !b.PausedUntil.IsZero(), labels...)
	if b.SeenAt.IsZero() {
		return
	}
	to.gauge(c.f.told, seconds(b.SeenAt), labels...)
	to.gauge(c.f.rate, b.Rate/3600, labels...)
	to.gauge(c.f.elsewhere, float64(b.Elsewhere), labels...)
	if b.Limit >= 0 {
		to.gauge(c.f.limit, float64(b.Limit), labels...)
	}
	if b.Remaining >= 0 {
		to.gauge(c.f.remaining, float64(b.Remaining), labels...)
	}
	if b.Window > 0 {
		to.gauge(c.f.window, b.Window.Seconds(), labels...)
	}
	switch {
	case b.Remaining == 0:
		to.gauge(c.f.forecast, 0, labels...)
	case !b.RunsOut.IsZero():
		to.gauge(c.f.forecast, max(b.RunsOut.Sub(now).Seconds(), 0), labels...)
	}
	if !b.Returns.IsZero() {
		to.gauge(c.f.returns, max(b.Returns.Sub(now).Seconds(), 0), labels...)
	}
}

// seconds is a time as Prometheus writes them; 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixNano()) / 1e9
}

// fills writes what the cache does.
func (c *collector) fills(to sink) {
	n, err := c.s.Keeper.Figures()
	to.missing(c.f.indexBytes, err)
	for outcome, count := range map[string]int64{
		"done": n.Cache.Fills.Done, "failed": n.Cache.Fills.Failed, "wrong": n.Cache.Fills.Wrong, "not_kept": n.Cache.Fills.NotKept, "cancelled": n.Cache.Fills.Cancelled,
	} {
		to.count(c.f.fills, count, outcome)
	}
	to.gauge(c.f.filling, float64(n.Cache.Fills.Running))
	to.gauge(c.f.verifying, float64(n.Cache.Fills.Verifying))
	to.gauge(c.f.readers, float64(n.Cache.Fills.Readers))
	to.gauge(c.f.waiting, float64(n.Cache.Fills.Waiting))
	to.count(c.f.resumes, n.Cache.Transfers.Broken, "broken")
	to.count(c.f.resumes, n.Cache.Transfers.Resumed, "restart")
	to.count(c.f.passed, n.Cache.Transfers.Passed)
	to.count(c.f.mismatches, n.Cache.SentWrong, "upstream")
	to.count(c.f.mismatches, n.Store.Damaged, "store")
	to.count(c.f.again, n.Store.Again.Count)
	to.count(c.f.againBytes, n.Store.Again.Bytes)
	to.times(c.f.evictedAge, n.Store.EvictedAges)
	to.gauge(c.f.pinnedTags, float64(n.Pins.Tags))
	to.gauge(c.f.pinnedBlobs, float64(n.Pins.Blobs))
	to.gauge(c.f.scrubBehind, n.ScrubBehind.Seconds())
	to.gauge(c.f.scrubOldest, n.ScrubOldest.Seconds())
	broken := map[string]bool{}
	for _, t := range n.Troubles {
		broken[t.What] = true
	}
	to.truth(c.f.degraded, broken[store.Reading], "read")
	to.truth(c.f.degraded, broken[store.Writing], "write")
	to.truth(c.f.degraded, broken[store.Recording], "index")
	if err == nil {
		to.gauge(c.f.indexBytes, float64(n.Index.Bytes))
	}
	to.times(c.f.indexTook, n.Index.Reads, "read")
	to.times(c.f.indexTook, n.Index.Writes, "write")
}

// store writes what is kept.
func (c *collector) store(to sink) {
	s, err := c.s.Keeper.Stats()
	if err != nil {
		// What is on the disk is unknown; the rest is counted in memory.
		to.missing(c.f.diskFree, err)
		to.missing(c.f.diskSize, errors.New("see "+c.f.diskFree.Name))
	} else {
		to.gauge(c.f.diskFree, float64(s.DiskFree))
		to.gauge(c.f.diskSize, float64(s.DiskTotal))
	}
	to.gauge(c.f.store, float64(s.UsedBytes))
	to.gauge(c.f.storeMost, float64(s.MaxBytes))
	to.gauge(c.f.blobs, float64(s.Blobs))
	to.gauge(c.f.blobBytes, float64(s.BlobBytes))
	to.gauge(c.f.repositories, float64(s.Repositories))
	to.gauge(c.f.tags, float64(s.Tags))
	to.gauge(c.f.links, float64(s.Links))
	to.count(c.f.moved, s.TagsMoved, "floating")
	to.count(c.f.moved, s.ReleasesMoved, "release")
	to.gauge(c.f.pinnedBytes, float64(s.PinnedBytes))
	to.gauge(c.f.pinnedMost, float64(s.PinLimitBytes))
	to.count(c.f.evicted, s.EvictedBlobs)
	to.count(c.f.evictedBytes, s.EvictedBytes)
	to.gauge(c.f.quarantined, float64(s.QuarantineFiles))
	to.gauge(c.f.quarantinedBytes, float64(s.QuarantineBytes))
	to.gauge(c.f.scrubDone, s.Scrub.Done)
	to.gauge(c.f.scrubInterval, s.Scrub.Interval.Seconds())
	to.gauge(c.f.scrubEnded, seconds(s.Scrub.Ended))
	if b := s.Bucket; b != nil {
		to.gauge(c.f.s3Objects, float64(b.Objects))
		to.gauge(c.f.s3Bytes, float64(b.ObjectBytes))
		to.gauge(c.f.s3Queued, float64(b.Queued))
		to.gauge(c.f.s3QueuedBytes, float64(b.QueuedBytes))
		to.truth(c.f.s3Degraded, b.Degraded)
		behind := time.Duration(0)
		if !b.RefsBehind.IsZero() {
			behind = time.Since(b.RefsBehind)
		}
		to.gauge(c.f.s3RefsBehind, behind.Seconds())
		to.gauge(c.f.s3RefsDamaged, float64(b.RefsDamaged))
		to.count(c.f.s3Unsaved, s.EvictedUnsaved)
		to.count(c.f.s3Damaged, b.Damaged)
	}
}
