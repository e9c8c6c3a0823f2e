package proxy

import (
	"context"
	"net"
	"sync"
	"time"

	"forebay/internal/allowance"
	"forebay/internal/pull"
)

// headersWithin bounds the time until the headers of an answer. dockerd, containerd up
// to 2.2, podman and CRI-O wait for headers for ever, and containerd from 2.3 on for
// 30 s; all are told something within 20 s, three of which are left to the network and to
// a machine that has much else to do.
const headersWithin = 17 * time.Second

// deadline is the context of a request until its headers go out: it ends with its parent,
// or at a time, and says who the client is and which mirrors the request came through.
//
// It is a [context.WithDeadline] that is made only when somebody waits for it: a cached
// manifest is answered without a timer, which would cost as much as the answer.
type deadline struct {
	parent context.Context
	at     time.Time
	client string // address and port, for pull.Client
	terms  *allowance.Terms
	hops   string      // mirrors that the request came through, for pull.Hops
	login  *pull.Login // in whose name registries are asked, for pull.LoginOf; nil: in ours
	accept string      // types of manifests beyond the usual, for pull.Accept

	mu     sync.Mutex
	real   context.Context // guarded by mu; nil until somebody waits
	cancel context.CancelFunc
}

func (d *deadline) made() context.Context {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.real
}

func (d *deadline) Deadline() (time.Time, bool) {
	if at, ok := d.parent.Deadline(); ok && at.Before(d.at) {
		return at, true
	}
	return d.at, true
}

func (d *deadline) Done() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.real == nil {
		d.real, d.cancel = context.WithDeadline(d.parent, d.at)
	}
	return d.real.Done()
}

func (d *deadline) Err() error {
	if real := d.made(); real != nil {
		return real.Err()
	}
	if err := d.parent.Err(); err != nil {
		return err
	}
	if !time.Now().Before(d.at) {
		return context.DeadlineExceeded
	}
	return nil
}

func (d *deadline) Value(key any) any {
	if key == (pull.ClientKey{}) {
		host, _, err := net.SplitHostPort(d.client)
		if err != nil {
			return d.client
		}
		return host
	}
	switch key {
	case allowance.TermsKey{}:
		return d.terms
	case pull.HopsKey{}:
		return d.hops
	case pull.LoginKey{}:
		return d.login
	case pull.AcceptKey{}:
		return d.accept
	}
	// The made context answers for itself, so that its children are tied to it without
	// a goroutine each.
	if real := d.made(); real != nil {
		return real.Value(key)
	}
	return d.parent.Value(key)
}

// end lets go of the timer. Nobody waits any more.
func (d *deadline) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cancel != nil {
		d.cancel()
	}
}
