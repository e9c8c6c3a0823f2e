package cache

import (
	"sync/atomic"
	"time"
)

// AgeBounds are the upper bounds of the classes of an [Ages], one class without a bound
// being added to them. What is evicted within hours of its use says that the store is too
// small for its clients; after weeks, that it is large.
func AgeBounds() []time.Duration {
	const day = 24 * time.Hour
	return []time.Duration{10 * time.Minute, time.Hour, 6 * time.Hour, day, 3 * day, 7 * day, 14 * day, 30 * day, 90 * day}
}

// Ages counts things by their age.
type Ages struct {
	Classes [10]int64 // one for each of [AgeBounds], and for what is older than all
	Sum     time.Duration
}

// ages is an Ages that grows. Its zero value is ready for use.
type ages struct {
	classes [10]atomic.Int64
	sum     atomic.Int64
}

func (a *ages) add(age time.Duration) {
	age = max(age, 0)
	i := 0
	for _, bound := range AgeBounds() {
		if age <= bound {
			break
		}
		i++
	}
	a.classes[i].Add(1)
	a.sum.Add(int64(age))
}

func (a *ages) read() (all Ages) {
	for i := range a.classes {
		all.Classes[i] = a.classes[i].Load()
	}
	all.Sum = time.Duration(a.sum.Load())
	return all
}
