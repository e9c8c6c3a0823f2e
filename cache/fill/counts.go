package fill

import (
	"context"
	"errors"
	"sync/atomic"

	"forebay/cache/store"
	"forebay/internal/sums"
)

// Counts are what became of fills. The zero value is ready for use.
type Counts struct {
	Done      atomic.Int64 // verified and kept
	Failed    atomic.Int64 // by the upstream
	Wrong     atomic.Int64 // the content had another digest
	Unkept    atomic.Int64 // by the store: it was passed through
	Cancelled atomic.Int64 // nobody waited any more, or the program ended

	Broken  atomic.Int64 // transfers that ended early, of fills that went on
	Resumed atomic.Int64 // fills that went on with what one before had left
	Passed  atomic.Int64 // readers that were served past the store
}

// ended counts a fill that ended with err.
func (n *Counts) ended(err error) {
	switch {
	case err == nil:
		n.Done.Add(1)
	case errors.Is(err, store.ErrClosed), errors.Is(err, context.Canceled):
		n.Cancelled.Add(1)
	case errors.Is(err, store.ErrUnkept):
		n.Unkept.Add(1)
	case errors.Is(err, sums.ErrMismatch):
		n.Wrong.Add(1)
	default:
		n.Failed.Add(1)
	}
}
