// Package notify tells others by HTTP what happened: one POST for each event that a target wants.
//
// It promises that nothing in the mirror ever waits for a target, and that what does not arrive is
// counted and logged: each target has a queue of bounded length, which is lost when the process ends.
// A message may arrive twice, which its id shows.
//
// Warning: URLs and headers of targets are secrets (those of chats can be posted to by whoever knows
// them). Only names and hosts of targets are logged.
package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"text/template"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.uber.org/zap"
	"golang.org/x/net/http/httpproxy"
	"golang.org/x/time/rate"

	"forebay/cache/event"
	"forebay/internal/logkey"
	"forebay/internal/wire"
	"forebay/upstream/dial"
)

const (
	// queueMost are the messages that wait for one target.
	queueMost = 256
	// attemptsMost and the pauses between them give a target that is restarted some ten minutes. The
	// first pause is doubled each time, up to the last one; a target may ask for longer, within retryMost.
	attemptsMost = 8
	firstPause   = 2 * time.Second
	lastPause    = 4 * time.Minute
	retryMost    = 10 * time.Minute
	// answerMost is what is read of an answer, so that its connection can be used again.
	answerMost = 64 << 10
	// bodyMost bounds a message that a template makes.
	bodyMost = 256 << 10
	// attemptTime bounds one attempt, from the connection to the end of the answer.
	attemptTime = 15 * time.Second
)

// Target is one that is told.
type Target struct {
	Name   string
	URL    string
	Secret string // signs each message; "" signs none
	// Kinds are what it is told of; none: [Urgent].
	Kinds []event.Kind
	// Images are patterns of "docker.io/library/nginx:1.27", of which one must match where an event is about
	// an image; of events about a whole repository the part before the tag counts. None: all.
	Images      []string
	Template    string // of the body, see [Message]; "" makes the message as JSON
	ContentType string // "": application/json
	Headers     map[string]string
	CAFile      string // PEM certificates to trust beside the system's
}

// Urgent are the kinds of events that somebody may have to act on.
func Urgent() []event.Kind {
	return []event.Kind{event.ReleaseMoved, event.VerificationFailed, event.Quarantined, event.Vanished, event.Returned, event.Waiting, event.Refused, event.Promoted, event.TroubleBegan, event.TroubleEnded}
}

// Options are targets with what all of them need.
type Options struct {
	Targets []Target
	Mirror  string // our name, for messages
	// Ours are our own listeners, which are not told.
	Ours        *dial.Ours
	Environment *httpproxy.Config // proxies; nil means none
	UserAgent   string
	Log         *zap.Logger
}

// Notifier tells targets. Its methods may be called concurrently; its owner starts Run once.
type Notifier struct {
	mirror  string
	targets atomic.Pointer[[]*target]

	mu   sync.Mutex      // held while the targets are exchanged
	life context.Context // guarded by mu; of Run, nil before it
	work sync.WaitGroup
}

// target is one that is told: what waits for it, and how it is told now.
type target struct {
	name  string
	queue chan Message
	now   atomic.Pointer[way]
	end   context.CancelFunc // of its work; nil before that

	sent, failed, dropped atomic.Int64
	drops                 rate.Sometimes // bounds a warning
}

// way is a [Target] ready for use. It is not changed.
type way struct {
	Target
	key      []byte
	images   []pattern
	template *template.Template // nil: JSON
	client   *http.Client
	agent    string
	log      *zap.Logger
}

// Targets are targets ready for use.
type Targets []*way

// pattern is of whole names, and of names of repositories.
type pattern struct{ image, repository *regexp.Regexp }

// Figures are how messages to one target ended since the start.
type Figures struct {
	Target                string
	Sent, Failed, Dropped int64 // dropped: its queue was full, or the process ended
	Waiting               int
}

// New returns a notifier of these targets, for messages in the name of a mirror. Nothing is contacted.
func New(mirror string, all Targets) *Notifier {
	n := &Notifier{mirror: mirror}
	n.targets.Store(&[]*target{})
	n.Use(all)
	return n
}

// NewTargets reads targets, and the files that they name. Errors name the target and hold no secret.
func NewTargets(o Options) (all Targets, err error) {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	for _, t := range o.Targets {
		w, err := newWay(t, &o)
		if err != nil {
			return nil, fmt.Errorf("target %s: %w", t.Name, err)
		}
		all = append(all, w)
	}
	return all, nil
}

// Use has the notifier tell these targets from now on. What waits for one of them goes on waiting, and is sent
// as that is told now; what waits for one that is not among them is dropped.
func (n *Notifier) Use(all Targets) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	was := map[string]*target{}
	for _, t := range *n.targets.Load() {
		was[t.name] = t
	}
	var next []*target
	for _, w := range all {
		t := was[w.Name]
		if delete(was, w.Name); t == nil {
			t = &target{name: w.Name, queue: make(chan Message, queueMost), drops: rate.Sometimes{Interval: time.Minute}}
		}
		if old := t.now.Swap(w); old != nil {
			old.client.CloseIdleConnections()
		}
		next = append(next, t)
		n.begin(t)
	}
	n.targets.Store(&next)
	for _, t := range was {
		if t.end != nil {
			t.end()
		}
	}
}

// begin starts the work for a target unless it goes on, or Run has not begun. n.mu is held.
func (n *Notifier) begin(t *target) {
	if t.end != nil || n.life == nil {
		return
	}
	var ctx context.Context
	ctx, t.end = context.WithCancel(n.life)
	n.work.Go(func() { t.run(ctx) })
}

func newWay(t Target, o *Options) (*way, error) {
	base, err := url.Parse(t.URL)
	if err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http" {
		return nil, errors.New("its url is no http:// or https:// URL") // which may hold a secret
	}
	if len(t.Kinds) == 0 {
		t.Kinds = Urgent()
	}
	ready := &way{Target: t, agent: o.UserAgent, log: o.Log.With(zap.String("target", t.Name), logkey.Host(base.Host))}
	if ready.key, err = Key(t.Secret); err != nil {
		return nil, err
	}
	if t.Template != "" {
		if ready.template, err = ParseTemplate(t.Template); err != nil {
			return nil, err
		}
	}
	for _, text := range t.Images {
		p, err := compile(text)
		if err != nil {
			return nil, fmt.Errorf("images: %q: %w", text, err)
		}
		ready.images = append(ready.images, p)
	}
	// What the operator wrote may be at a private address; nothing that a name leads to else is.
	d, err := dial.New(base, dial.Options{
		Ours: o.Ours, Environment: o.Environment, TLS: dial.TLS{CAFile: t.CAFile},
		Connect: attemptTime / 3, Handshake: attemptTime / 3, FirstByte: attemptTime, IdleConns: 1,
	})
	if err != nil {
		return nil, err
	}
	transport, err := d.Transport()
	if err != nil {
		return nil, err
	}
	// A message is for whom the operator has named, and for nobody that it names.
	ready.client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return ready, nil
}

func compile(text string) (p pattern, err error) {
	if p.image, err = wire.CompilePattern(text); err != nil {
		return p, err
	}
	if i := strings.LastIndexByte(text, ':'); i > strings.LastIndexByte(text, '/') {
		text = text[:i]
	}
	p.repository, err = wire.CompilePattern(text)
	return p, err
}

// Key returns the bytes that a secret signs with: those of its text, or of what follows "whsec_", in
// base64, as Standard Webhooks write them.
func Key(secret string) ([]byte, error) {
	encoded, standard := strings.CutPrefix(secret, "whsec_")
	if !standard {
		return []byte(secret), nil
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) < 16 {
		return nil, errors.New("its secret begins with whsec_ and has no key of 16 bytes or more in base64 behind it")
	}
	return key, nil
}

// Tell queues an event for the targets that want it. It never waits.
func (n *Notifier) Tell(e event.Event) {
	if n == nil {
		return
	}
	var m Message
	for _, t := range *n.targets.Load() {
		w := t.now.Load()
		if !w.wants(&e) {
			continue
		}
		if m.ID == "" {
			m = message(n.mirror, e)
		}
		select {
		case t.queue <- m:
		default:
			t.dropped.Add(1)
			t.drops.Do(func() { w.log.Warn("notifications dropped: too many wait for the target", logkey.Count(queueMost)) })
		}
	}
}

func (t *way) wants(e *event.Event) bool {
	if !slices.Contains(t.Kinds, e.Kind) {
		return false
	}
	if len(t.images) == 0 || e.Repository == "" {
		return true
	}
	name := e.Upstream + "/" + e.Repository
	return slices.ContainsFunc(t.images, func(p pattern) bool {
		if e.Tag == "" {
			return wire.MatchesName(p.repository, name)
		}
		return wire.MatchesName(p.image, name+":"+e.Tag)
	})
}

// Run sends what is told, to each target in the order of the events, until ctx is done. What waits then
// is dropped.
func (n *Notifier) Run(ctx context.Context) error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	n.life = ctx
	for _, t := range *n.targets.Load() {
		n.begin(t)
	}
	n.mu.Unlock()
	<-ctx.Done()
	n.mu.Lock() // who begins work has begun it
	defer n.mu.Unlock()
	n.work.Wait()
	return ctx.Err()
}

func (t *target) run(ctx context.Context) {
	defer func() { t.now.Load().client.CloseIdleConnections() }()
	for {
		select {
		case <-ctx.Done():
			if left := len(t.queue); left > 0 {
				t.dropped.Add(int64(left))
				t.now.Load().log.Warn("notifications dropped: the mirror ends, or tells the target no more", logkey.Count(left))
			}
			return
		case m := <-t.queue:
			switch err := t.deliver(ctx, m); {
			case err == nil:
				t.sent.Add(1)
			case ctx.Err() != nil:
				t.dropped.Add(1)
			default:
				t.failed.Add(1)
				t.now.Load().log.Warn("notification given up", zap.String("kind", string(m.Kind)), logkey.Err(err))
			}
		}
	}
}

// deliver sends m until it has arrived, for which it waits between attempts.
func (t *target) deliver(ctx context.Context, m Message) error {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		w := t.now.Load()
		again, after, err := w.send(ctx, m)
		if err == nil || !again || attempt == attemptsMost {
			return err
		}
		w.log.Debug("notification failed, and is tried again", logkey.Err(err))
		// Half of it at random: targets that were away meet all who wait for them.
		wait := time.NewTimer(max(pause/2+rand.N(pause/2), min(after, retryMost)))
		pause = min(2*pause, lastPause)
		select {
		case <-ctx.Done():
			wait.Stop()
			return ctx.Err()
		case <-wait.C:
		}
	}
}

// send tries once, and reports whether it is worth trying again, and after which time at the earliest.
func (t *way) send(ctx context.Context, m Message) (again bool, after time.Duration, err error) {
	body, err := t.body(m)
	if err != nil {
		return false, 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(body))
	if err != nil {
		return false, 0, errors.New("its url cannot be posted to")
	}
	t.sign(req.Header, m.ID, body, time.Now())
	res, err := t.client.Do(req)
	if err != nil {
		var of *url.Error // whose text has the URL
		if errors.As(err, &of) {
			err = of.Err
		}
		return !errors.Is(err, dial.ErrRefused), 0, err
	}
	_, _ = io.CopyN(io.Discard, res.Body, answerMost)
	_ = res.Body.Close()
	switch code := res.StatusCode; {
	case code >= 200 && code < 300:
		return false, 0, nil
	case code >= 300 && code < 400:
		return false, 0, fmt.Errorf("it answered %d: redirects are not followed, name the place itself", code)
	case code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests, code >= 500:
		return true, wire.ParseRetryAfter(res.Header, "", time.Now()), fmt.Errorf("it answered %d", code)
	default:
		return false, 0, fmt.Errorf("it answered %d", code)
	}
}

// sign sets the headers of a message: those of Standard Webhooks 1.0.0, by which receivers refuse what is
// old or comes twice, and the one that GitHub sends, which most receivers know.
func (t *way) sign(h http.Header, id string, body []byte, now time.Time) {
	h.Set("User-Agent", t.agent)
	h.Set("Content-Type", "application/json")
	if t.ContentType != "" {
		h.Set("Content-Type", t.ContentType)
	}
	for name, value := range t.Headers {
		h.Set(name, value)
	}
	at := strconv.FormatInt(now.Unix(), 10)
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", at)
	if len(t.key) == 0 {
		return
	}
	mac := hmac.New(sha256.New, t.key)
	mac.Write(body)
	h.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	mac.Reset()
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}

// Figures returns how messages ended, by target.
func (n *Notifier) Figures() (all []Figures) {
	if n == nil {
		return nil
	}
	for _, t := range *n.targets.Load() {
		all = append(all, Figures{t.name, t.sent.Load(), t.failed.Load(), t.dropped.Load(), len(t.queue)})
	}
	return all
}

// Try sends a sample, at once and once, in the name of a mirror.
func (t *way) Try(ctx context.Context, mirror string) error {
	_, _, err := t.send(ctx, message(mirror, event.Event{Kind: t.Kinds[0], Upstream: wire.Hub, Repository: "library/sample", Tag: "1.2.3",
		Digest: v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}, Detail: "a sample, sent by forebay notify"}))
	return err
}
