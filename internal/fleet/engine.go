package fleet

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"forebay/config/parse"
	"forebay/internal/logkey"
)

const (
	// callMost is how long a call may take. A registry's answer takes longer.
	callMost = 50 * time.Millisecond
	// failuresMost calls that fail in a row open the breaker, for pauseLeast, then longer and longer.
	failuresMost = 3
	pauseLeast   = time.Second
	pauseMost    = 30 * time.Second
	dialMost     = time.Second
)

// errAway means that the engine was not asked.
var errAway = errors.New("the engine does not answer")

// clientOptions returns how to reach an engine, and an error that does not name the key of the configuration.
func clientOptions(text, password string) (rueidis.ClientOption, error) {
	at, err := parse.EngineOf(text)
	if err != nil {
		return rueidis.ClientOption{}, err
	}
	o := rueidis.ClientOption{
		InitAddress: at.Hosts, Username: at.User, Password: password, ForceSingleClient: at.Master == "",
		Dialer: net.Dialer{Timeout: dialMost}, ConnWriteTimeout: dialMost, DisableCache: true, DisableRetry: true,
		PipelineMultiplex: -1, // one connection: each that is left from before a restart of the engine fails once
	}
	if at.TLS {
		host, _, _ := net.SplitHostPort(at.Hosts[0]) // it has a port
		o.TLSConfig = &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	}
	if at.Master != "" {
		o.Sentinel = rueidis.SentinelOption{MasterSet: at.Master, Dialer: o.Dialer, Username: at.User, Password: password}
	}
	return o, nil
}

// engine is a server of the Redis protocol that may be gone at any time.
type engine struct {
	options rueidis.ClientOption
	most    time.Duration // that a call may take; callMost but for tests
	log     *zap.Logger

	mu       sync.Mutex
	client   rueidis.Client // guarded by mu; nil until the server has answered once
	closed   bool           // guarded by mu
	dialing  bool           // guarded by mu
	failures int            // guarded by mu; in a row
	pause    time.Duration  // guarded by mu; 0 while it answers
	next     time.Time      // guarded by mu; when it may be asked again
	since    time.Time      // guarded by mu; when it began to fail
	last     error          // guarded by mu; why
	work     sync.WaitGroup // of dialling
	usual    atomic.Int64   // ns that a call takes, on average of late
}

// took returns how long a call takes, on average of late.
func (e *engine) took() time.Duration { return time.Duration(e.usual.Load()) }

// call makes one round trip. The error is errAway when none was made.
func (e *engine) call(ctx context.Context, do func(context.Context, rueidis.Client) error) error {
	c := e.admit()
	if c == nil {
		return errAway
	}
	limited, cancel := context.WithTimeout(ctx, e.most)
	defer cancel()
	began := time.Now()
	err := do(limited, c)
	was := e.usual.Load() // of two calls that end at once one counts
	e.usual.Store(was + (int64(time.Since(began))-was)/8)
	if rueidis.IsRedisNil(err) {
		err = nil
	}
	if ctx.Err() == nil {
		e.told(err)
	}
	return err
}

// admit returns the client when a call may be made: always while the engine answers, else one after each
// pause.
func (e *engine) admit() rueidis.Client {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pause > 0 {
		now := time.Now()
		if now.Before(e.next) {
			return nil
		}
		e.next = now.Add(e.pause)
	}
	if e.client == nil {
		e.dial()
	}
	return e.client
}

// dial connects in the background, since that may take longer than a call. e.mu is held.
func (e *engine) dial() {
	if e.dialing || e.closed {
		return
	}
	e.dialing = true
	e.work.Go(func() {
		c, err := rueidis.NewClient(e.options)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.dialing = false
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			err = fmt.Errorf("it hangs up, as one does that wants TLS, or is in protected mode since it has no password: %w", err)
		}
		if err != nil {
			e.fail(err)
			return
		}
		if e.closed {
			c.Close()
			return
		}
		e.client = c
		e.answered()
	})
}

// told learns how a call ended.
func (e *engine) told(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.answered()
		return
	}
	if e.failures++; e.failures >= failuresMost {
		e.fail(err)
	}
}

// answered notes that the engine answers. e.mu is held.
func (e *engine) answered() {
	if e.pause > 0 {
		e.log.Info("the fleet's engine answers again")
	}
	e.failures, e.pause = 0, 0
}

// fail leaves the engine alone for a while. e.mu is held.
func (e *engine) fail(err error) {
	now := time.Now()
	if e.pause == 0 {
		e.since = now
		e.log.Warn("the fleet's engine is left alone", logkey.Err(err))
	}
	e.last = err
	e.pause = min(max(2*e.pause, pauseLeast), pauseMost)
	e.next = now.Add(e.pause)
}

// away returns since when the engine is left alone, and why; zero while it answers.
func (e *engine) away() (time.Time, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pause == 0 {
		return time.Time{}, nil
	}
	return e.since, e.last
}

func (e *engine) close() {
	e.mu.Lock()
	c := e.client
	e.closed, e.client = true, nil
	e.mu.Unlock()
	e.work.Wait()
	if c != nil {
		c.Close()
	}
}
