// Package prefetch fetches images before anybody pulls them: lists of them, and sets of
// the configuration on a schedule.
//
// It promises to ask a registry for nothing that is kept, and not to touch the reserve of
// its budget. The content belongs to the cache.
package prefetch

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"forebay/cache"
	"forebay/cache/upkeep"
	"forebay/internal/imageset"
	"forebay/internal/pull"
	"forebay/internal/wire"
)

// Request asks for a list of images.
type Request struct {
	Images    []imageset.Entry
	Platforms []string // of images that name none; "all" alone is every platform. Required
	Referrers bool     // signatures, SBOMs and attestations too
	DryRun    bool     // only tell what would be fetched
	Wait      bool     // wait for the budgets of registries rather than fail
	Pin       bool     // pin what was fetched whole
	AtOnce    int      // images at a time; 0 means 3
	// Poll is how often a run that waits for a budget looks at it. 0 means a minute.
	Poll time.Duration
}

const (
	atOnce = 3
	// AtOnceMost bounds Request.AtOnce.
	AtOnceMost = 16
)

// State says what became of an image.
type State string

// The states of an image.
const (
	Kept    State = "kept"    // it was all there
	Fetched State = "fetched" // it is all there now
	Needed  State = "needed"  // of a dry run: something would be fetched
	Partial State = "partial" // some of it is still missing
	Limited State = "limited" // its registry limits us, or only the reserve of its budget is left
	Failed  State = "failed"  // nothing could be done
)

// Image says what was done for one image.
type Image struct {
	Ref   string `json:"ref"`
	At    string `json:"at,omitempty"` // file and line that name it
	State State  `json:"state"`
	upkeep.Prefetched
	Pinned bool   `json:"pinned,omitempty"`
	Error  string `json:"error,omitempty"` // the worst of what went wrong
}

// Report says what was done for all.
type Report struct {
	DryRun bool `json:"dry_run,omitempty"`
	// Outcome is "done", "partial" (some images are incomplete), "failed" (all are), or
	// "limited" (images are incomplete, and only because of limits).
	Outcome   string  `json:"outcome" enum:"done,partial,failed,limited"`
	Images    []Image `json:"images"` // in the order of the request
	Pulls     int64   `json:"pulls"`
	Fetched   int64   `json:"fetched"`
	Bytes     int64   `json:"bytes"`
	KeptBytes int64   `json:"kept_bytes"`
	More      bool    `json:"more,omitempty"` // of a dry run: there is more, of unknown size
	Seconds   float64 `json:"seconds"`
}

// The outcomes of a report.
const (
	OutcomeDone    = "done"
	OutcomePartial = "partial"
	OutcomeFailed  = "failed"
	OutcomeLimited = "limited"
)

// Active is an image that is being fetched.
type Active struct {
	Ref      string          `json:"ref"`
	Progress upkeep.Progress `json:"progress"`
}

// Snapshot says how far a run has come.
type Snapshot struct {
	Images int             `json:"images"` // in all
	Done   int             `json:"done"`   // of them, whatever came of it
	Failed int             `json:"failed"` // of those, not all there
	Total  upkeep.Progress `json:"total"`  // of the images that are done or active
	Active []Active        `json:"active"` // in the order of their start
	// Ended are the images that were done last, the latest last: at most 32 of Done.
	Ended []Ended `json:"ended"`
}

// Ended is an image that is done.
type Ended struct {
	Ref   string `json:"ref"`
	State State  `json:"state"`
	Bytes int64  `json:"bytes"`
	Error string `json:"error,omitempty"`
}

const endedTold = 32

// Run fetches the images of q. tell, if not nil, is called with the progress now and then,
// never concurrently. The error is that of ctx; faults of images are in the report.
func Run(ctx context.Context, k *upkeep.Keeper, q Request, tell func(Snapshot)) (*Report, error) {
	began := time.Now()
	if q.AtOnce <= 0 {
		q.AtOnce = atOnce
	}
	r := &run{k: k, q: q, tell: tell, report: Report{DryRun: q.DryRun, Images: make([]Image, len(q.Images))}}
	r.snapshot.Images = len(q.Images)
	slots := make(chan struct{}, min(q.AtOnce, AtOnceMost))
	var running sync.WaitGroup
	for i := range q.Images {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		running.Go(func() {
			defer func() { <-slots }()
			r.image(ctx, i)
		})
	}
	running.Wait()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.sum()
	r.report.Seconds = time.Since(began).Seconds()
	return &r.report, nil
}

// run is one call of Run.
type run struct {
	k       *upkeep.Keeper
	q       Request
	counted sync.Map
	tell    func(Snapshot)
	report  Report // each image is written by the goroutine that fetches it

	mu       sync.Mutex
	snapshot Snapshot        // guarded by mu; Total is of those that are done
	ended    upkeep.Progress // guarded by mu; of images that are done
}

// image fetches image i and books what came of it.
func (r *run) image(ctx context.Context, i int) {
	entry := r.q.Images[i]
	image := Image{Ref: Name(entry.Ref), At: entry.At.String()}
	r.begin(image.Ref)
	q := upkeep.Request{
		Repo: cache.Repo{Upstream: entry.Ref.Upstream, Name: entry.Ref.Repository}, Tag: entry.Ref.Tag, Digest: entry.Ref.Digest,
		Blob: entry.Blob, Platforms: r.q.Platforms, Referrers: r.q.Referrers, DryRun: r.q.DryRun, Wait: r.q.Wait, Poll: r.q.Poll,
		Counted: &r.counted,
	}
	if len(entry.Platforms) > 0 {
		q.Platforms = entry.Platforms
	}
	var last upkeep.Progress
	done, err := r.k.Prefetch(ctx, q, func(p upkeep.Progress) {
		last = p
		r.progress(image.Ref, p)
	})
	if err == nil {
		image.Prefetched = *done
		err = done.Err()
	}
	image.State = stateOf(&image, r.q.DryRun, err)
	if err == nil && r.q.Pin && !r.q.DryRun && !q.Blob {
		if err = pin(ctx, r.k, q, done); err == nil {
			image.Pinned = true
		}
	}
	if err != nil {
		image.Error = err.Error()
	}
	r.report.Images[i] = image
	r.end(image, last)
}

// pin pins an image under the name that it can be pulled by.
func pin(ctx context.Context, k *upkeep.Keeper, q upkeep.Request, done *upkeep.Prefetched) error {
	tag, d := q.Tag, v1.Hash{}
	if tag == "" || done.MovedTo != "" {
		tag, d = "", done.Digest.Hash
	}
	_, err := k.Pin(ctx, q.Repo, tag, d, q.Platforms)
	return err
}

func stateOf(image *Image, dry bool, err error) State {
	switch {
	case pull.KindOf(err) == pull.Limited && err != nil:
		return Limited
	case err != nil && image.Digest == (wire.Digest{}):
		return Failed
	case err != nil:
		return Partial
	case image.Fetched == 0 && image.Pulls == 0 && !image.More:
		return Kept
	case dry:
		return Needed
	}
	return Fetched
}

func (s State) bad() bool { return s == Partial || s == Limited || s == Failed }

func (r *run) begin(ref string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.snapshot.Active = append(r.snapshot.Active, Active{Ref: ref})
	r.told()
}

func (r *run) progress(ref string, p upkeep.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.active(ref); i >= 0 {
		r.snapshot.Active[i].Progress = p
	}
	r.told()
}

func (r *run) end(image Image, last upkeep.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := r.active(image.Ref); i >= 0 {
		r.snapshot.Active = slices.Delete(r.snapshot.Active, i, i+1)
	}
	r.snapshot.Done++
	if image.State.bad() || image.Error != "" {
		r.snapshot.Failed++
	}
	r.ended = plus(r.ended, last)
	if len(r.snapshot.Ended) == endedTold {
		r.snapshot.Ended = r.snapshot.Ended[1:]
	}
	r.snapshot.Ended = append(r.snapshot.Ended, Ended{image.Ref, image.State, image.Bytes, image.Error})
	r.told()
}

// active returns the place of an image. r.mu is held.
func (r *run) active(ref string) int {
	return slices.IndexFunc(r.snapshot.Active, func(a Active) bool { return a.Ref == ref })
}

// told tells the snapshot. r.mu is held.
func (r *run) told() {
	if r.tell == nil {
		return
	}
	s := r.snapshot
	s.Active, s.Ended = append([]Active{}, s.Active...), append([]Ended{}, s.Ended...)
	s.Total = r.ended
	for _, a := range s.Active {
		s.Total = plus(s.Total, a.Progress)
	}
	r.tell(s)
}

func plus(a, b upkeep.Progress) upkeep.Progress {
	return upkeep.Progress{
		Items: a.Items + b.Items, ItemsTotal: a.ItemsTotal + b.ItemsTotal,
		Bytes: a.Bytes + b.Bytes, BytesTotal: a.BytesTotal + b.BytesTotal, Faults: a.Faults + b.Faults,
	}
}

// sum adds up the images.
func (r *run) sum() {
	s := &r.report
	good, limited, bad := 0, 0, 0
	for _, image := range s.Images {
		s.Pulls += image.Pulls
		s.Fetched += image.Fetched
		s.Bytes += image.Bytes
		s.KeptBytes += image.KeptBytes
		s.More = s.More || image.More
		switch {
		case image.State == Limited:
			limited++
		case image.State.bad() || image.Error != "":
			bad++
		default:
			good++
		}
	}
	switch {
	case bad == 0 && limited == 0:
		s.Outcome = OutcomeDone
	case bad == 0:
		s.Outcome = OutcomeLimited
	case good == 0 && !slices.ContainsFunc(s.Images, func(i Image) bool { return i.State == Partial || i.State == Fetched || i.State == Limited }):
		s.Outcome = OutcomeFailed
	default:
		s.Outcome = OutcomePartial
	}
}

// Name is how an image is told: by its tag if it has one, and else by its digest.
func Name(ref wire.Reference) string {
	if ref.Tag != "" {
		ref.Digest = v1.Hash{}
	}
	return ref.String()
}

// ErrNoPlatform means that a list of platforms is empty.
var ErrNoPlatform = errors.New("no platform is given: name at least one, such as linux/amd64, or all")
