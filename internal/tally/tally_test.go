package tally

import (
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestHistogramCountsUpToItsBounds(t *testing.T) {
	h := NewHistogram([]time.Duration{time.Second, time.Minute})
	for _, d := range []time.Duration{-time.Second, 0, time.Second, time.Second + 1, time.Minute, time.Hour} {
		h.Add(d)
	}
	want := Snapshot{Count: 6, Sum: 2*time.Second + 1 + time.Minute + time.Hour,
		Buckets: []Bucket{{time.Second, 3}, {time.Minute, 5}}}
	if diff := cmp.Diff(want, h.Read()); diff != "" {
		t.Errorf("Read (-want +got):\n%s", diff)
	}
}

func TestNilHistogramCountsNothing(t *testing.T) {
	var h *Histogram
	h.Add(time.Second)
	h.Since(time.Now())
	if diff := cmp.Diff(Snapshot{}, h.Read()); diff != "" {
		t.Errorf("Read (-want +got):\n%s", diff)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	h := NewHistogram(Latencies())
	if n := testing.AllocsPerRun(100, func() { h.Add(3 * time.Millisecond) }); n != 0 {
		t.Errorf("Add allocates %v times, want 0", n)
	}
}

func TestConcurrentCountsAreAllThere(t *testing.T) {
	h := NewHistogram(Moments())
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			for i := range 1000 {
				h.Add(time.Duration(i) * time.Microsecond)
			}
		})
	}
	work.Wait()
	if s := h.Read(); s.Count != 8000 || s.Buckets[len(s.Buckets)-1].Count != 8000 {
		t.Errorf("Read = %+v, want 8000 counted", s)
	}
}

func TestBoundsAscend(t *testing.T) {
	for name, bounds := range map[string][]time.Duration{"Latencies": Latencies(), "Moments": Moments(), "Ages": Ages()} {
		for i := 1; i < len(bounds); i++ {
			if bounds[i] <= bounds[i-1] {
				t.Errorf("%s: bound %d (%s) is not above %s", name, i, bounds[i], bounds[i-1])
			}
		}
	}
}
