// Package issue keeps the short-lived passwords that a platform hands out for a registry.
//
// It promises to ask once for all who wait, to ask before a password expires, and never to ask
// more than a few times a minute.
//
// Warning: what it hands out is a secret. No text that it makes holds one.
package issue

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"

	"forebay/internal/logkey"
)

// Options configures an [Issuer]. Registry and Fetch are required.
type Options struct {
	Registry string // for people
	// Fetch asks the platform for a password. Who we are is found out anew each time, so that files and
	// roles may change. Its errors hold no secret.
	Fetch func(ctx context.Context) (Password, error)
	Log   *zap.Logger
	Now   func() time.Time // replaces the clock
}

// Password is what was handed out. Secret is secret.
type Password struct {
	User, Secret string
	Until        time.Time // its end; if that is not to come, it is unknown
	from         time.Time
}

// Format writes no secret, for every verb.
func (p Password) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "password of "+p.User) }

const (
	// askTimeout bounds one request for a password, with all retries. Those who wait have 16 s in all.
	askTimeout = 12 * time.Second
	// refreshShare is the last part of its life in which a password is replaced in the background: an hour
	// of Amazon's twelve, five minutes of Google's one.
	refreshShare = 12
	// RefreshAgain is the pause after a replacement that failed while the old one lives.
	RefreshAgain = time.Minute
	// RenewAgain is the least age of a password that is replaced because it was refused. A
	// refusal mostly means that the account may not pull, which no password changes.
	RenewAgain = time.Minute
	// AskAgain is the pause after an error.
	AskAgain = 5 * time.Second
	// lifeUnknown is the life of a password that comes without one.
	lifeUnknown = time.Hour
)

// Issuer hands out the password of one registry. It satisfies auth.Issuer.
type Issuer struct {
	opts Options

	stopping context.Context // done after Close: the life of requests, which have no caller
	stop     context.CancelFunc
	work     sync.WaitGroup // requests in progress

	mu      sync.Mutex
	last    Password
	running *run      // a request in progress, or nil
	err     error     // of the last request, if it failed
	errAt   time.Time // when
}

// run is a request in progress. Its fields are set before done is closed.
type run struct {
	done     chan struct{}
	password Password
	err      error
}

// New returns an issuer. Nothing is contacted.
func New(o Options) *Issuer {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	i := &Issuer{opts: o}
	i.stopping, i.stop = context.WithCancel(context.Background())
	return i
}

// Close ends a request in progress and waits for it.
func (i *Issuer) Close() {
	i.stop()
	i.Wait()
}

// Wait waits for a request in progress.
func (i *Issuer) Wait() { i.work.Wait() }

// Issue returns the user name and the password to use now. renew says that those it
// returned last were refused.
func (i *Issuer) Issue(ctx context.Context, renew bool) (user, secret string, err error) {
	i.mu.Lock()
	now := i.opts.Now()
	failed := i.err != nil && now.Sub(i.errAt) < AskAgain
	good := i.last.Secret != "" && now.Before(i.last.Until)
	if good && (!renew || now.Sub(i.last.from) < RenewAgain || failed) {
		if i.last.Until.Sub(now) < i.last.Until.Sub(i.last.from)/refreshShare && (i.err == nil || now.Sub(i.errAt) >= RefreshAgain) {
			i.begin() // and nobody waits for it
		}
		defer i.mu.Unlock()
		return i.last.User, i.last.Secret, nil
	}
	if failed {
		defer i.mu.Unlock()
		return "", "", i.err
	}
	r := i.begin()
	i.mu.Unlock()
	select {
	case <-r.done:
		return r.password.User, r.password.Secret, r.err
	case <-ctx.Done():
		return "", "", context.Cause(ctx)
	}
}

// begin joins the request in progress or starts one. i.mu is held.
func (i *Issuer) begin() *run {
	if i.running == nil {
		r := &run{done: make(chan struct{})}
		i.running = r
		i.work.Go(func() { i.ask(r) }) // ends with the request, or with Close
	}
	return i.running
}

// ask makes one request in a context of its own: it belongs to all who wait.
func (i *Issuer) ask(r *run) {
	ctx, cancel := context.WithTimeout(i.stopping, askTimeout)
	defer cancel()
	r.password, r.err = i.fetch(ctx)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.running = nil
	if i.err = r.err; r.err == nil {
		i.last = r.password
		i.opts.Log.Info("registry password issued", logkey.Host(i.opts.Registry), zap.Time("until", r.password.Until))
	} else {
		i.errAt = i.opts.Now()
		i.opts.Log.Warn("no registry password", logkey.Host(i.opts.Registry), logkey.Err(r.err))
	}
	close(r.done)
}

// fetch asks for a password.
func (i *Issuer) fetch(ctx context.Context) (Password, error) {
	p, err := i.opts.Fetch(ctx)
	p.from = i.opts.Now()
	if !p.Until.After(p.from) {
		p.Until = p.from.Add(lifeUnknown)
	}
	return p, err
}

// String names the registry.
func (i *Issuer) String() string { return fmt.Sprintf("passwords of %s", i.opts.Registry) }

// Format writes no secret, for every verb.
func (i *Issuer) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, i.String()) }
