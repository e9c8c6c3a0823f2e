package auth

import (
	"errors"
	"sync"
	"time"

	"forebay/internal/lane"
	"forebay/internal/pull"
)

// badCredentialsFor is how long refused credentials are not tried again. Docker Hub locks
// accounts that fail often.
const badCredentialsFor = time.Minute

// trialKey is a credential at a token server.
type trialKey struct{ host, who string }

// trial is what a token server has said of a credential.
type trial struct {
	// turn is held while a credential is tried that was never accepted, so that a wrong one
	// is tried once, however many ask.
	turn *lane.Lane

	mu       sync.Mutex
	good     bool
	badUntil time.Time
	err      pull.Error // of the refusal
}

func (t *Tokens) trial(key trialKey) *trial {
	t.mu.Lock()
	defer t.mu.Unlock()
	known, ok := t.trials.Get(key)
	if !ok {
		known = &trial{turn: lane.New(1)}
		t.trials.Add(key, known)
	}
	return known
}

// refusal returns the remembered refusal of a credential, or nil; and whether it has
// been accepted before.
func (t *trial) refusal(now time.Time) (refused *pull.Error, good bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Before(t.badUntil) {
		err := t.err
		return &err, false
	}
	return nil, t.good
}

// learn remembers how a token request went. It reports whether a refusal is new.
func (t *trial) learn(now time.Time, err *pull.Error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.good, t.badUntil = true, time.Time{}
		return false
	}
	if !errors.Is(err, pull.ErrLogin) {
		return false
	}
	t.good, t.badUntil, t.err = false, now.Add(badCredentialsFor), *err
	return true
}
