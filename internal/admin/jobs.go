package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"forebay/cache/event"
	"forebay/internal/wire"
)

const (
	jobsRunning = 8  // at most at a time
	jobsKept    = 50 // that have ended
)

// jobs runs jobs and remembers those that have ended. Its owner stops it and waits.
type jobs struct {
	ctx     context.Context // life of the API; the owner of what jobs do
	stop    context.CancelFunc
	running sync.WaitGroup

	mu   sync.Mutex
	last int       // guarded by mu
	list []*runJob // guarded by mu; in the order of their start
}

type runJob struct {
	Job    // guarded by jobs.mu
	cancel context.CancelFunc
}

func newJobs() *jobs {
	ctx, stop := context.WithCancel(context.Background())
	return &jobs{ctx: ctx, stop: stop}
}

// order is what is to be done, by whom, and when.
type order struct {
	kind, target, by string
	wait             time.Duration // in which it can be taken back
}

// order is work for who sends r.
func (a *API) order(r *http.Request, kind, target string) order {
	_, v := visiting(r)
	return order{kind: kind, target: target, by: v.who.Name}
}

// told is how far a job has come.
type told struct {
	Progress Progress
	Prefetch *PrefetchSnapshot
}

// work does what a job is for, and tells now and then how far it is.
type work = func(context.Context, func(told)) (any, error)

// simple is work that tells nothing but its progress.
func simple(do func(context.Context, func(Progress)) (any, error)) work {
	return func(ctx context.Context, tell func(told)) (any, error) {
		return do(ctx, func(p Progress) { tell(told{Progress: p}) })
	}
}

// start has work done, of which only one of a kind and target goes on at a time.
func (j *jobs) start(o order, do work) (Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for _, other := range j.list {
		if other.State != Running {
			continue
		}
		n++
		if other.Kind == o.kind && other.Target == o.target {
			return Job{}, &problem{http.StatusConflict, "running", fmt.Sprintf("such a job runs already: %s", other.ID)}
		}
	}
	if n >= jobsRunning {
		return Job{}, &problem{http.StatusTooManyRequests, "too_many_jobs", fmt.Sprintf("%d jobs run already: wait for one, or cancel it", n)}
	}
	if j.ctx.Err() != nil {
		return Job{}, j.ctx.Err()
	}
	ctx, cancel := context.WithCancel(event.By(j.ctx, o.by))
	j.last++
	r := &runJob{Job: Job{ID: strconv.Itoa(j.last), Kind: o.kind, Target: o.target, By: o.by, State: Running, Started: time.Now()}, cancel: cancel}
	if o.wait > 0 {
		r.Due = r.Started.Add(o.wait)
	}
	j.list = append(j.list, r)
	j.forgetOld()
	j.running.Go(func() {
		defer cancel()
		due := time.NewTimer(o.wait)
		defer due.Stop()
		select {
		case <-due.C:
		case <-ctx.Done():
			j.end(r, nil, ctx.Err())
			return
		}
		result, err := do(ctx, func(t told) { j.tell(r, t) })
		j.end(r, result, err)
	})
	return r.Job, nil
}

// forgetOld drops the oldest of the jobs that have ended. j.mu is held.
func (j *jobs) forgetOld() {
	ended := 0
	for _, r := range j.list {
		if r.State != Running {
			ended++
		}
	}
	j.list = slices.DeleteFunc(j.list, func(r *runJob) bool {
		if r.State == Running || ended <= jobsKept {
			return false
		}
		ended--
		return true
	})
}

func (j *jobs) tell(r *runJob, t told) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r.Progress, r.Prefetch = t.Progress, t.Prefetch
}

func (j *jobs) end(r *runJob, result any, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	r.Ended, r.Prefetch = time.Now(), nil
	switch {
	case errors.Is(err, context.Canceled):
		r.State = Cancelled
	case err != nil:
		r.State, r.Error = Failed, err.Error()
	default:
		r.State = Done
		b, err := json.Marshal(result)
		if err != nil {
			panic("admin: result cannot be JSON: " + err.Error()) // a type of ours is wrong
		}
		r.Result = b
	}
}

// all returns the jobs, the latest first.
func (j *jobs) all() []Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := []Job{}
	for _, r := range slices.Backward(j.list) {
		list = append(list, r.Job)
	}
	return list
}

func (j *jobs) find(id string) (*runJob, Job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, r := range j.list {
		if r.ID == id {
			return r, r.Job, nil
		}
	}
	return nil, Job{}, &problem{http.StatusNotFound, "no_job", fmt.Sprintf("there is no job %q", clip(id))}
}

func (a *API) job(w http.ResponseWriter, r *http.Request) error {
	_, job, err := a.jobs.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	reply(w, http.StatusOK, job)
	return nil
}

func (a *API) cancelJob(w http.ResponseWriter, r *http.Request) error {
	run, _, err := a.jobs.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	run.cancel()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// accepted answers with a job that has begun.
func accepted(w http.ResponseWriter, job Job, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Location", prefix+"/jobs/"+job.ID)
	reply(w, http.StatusAccepted, job)
	return nil
}

func (a *API) repair(w http.ResponseWriter, r *http.Request) error {
	var in RepairRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	ref, err := a.reference(in.Ref)
	if err != nil {
		return err
	}
	if err := platforms(in.Platforms); err != nil {
		return err
	}
	job, err := a.startRepair(r, ref, in.Platforms)
	return accepted(w, job, err)
}

func (a *API) startRepair(r *http.Request, ref wire.Reference, platforms []string) (Job, error) {
	return a.jobs.start(a.order(r, "repair", ref.String()), simple(func(ctx context.Context, tell func(Progress)) (any, error) {
		return a.keeper.Repair(ctx, repoOf(ref), ref.Tag, ref.Digest, platforms, tell)
	}))
}

func (a *API) verify(w http.ResponseWriter, r *http.Request) error {
	var in VerifyRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	job, err := a.jobs.start(a.order(r, "verify", ""), simple(func(ctx context.Context, tell func(Progress)) (any, error) {
		return a.keeper.Verify(ctx, in.Repair, tell)
	}))
	return accepted(w, job, err)
}

func (a *API) collect(w http.ResponseWriter, r *http.Request) error {
	var in CollectRequest
	if err := decode(r, &in); err != nil {
		return err
	}
	job, err := a.jobs.start(a.order(r, "gc", ""), simple(func(ctx context.Context, tell func(Progress)) (any, error) {
		return a.keeper.Collect(ctx, in.DryRun, tell)
	}))
	return accepted(w, job, err)
}
