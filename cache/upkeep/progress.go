package upkeep

import (
	"sync"
	"sync/atomic"
	"time"

	"forebay/internal/wire"
)

// Progress says how far something that takes its time has come.
type Progress struct {
	Items      int64 `json:"items"`       // done
	ItemsTotal int64 `json:"items_total"` // to do, as far as is known; 0 while it is not
	Bytes      int64 `json:"bytes"`       // done
	BytesTotal int64 `json:"bytes_total"` // likewise
	Faults     int64 `json:"faults"`      // of the items done, those that went wrong
}

// progress is a Progress that grows. Its zero value is ready for use.
type progress struct {
	items, itemsTotal, bytes, bytesTotal, faults atomic.Int64
}

func (p *progress) read() Progress {
	return Progress{p.items.Load(), p.itemsTotal.Load(), p.bytes.Load(), p.bytesTotal.Load(), p.faults.Load()}
}

// progressEvery is how often progress is told.
const progressEvery = 250 * time.Millisecond

// report calls tell with the progress now and then until done is called.
func (p *progress) report(tell func(Progress)) (done func()) {
	if tell == nil {
		return func() {}
	}
	stop := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() {
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				tell(p.read())
			case <-stop:
				tell(p.read())
				return
			}
		}
	})
	return func() {
		close(stop)
		reporter.Wait()
	}
}

// failuresMost bounds how many failures are told one by one.
const failuresMost = 100

// Fault is something that could not be fetched.
type Fault struct {
	Digest wire.Digest `json:"digest"`
	Error  string      `json:"error"`
}
