package prefetch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"forebay/cache"
	"forebay/cache/store"
	"forebay/cache/upkeep"
	"forebay/internal/imageset"
	"forebay/internal/logkey"
	"forebay/internal/wire"
)

// Set is a list of images of the configuration.
type Set struct {
	Name      string
	Images    []string // names
	Files     []string // that name images; read at each run
	Platforms []string // "all" alone is every platform. Required
	Referrers bool
	Pin       bool
	Schedule  string // cron expression; empty: only when somebody asks
	TimeZone  string // of the schedule; empty: UTC
	// Jitter is how much later than due a run begins at most, so that many mirrors do not
	// ask at once. 0 means at once.
	Jitter time.Duration
}

// SetsOptions configures [Sets]. Cache, Registries and File are required.
type SetsOptions struct {
	Keeper     *upkeep.Keeper
	Registries func() *wire.Registries
	Sets       []Set
	File       string        // that keeps what became of the runs
	Poll       time.Duration // how often a budget is looked at that is waited for; 0 means a minute
	Log        *zap.Logger   // nil means no logging
}

// Sets runs the sets of the configuration.
type Sets struct {
	opts SetsOptions
	log  *zap.Logger

	mu    sync.Mutex
	sets  []*set // as configured
	state state  // guarded by mu
}

// set is one set with its state.
type set struct {
	Set
	schedule *Schedule // nil: only when somebody asks
	ask      chan struct{}

	// guarded by Sets.mu
	next     time.Time // zero: never
	running  bool
	progress Snapshot
}

// Errors of Start.
var (
	ErrNoSet   = errors.New("there is no such prefetch set")
	ErrRunning = errors.New("the prefetch set is running already")
)

// NewSets returns the sets. Nothing is fetched before Run.
func NewSets(o SetsOptions) (*Sets, error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	s := &Sets{opts: o, log: o.Log}
	var err error
	if s.state, err = readState(o.File); err != nil {
		o.Log.Warn("runs of prefetch sets are forgotten", logkey.Err(err))
	}
	for _, one := range o.Sets {
		if len(one.Platforms) == 0 {
			return nil, fmt.Errorf("prefetch set %s: %w", one.Name, ErrNoPlatform)
		}
		t := &set{Set: one, ask: make(chan struct{}, 1)}
		if one.Schedule != "" {
			if t.schedule, err = ParseSchedule(one.Schedule, one.TimeZone); err != nil {
				return nil, fmt.Errorf("prefetch set %s: %w", one.Name, err)
			}
		}
		s.sets = append(s.sets, t)
	}
	return s, nil
}

// Run runs the sets when they are due or asked for, until ctx is done.
func (s *Sets) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for _, t := range s.sets {
		running.Go(func() { s.keep(ctx, t) })
	}
	<-ctx.Done()
	running.Wait()
	return ctx.Err()
}

// keep runs one set again and again.
func (s *Sets) keep(ctx context.Context, t *set) {
	for first := true; ; first = false {
		var due <-chan time.Time
		timer := time.NewTimer(s.plan(t, time.Now(), first))
		if t.schedule != nil {
			due = timer.C
		}
		by := "schedule"
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-due:
		case <-t.ask:
			by = "operator"
		}
		timer.Stop()
		s.run(ctx, t, by)
	}
}

// plan settles when a set is run next, and returns how long that is from now. After a
// start, a run that was missed meanwhile is made up for.
func (s *Sets) plan(t *set, now time.Time, first bool) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.schedule == nil {
		return 0
	}
	due := t.schedule.Next(now)
	spread := t.Jitter
	if after := t.schedule.Next(due); !after.IsZero() {
		spread = min(spread, after.Sub(due)/10)
	}
	if kept := s.state.Sets[t.Name]; first && kept != nil && len(kept.Runs) > 0 {
		if missed := t.schedule.Next(kept.Runs[0].Started); !missed.IsZero() && missed.Before(now) {
			due = now
		}
	}
	if spread > 0 {
		due = due.Add(rand.N(spread))
	}
	t.next = due
	return due.Sub(now)
}

// Start has a set run now. It returns at once.
func (s *Sets) Start(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.sets, func(t *set) bool { return t.Name == name })
	if i < 0 {
		return fmt.Errorf("%w: %q", ErrNoSet, name)
	}
	if s.sets[i].running {
		return fmt.Errorf("%w: %s", ErrRunning, name)
	}
	select {
	case s.sets[i].ask <- struct{}{}:
	default: // it is about to
	}
	return nil
}

// run runs a set once and records what came of it.
func (s *Sets) run(ctx context.Context, t *set, by string) {
	started := time.Now()
	s.mu.Lock()
	t.running, t.progress = true, Snapshot{}
	s.mu.Unlock()
	s.log.Info("prefetch set begins", logkey.Set(t.Name))
	last := LastRun{Started: started, By: by}
	report, err := s.fetch(ctx, t)
	switch {
	case ctx.Err() != nil:
		last.Outcome = "cancelled"
	case err != nil:
		last.Outcome, last.Error = OutcomeFailed, err.Error()
	}
	if report != nil {
		last.take(report)
	}
	last.Ended = time.Now()
	if last.Outcome == OutcomeDone {
		s.log.Info("prefetch set is fetched", logkey.Set(t.Name), logkey.Count(last.Images), logkey.Bytes(last.Bytes), logkey.Took(last.Ended.Sub(started)))
	} else {
		s.log.Warn("prefetch set is not complete", logkey.Set(t.Name), logkey.Outcome(last.Outcome), logkey.Count(len(last.Faulty)), logkey.Err(err))
	}
	s.record(t, last, report)
}

// take takes in the sums of a report.
func (l *LastRun) take(r *Report) {
	l.Outcome, l.Images, l.Pulls, l.Fetched, l.Bytes, l.KeptBytes = r.Outcome, len(r.Images), r.Pulls, r.Fetched, r.Bytes, r.KeptBytes
	for _, image := range r.Images {
		if image.Error != "" && len(l.Faulty) < faultyKept {
			image.Failed = nil // the first is in its error
			l.Faulty = append(l.Faulty, image)
		}
	}
}

// fetch reads which images belong to the set, and fetches them.
func (s *Sets) fetch(ctx context.Context, t *set) (*Report, error) {
	entries, err := t.entries(s.opts.Registries(), func(f imageset.Fault) {
		s.log.Warn("prefetch set is not read whole", logkey.Set(t.Name), logkey.Err(f))
	})
	if err != nil {
		return nil, err
	}
	q := Request{Images: entries, Platforms: t.Platforms, Referrers: t.Referrers, Pin: t.Pin, Wait: true, Poll: s.opts.Poll}
	return Run(ctx, s.opts.Keeper, q, func(p Snapshot) {
		s.mu.Lock()
		defer s.mu.Unlock()
		t.progress = p
	})
}

// entries returns the images of the set. note is told of what its files lead to.
func (t *Set) entries(names *wire.Registries, note func(imageset.Fault)) ([]imageset.Entry, error) {
	entries, err := imageset.Names("prefetch set "+t.Name, t.Images, names)
	if err != nil {
		return nil, err
	}
	for _, name := range t.Files {
		more, err := imageset.ReadFile(name, imageset.Options{Registries: names, Lookup: os.LookupEnv, Platforms: t.Platforms, Note: note})
		if err != nil {
			return nil, err
		}
		entries = append(entries, more...)
	}
	return imageset.Unique(entries), nil
}

// record keeps what came of a run, and lets go of pins of images that left the set.
func (s *Sets) record(t *set, last LastRun, report *Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t.running, t.progress = false, Snapshot{}
	kept := s.state.Sets[t.Name]
	if kept == nil {
		kept = &setState{}
		s.state.Sets[t.Name] = kept
	}
	kept.Runs = slices.Insert(kept.Runs, 0, last)
	kept.Runs = kept.Runs[:min(len(kept.Runs), runsKept)]
	if report != nil {
		s.unpin(t, kept, report)
	}
	if err := s.state.write(s.opts.File); err != nil {
		s.log.Error("run of prefetch set not recorded", logkey.Set(t.Name), logkey.Err(err))
	}
}

// unpin takes away the pins that the set made of images that it does not have any more,
// and that no other set has pinned. s.mu is held.
func (s *Sets) unpin(t *set, kept *setState, report *Report) {
	var wanted, pinned []string
	for _, image := range report.Images {
		name := image.Ref
		if image.MovedTo != "" { // then it is pinned by digest
			if ref, err := s.opts.Registries().Reference(name); err == nil {
				name = ref.Name() + "@" + image.Digest.String()
			}
		}
		wanted = append(wanted, name)
		if image.Pinned {
			pinned = append(pinned, name)
		}
	}
	for _, name := range kept.Pinned {
		switch {
		case t.Pin && slices.Contains(wanted, name):
			if !slices.Contains(pinned, name) {
				pinned = append(pinned, name)
			}
		case !s.pinnedElsewhere(t, name):
			s.letGo(name)
		}
	}
	kept.Pinned = pinned
}

func (s *Sets) pinnedElsewhere(t *set, name string) bool {
	for other, kept := range s.state.Sets {
		if other != t.Name && slices.Contains(kept.Pinned, name) {
			return true
		}
	}
	return false
}

func (s *Sets) letGo(name string) {
	ref, err := s.opts.Registries().Reference(name)
	if err != nil {
		return // its registry is not configured any more
	}
	if ref.HasDigest() {
		ref.Tag = ""
	}
	repo := cache.Repo{Upstream: ref.Upstream, Name: ref.Repository}
	if err := s.opts.Keeper.Images.Pins.Remove(context.Background(), repo, ref.Tag, ref.Digest); err != nil && !errors.Is(err, store.ErrNotKept) {
		s.log.Warn("image that left its prefetch set stays pinned", logkey.Reference(name), logkey.Err(err))
	}
}

// SetStatus is a set, with what became of it last.
type SetStatus struct {
	Name      string   `json:"name"`
	Images    []string `json:"images,omitempty"`
	Files     []string `json:"files,omitempty"`
	Platforms []string `json:"platforms"`
	Referrers bool     `json:"referrers,omitempty"`
	Pin       bool     `json:"pin,omitempty"`
	Schedule  string   `json:"schedule,omitempty"` // cron expression; absent: only when somebody asks
	TimeZone  string   `json:"time_zone,omitempty"`

	Running  bool      `json:"running"`
	Progress *Snapshot `json:"progress,omitempty"` // while it runs
	Next     time.Time `json:"next,omitzero"`
	Last     *LastRun  `json:"last,omitempty"`
	Runs     []LastRun `json:"runs,omitempty"` // the last ten, the latest first
}

// List returns all sets, as they are configured.
func (s *Sets) List() []SetStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []SetStatus{}
	for _, t := range s.sets {
		one := SetStatus{
			Name: t.Name, Images: t.Images, Files: t.Files, Platforms: t.Platforms, Referrers: t.Referrers, Pin: t.Pin,
			Schedule: t.Schedule, TimeZone: t.TimeZone, Running: t.running, Next: t.next,
		}
		if t.running {
			p := t.progress
			one.Progress = &p
		}
		if kept := s.state.Sets[t.Name]; kept != nil && len(kept.Runs) > 0 {
			one.Runs = slices.Clone(kept.Runs)
			one.Last = &one.Runs[0]
		}
		list = append(list, one)
	}
	return list
}
