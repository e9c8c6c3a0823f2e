package evict

import (
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// memoryOf returns the bytes of heap that n entries take.
func memoryOf(n int, fill func(*Policy, int)) (float64, *Policy) {
	var before, after runtime.MemStats
	p := New(Options{Capacity: int64(n) * 10 * mib})
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range n {
		fill(p, i)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	return float64(after.HeapAlloc-before.HeapAlloc) / float64(n), p
}

func fillUsual(p *Policy, i int) {
	size := int64(40 << 10)
	if i%3 == 0 {
		size = 30 * mib
	}
	p.Add(digest(i), size, Blob)
}

func TestAnEntryTakesLittleMemory(t *testing.T) {
	got, p := memoryOf(200_000, fillUsual)
	if got > 150 {
		t.Errorf("%.0f bytes per entry, want at most 150", got)
	}
	runtime.KeepAlive(p)
}

func BenchmarkMillion(b *testing.B) {
	const n = 1_000_000
	perEntry, p := memoryOf(n, fillUsual)
	digests := make([]v1.Hash, 1<<16)
	for i := range digests {
		digests[i] = digest(i * (n >> 16))
	}
	b.Run("gc", func(b *testing.B) {
		for b.Loop() {
			runtime.GC()
		}
		b.ReportMetric(perEntry, "B/entry")
	})
	b.Run("touch", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				p.Touch(digests[i&(len(digests)-1)])
			}
		})
	})
	b.Run("touch12", func(b *testing.B) {
		for i := 0; b.Loop(); i += 12 {
			at := i % (len(digests) - 12)
			p.Touch(digests[at : at+12]...)
		}
	})
	b.Run("victim", func(b *testing.B) {
		for i := n; b.Loop(); i++ {
			fillUsual(p, i)
			p.Victims(p.Bytes()-p.capacity, nil)
			if i%4 == 0 {
				p.Victims(1, nil)
			}
		}
	})
	b.Run("oldest", func(b *testing.B) {
		for b.Loop() {
			p.Oldest()
		}
	})
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			q := New(Options{Capacity: p.capacity})
			q.Load(p.All())
		}
	})
}
