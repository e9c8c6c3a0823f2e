package trouble

import (
	"context"
	"time"

	"forebay/cache/image"
)

const (
	// inUseFor is how long ago an image was pulled that counts as in use.
	inUseFor = 7 * 24 * time.Hour
	// inUseEvery is how often they are looked through: of 100,000 images that takes seconds.
	inUseEvery = 10 * time.Minute
	// pageOf is how many are looked at together.
	pageOf = 500
)

// InUse are the images that somebody pulled within a week: which could be served if their
// registries went away now, and which not.
type InUse struct {
	Complete, Incomplete int
	At                   time.Time // zero: they were not looked through yet
}

// InUse returns what was found last.
func (w *Watch) InUse() InUse {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inUse
}

// RunInUse looks them through until ctx is done.
func (w *Watch) RunInUse(ctx context.Context) error {
	tick := time.NewTicker(inUseEvery)
	defer tick.Stop()
	for {
		if found, err := w.lookThrough(ctx); err == nil { // else the disk is in trouble, which is told
			w.mu.Lock()
			w.inUse = found
			w.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (w *Watch) lookThrough(ctx context.Context) (found InUse, err error) {
	now := time.Now()
	query := image.Query{Limit: pageOf}
	for {
		page, err := w.sources.Keeper.Images.List(ctx, query)
		if err != nil {
			return found, err
		}
		for _, i := range page.Images {
			switch {
			case now.Sub(i.UsedAt) > inUseFor:
			case i.State == image.Complete:
				found.Complete++
			case i.State == image.Incomplete:
				found.Incomplete++
			}
		}
		if page.Next == "" {
			found.At = now
			return found, nil
		}
		query.After = page.Next
	}
}
