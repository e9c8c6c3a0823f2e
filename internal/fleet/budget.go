package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"forebay/upstream"
	"forebay/upstream/governor"
)

const (
	// wordFor is how long what a registry said is kept: as long as the longest window in use.
	wordFor = 25 * time.Hour
	// probeFor is how long one mirror's probe keeps the others from sending one.
	probeFor = 3 * time.Second
	// turnEvery is how often it is looked whether another mirror still spends.
	turnEvery = 250 * time.Millisecond
)

// limits are what the registries said of theirs, as we last told it.
type limits struct {
	registries func() []*upstream.Registry // nil: of none

	mu   sync.Mutex
	told map[string]governor.Word // guarded by mu; by key of the upstream and name of the limit
}

// ShareLimits has mirrors tell each other what the registries say of their limits, and send one probe of a
// registry that refuses between them. It must be called before Run.
func (f *Fleet) ShareLimits(registries func() []*upstream.Registry) { f.limits.registries = registries }

// Adopt has the probes of a registry be shared.
func (f *Fleet) Adopt(r *upstream.Registry) {
	for _, l := range r.Limits() {
		l.Gate.Share(func() bool { return f.mayProbe(r.Name(), l.Name) })
	}
}

// limitsKey is that of the hash of what a registry said; "" where nothing of it is shared.
func (f *Fleet) limitsKey(name string) string {
	if id := f.identity(name); id != "" {
		return "fb1:{a:" + f.secret.code("limits", id) + "}"
	}
	return ""
}

// mayProbe reports whether we are to ask if a registry still refuses. Alone we are.
func (f *Fleet) mayProbe(name, limit string) bool {
	key := f.limitsKey(name)
	if key == "" {
		return true
	}
	mine := false
	err := f.engine.call(context.Background(), func(ctx context.Context, c rueidis.Client) error {
		err := c.Do(ctx, c.B().Set().Key(key+"!"+f.secret.code(limit)).Value(f.me).Nx().Px(probeFor).Build()).Error()
		mine = err == nil
		if rueidis.IsRedisNil(err) {
			return nil
		}
		return err
	})
	f.failed(err)
	return mine || err != nil
}

// wordOf returns what is known of a limit.
func wordOf(l upstream.Limit) (w governor.Word) {
	if l.Account != nil {
		w.Said, w.At = l.Account.Word()
	}
	l.Gate.Word(&w)
	return w
}

// exchange tells the others what a registry said since we last did, and learns what it said to them. Each
// has fields of its own, so that nobody overwrites what is newer. f.limits.mu is held.
func (f *Fleet) exchange(ctx context.Context, r *upstream.Registry) {
	key := f.limitsKey(r.Name())
	if key == "" {
		return
	}
	ours, list := map[string]string{}, r.Limits()
	for _, l := range list {
		w := wordOf(l)
		if was := f.limits.told[key+l.Name]; w == was || w.At.IsZero() && w.Shut.IsZero() {
			continue
		}
		text, err := json.Marshal(w)
		if err != nil {
			continue // times of a year beyond 9999
		}
		field := l.Name + "\x00" + f.me
		ours[field] = f.secret.sign("limit "+key+field, string(text))
		f.limits.told[key+l.Name] = w
	}
	var theirs map[string]string
	err := f.engine.call(ctx, func(ctx context.Context, c rueidis.Client) (err error) {
		all := []rueidis.Completed{c.B().Hgetall().Key(key).Build()}
		if len(ours) > 0 {
			set := c.B().Hset().Key(key).FieldValue()
			for name, text := range ours {
				set = set.FieldValue(name, text)
			}
			all = append(all, set.Build(), c.B().Pexpire().Key(key).Milliseconds(wordFor.Milliseconds()).Build())
		}
		answers := c.DoMulti(ctx, all...)
		for _, one := range answers[1:] {
			err = errors.Join(err, one.Error())
		}
		if err == nil {
			theirs, err = answers[0].AsStrMap()
		}
		return err
	})
	if f.failed(err); err != nil {
		clear(f.limits.told) // some of it was not
		return
	}
	for field, signed := range theirs {
		var w governor.Word
		name, from, _ := strings.Cut(field, "\x00")
		i := slices.IndexFunc(list, func(l upstream.Limit) bool { return l.Name == name })
		if from == f.me || i < 0 {
			continue
		}
		if text, ok := f.secret.open("limit "+key+field, signed); !ok || json.Unmarshal([]byte(text), &w) != nil || w.At.After(time.Now().Add(skew)) {
			f.counts.forged.Add(1)
			continue
		}
		l := list[i]
		if l.Account != nil {
			l.Account.Learn(w.Said, w.At)
		}
		l.Gate.Learn(w)
		f.limits.told[key+l.Name] = wordOf(l)
	}
}

// exchangeAll is exchange with the registry of that name, or with "" with all that said something of
// their limits.
func (f *Fleet) exchangeAll(ctx context.Context, name string) {
	if f.limits.registries == nil {
		return
	}
	f.limits.mu.Lock()
	defer f.limits.mu.Unlock()
	for _, r := range f.limits.registries() {
		spoke := func(l upstream.Limit) bool { w := wordOf(l); return !w.At.IsZero() || !w.Shut.IsZero() }
		if r.Name() == name || name == "" && slices.ContainsFunc(r.Limits(), spoke) {
			f.exchange(ctx, r)
		}
	}
}

// Spend waits until no other mirror spends pulls of a registry that nobody waits for, and learns what is
// left. Its caller spends one then, looks at what is left, and calls done. While the engine does not answer
// nothing is spent: nobody knows what the others do. The error is ctx's.
func (f *Fleet) Spend(ctx context.Context, name string) (done func(), err error) {
	key := f.limitsKey(name)
	if key == "" {
		return func() {}, nil
	}
	lease := key + "!spend"
	for {
		asked := time.Now()
		t, err := f.begin(ctx, lease, "")
		if err == nil && t.leads {
			f.leads.add(lease, t.epoch, 0, asked)
			f.exchangeAll(ctx, name)
			return func() {
				f.exchangeAll(context.WithoutCancel(ctx), name)
				r := renewal{lease, t.epoch, "gone", leadFor}
				f.leads.lose(r)
				f.tellLeases(context.WithoutCancel(ctx), []renewal{r})
			}, nil
		}
		select {
		case <-time.After(turnEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
