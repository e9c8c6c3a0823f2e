package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2/simplelru"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"forebay/internal/flight"
	"forebay/internal/logkey"
	"forebay/internal/pull"
	"forebay/internal/tracing"
	"forebay/upstream/dial"
)

const (
	// tokensKept bounds the tokens in memory: one per repository and credential.
	tokensKept = 10_000
	// tokenLife is the life of a token that comes without one, and the shortest that is
	// believed (distribution, token specification: "defaults to 60 seconds", and clients raise
	// a shorter one to it).
	tokenLife = 60 * time.Second
	// tokenLifeMax bounds how long a token is kept, whatever its server says.
	tokenLifeMax = time.Hour
	// tokenRetry is the pause after a refresh that failed while the token still lives.
	tokenRetry = 5 * time.Second
)

// tokenKey is what a token is for. Nothing with another key may use it.
type tokenKey struct {
	realm, service, scope string
	who                   string // identity.id
}

// Token is a bearer token. Its value is secret.
type Token struct {
	value     string
	refreshAt time.Time // after it, a new one is asked for in the background
	expires   time.Time // after it, nobody gets it
	accepted  atomic.Bool
}

// Format writes no secret, for every verb.
func (t *Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "token") }

// Options configures [Tokens]. All are required.
type Options struct {
	Upstream string        // name of the registry, for errors
	Patience time.Duration // bounds the wait for one token, with all retries
	Now      func() time.Time
	Log      *zap.Logger
}

// Tokens keeps the tokens of a registry and asks for each once, however many wait.
type Tokens struct {
	opts Options

	// flights are the token requests in progress. Of the caller who began one it has the trace,
	// and nothing else.
	flights flight.Group[tokenKey, *Token]

	mu     sync.Mutex
	kept   *lru.LRU[tokenKey, *Token]
	trials *lru.LRU[trialKey, *trial] // one for each credential and token server
}

// NewTokens returns tokens that are asked for as long as life lasts; work counts the
// requests for them.
func NewTokens(life context.Context, work *sync.WaitGroup, o Options) *Tokens {
	kept, err := lru.NewLRU[tokenKey, *Token](tokensKept, nil)
	if err != nil {
		panic(err) // only for a size below 1
	}
	trials, err := lru.NewLRU[trialKey, *trial](tokensKept, nil)
	if err != nil {
		panic(err) // likewise
	}
	return &Tokens{
		opts: o, kept: kept, trials: trials,
		flights: flight.Group[tokenKey, *Token]{Life: life, Work: work, Carry: func(life, caller context.Context, _ <-chan struct{}) context.Context {
			return tracing.Carry(life, caller)
		}},
	}
}

// Close lets no further token be asked for. Its owner then waits for work.
func (t *Tokens) Close() { t.flights.Close() }

// get returns the token that q asks for, which it asks s for if there is none. fresh says
// that the caller had to wait for it. The request goes on when ctx is done.
func (t *Tokens) get(ctx context.Context, q *Request, s *Realms) (tok *Token, fresh bool, err error) {
	renew := func(ctx context.Context) (*Token, error) { return t.renew(ctx, q, s) }
	tok, now := t.have(q.key), t.opts.Now()
	switch {
	case tok != nil && now.Before(tok.refreshAt):
		return tok, false, nil
	case tok != nil && now.Before(tok.expires):
		t.flights.Start(ctx, q.key, renew)
		return tok, false, nil
	}
	tok, _, err = t.flights.Do(ctx, q.key, renew)
	return tok, err == nil, err
}

// have returns the token for key, which may have expired, or nil.
func (t *Tokens) have(key tokenKey) *Token {
	t.mu.Lock()
	defer t.mu.Unlock()
	tok, _ := t.kept.Get(key)
	return tok
}

// renew makes one token request and keeps what it gives.
func (t *Tokens) renew(ctx context.Context, q *Request, s *Realms) (*Token, error) {
	// Another request may have ended after the caller looked and before this one began.
	if tok := t.have(q.key); tok != nil && t.opts.Now().Before(tok.refreshAt) {
		return tok, nil
	}
	ctx, cancel := context.WithTimeout(ctx, t.opts.Patience)
	defer cancel()
	tok, err := t.mint(ctx, q, s)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		t.kept.Add(q.key, tok)
		return tok, nil
	}
	if old, ok := t.kept.Peek(q.key); ok {
		// Never change a token that others hold: put one with a later time in its place.
		later := &Token{value: old.value, refreshAt: t.opts.Now().Add(tokenRetry), expires: old.expires}
		later.accepted.Store(old.accepted.Load())
		if later.refreshAt.After(later.expires) {
			later.refreshAt = later.expires
		}
		t.kept.Add(q.key, later)
	}
	return nil, err
}

// Drop forgets the token of a grant that the registry refused, unless there is a newer one.
func (t *Tokens) Drop(g *Grant) {
	if !g.Minted() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now, ok := t.kept.Peek(g.key); ok && now.value == g.token.value {
		t.kept.Remove(g.key)
	}
}

// mint asks a token server for a token. Credentials that it refused within the last minute
// are not sent again.
func (t *Tokens) mint(ctx context.Context, q *Request, s *Realms) (*Token, *pull.Error) {
	if q.who.Anonymous() {
		return s.Ask(ctx, q)
	}
	trial := t.trial(trialKey{host: dial.HostPort(q.Realm), who: q.who.id})
	refused, good := trial.refusal(t.opts.Now())
	if refused == nil && !good {
		if err := trial.turn.Enter(ctx); err != nil {
			return nil, t.notSent(q, err)
		}
		defer trial.turn.Leave()
		refused, _ = trial.refusal(t.opts.Now())
	}
	if refused != nil {
		return nil, refused
	}
	tok, err := s.Ask(ctx, q)
	if trial.learn(t.opts.Now(), err) {
		t.opts.Log.Check(levelOf(q.who), "credentials refused").Write(logkey.Host(q.Realm.Host), logkey.User(q.who.Name()), logkey.Err(err))
	}
	return tok, err
}

// levelOf returns at which level it is logged that a credential is wrong: whoever sees that of a client
// can do nothing about it.
func levelOf(who Identity) zapcore.Level {
	if who.client {
		return zapcore.DebugLevel
	}
	return zapcore.ErrorLevel
}

// notSent returns the error of a request whose turn did not come.
func (t *Tokens) notSent(q *Request, err error) *pull.Error {
	e := &pull.Error{Kind: pull.Unavailable, Upstream: t.opts.Upstream, Op: q.Op(), Err: err}
	if errors.Is(err, context.DeadlineExceeded) {
		e.Kind = pull.Timeout
	}
	return e
}
