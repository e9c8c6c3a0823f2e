// Package fleet lets several mirrors behind one balancer share what one of them was told: what a tag
// points to.
//
// It promises that a registry is asked once for a tag by all mirrors together, as long as the engine
// answers; that nothing in the engine is believed that no mirror with the same secret and the same settings
// of the upstream wrote lately; and that a mirror goes on alone, whatever the engine does: a call takes
// 50 ms at most, and after three that failed none is made for a while. The engine is a server of the Redis
// protocol. It is the only place of nothing.
//
// Warning: what is true is told by the clocks of the mirrors. One that differs by more than a tag's time
// to live shares nothing.
package fleet

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"forebay/internal/pull"
	"forebay/internal/wire"
	"forebay/upstream/governor"
)

const (
	// leaseFor is how long a mirror may ask a registry before another takes over.
	leaseFor = 5 * time.Second
	// followMost is how long a mirror waits for what another asks; then it asks itself.
	followMost = 2 * time.Second
	// The engine is looked at again after lookLeast, then less often.
	lookLeast = 5 * time.Millisecond
	lookMost  = 100 * time.Millisecond
	// skew is how far in the future a fact may be, by another's clock.
	skew = 2 * time.Second
	// keepMost is how long a fact stays in the engine.
	keepMost = 24 * time.Hour
)

// Options configures a [Fleet]. Engine, Secret and Identity are required.
type Options struct {
	Engine   string // URL: valkey, redis, rediss or sentinel
	Password string
	Secret   []byte // one for all mirrors
	// Identity names what the answers of an upstream depend on; "" is that of one whose answers are
	// not shared.
	Identity func(upstream string) string
	// Name is what the mirror is called, for people.
	Name string
	// Zone is where the mirror is: what comes from another zone comes once. Fanout is how many mirrors
	// get the same thing from one at a time; 0 means 4.
	Zone    string
	Fanout  int
	Version string      // of the program, for the others to see
	Log     *zap.Logger // nil means no logging
}

// Fleet is what mirrors know together. Its methods may be called concurrently.
type Fleet struct {
	engine   *engine
	secret   secret
	identity func(string) string
	me       string                              // what tells our leases from others'
	differs  atomic.Pointer[map[string][]string] // by ID of a mirror: upstreams of which it has other settings
	name     string
	log      *zap.Logger
	counts   counts
	peers    peers
	leads    leads
	limits   limits

	scripts struct{ join, publish, release, begin, renew *rueidis.Lua }
}

type counts struct {
	shared, asked, alone, duplicates, forged, failed      atomic.Int64
	led, followed, byItself, takeovers, bytesIn, bytesOut atomic.Int64
}

// New returns the fleet of o. Nothing is contacted before it is needed.
func New(o Options) (*Fleet, error) {
	options, err := clientOptions(o.Engine, o.Password)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	f := &Fleet{engine: &engine{options: options, most: callMost, log: o.Log}, secret: o.Secret, identity: o.Identity, me: rand.Text(), name: o.Name, log: o.Log, leads: leads{all: map[string]*lead{}}, limits: limits{told: map[string]governor.Word{}}}
	s := &f.scripts
	s.join, s.publish, s.release = rueidis.NewLuaScript(joinScript), rueidis.NewLuaScript(publishScript), rueidis.NewLuaScript(releaseScript)
	s.begin, s.renew = rueidis.NewLuaScript(beginScript), rueidis.NewLuaScript(renewScript)
	return f, f.peers.init(f, o)
}

// Name returns the name that all mirrors of the fleet have.
func (f *Fleet) Name() string {
	return f.secret.code("name")[:26]
}

// Close ends the connections. Nothing may be called after it.
func (f *Fleet) Close() {
	f.peers.client.CloseIdleConnections()
	f.engine.close()
}

// Figures are what was counted since the start.
type Figures struct {
	Shared     int64     // tags that another mirror had been told of
	Asked      int64     // tags that a registry was asked for, on behalf of all
	Alone      int64     // tags that a registry was asked for, since the engine did not answer
	Duplicates int64     // tags that a registry was asked for although another mirror did
	Forged     int64     // facts that no mirror of ours wrote
	Failed     int64     // calls to the engine
	Led        int64     // requests to registries for blobs and manifests, on behalf of all
	Followed   int64     // the same, that another mirror answered
	ByItself   int64     // the same to registries although another mirror may have asked
	Takeovers  int64     // of those led, in place of a mirror that did not answer
	BytesIn    int64     // from other mirrors
	BytesOut   int64     // to other mirrors
	Members    int       // that are there
	Since      time.Time // since when the engine is left alone; zero while it answers
	Err        error     // why
}

// Figures returns what was counted. It makes no call.
func (f *Fleet) Figures() Figures {
	n := Figures{Shared: f.counts.shared.Load(), Asked: f.counts.asked.Load(), Alone: f.counts.alone.Load(),
		Duplicates: f.counts.duplicates.Load(), Forged: f.counts.forged.Load(), Failed: f.counts.failed.Load(),
		Led: f.counts.led.Load(), Followed: f.counts.followed.Load(), ByItself: f.counts.byItself.Load(), Takeovers: f.counts.takeovers.Load(),
		BytesIn: f.counts.bytesIn.Load(), BytesOut: f.counts.bytesOut.Load()}
	n.Since, n.Err = f.engine.away()
	n.Members = len(f.Members())
	return n
}

// Confirm returns what a tag points to, and when a registry said so: as another mirror was told after
// since and within ttl, or else by ask. What ask returns is told to the others, unless it was not
// confirmed itself.
func (f *Fleet) Confirm(ctx context.Context, upstream, repo, tag string, since time.Time, ttl time.Duration, ask func(context.Context) (v1.Descriptor, error)) (v1.Descriptor, time.Time, error) {
	id := f.identity(upstream)
	if id == "" || ttl <= 0 {
		at := time.Now()
		desc, err := ask(ctx)
		return desc, at, err
	}
	sum := sha256.Sum256([]byte(strings.Join([]string{id, repo, tag, pull.Accept(ctx)}, "\x00")))
	t := &question{f: f, key: "fb1:{t:" + hex.EncodeToString(sum[:16]) + "}", since: since, ttl: ttl}
	fact, leads, err := t.wait(ctx)
	if fact != nil {
		f.counts.shared.Add(1)
		return fact.desc, fact.at, nil
	}
	at := time.Now()
	desc, askErr := ask(ctx)
	switch {
	case leads:
		f.counts.asked.Add(1)
	case err != nil:
		f.counts.alone.Add(1)
	default:
		f.counts.duplicates.Add(1)
	}
	switch confirmed := desc; {
	case askErr == nil && !pull.TakeStale(&confirmed):
		if ours := t.publish(ctx, &said{desc, at}); leads && !ours {
			f.counts.duplicates.Add(1) // it took so long that somebody else asked meanwhile
		}
	case leads:
		t.release(ctx)
	}
	return desc, at, askErr
}

// said is what a registry said of a tag.
type said struct {
	desc v1.Descriptor
	at   time.Time // before it was asked
}

// question is one tag that a mirror wants to know.
type question struct {
	f     *Fleet
	key   string
	since time.Time
	ttl   time.Duration
	wrong bool // what the engine holds is not to be believed, and to be replaced
}

func (t *question) lease() string { return t.key + "!" }

// joinScript returns a fact that is new enough, else takes the right to ask if nobody has it.
const joinScript = `
local v = redis.call('GET', KEYS[1])
if v and tonumber(string.sub(v, 1, 13)) and tonumber(string.sub(v, 1, 13)) >= tonumber(ARGV[3]) then return {v, 0} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('GET', KEYS[2]) == ARGV[1] then return {'', 1} end
return {'', 0}`

// publishScript keeps a fact, unless a newer one is there: a mirror that slept between question and answer
// takes nothing back. Its right to ask ends.
const publishScript = `
local v = redis.call('GET', KEYS[1])
if not v or not tonumber(string.sub(v, 1, 13)) or tonumber(string.sub(v, 1, 13)) < tonumber(ARGV[3]) or ARGV[5] == '1' then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[4]) end
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[2])
return 1`

// releaseScript ends the right to ask.
const releaseScript = `
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1`

// wait returns what is known, or whether we are to ask for all. Without either we ask for ourselves:
// the engine does not answer, which is the error, or the one who asks takes too long.
func (t *question) wait(ctx context.Context) (*said, bool, error) {
	deadline := time.Now().Add(followMost)
	for pause := lookLeast; ; pause = min(2*pause, lookMost) {
		fact, leads, err := t.join(ctx)
		if fact != nil || leads || err != nil || t.wrong || time.Now().After(deadline) {
			return fact, leads, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
}

func (t *question) join(ctx context.Context) (fact *said, leads bool, err error) {
	least := max(t.since.UnixMilli()+1, time.Now().Add(-t.ttl).UnixMilli())
	var parts []rueidis.RedisMessage
	err = t.f.engine.call(ctx, func(ctx context.Context, c rueidis.Client) (err error) {
		parts, err = t.f.scripts.join.Exec(ctx, c, []string{t.key, t.lease()}, []string{t.f.me, number(leaseFor.Milliseconds()), number(least)}).ToArray()
		return err
	})
	if err == nil && len(parts) != 2 {
		err = errors.New("the engine answered something else")
	}
	if err != nil {
		t.f.failed(err)
		return nil, false, err
	}
	text, _ := parts[0].ToString()
	if n, _ := parts[1].AsInt64(); n == 1 {
		return nil, true, nil
	}
	if text == "" {
		return nil, false, nil
	}
	if fact = t.believe(text, least); fact == nil {
		t.f.counts.forged.Add(1)
		t.wrong = true
		return nil, false, nil
	}
	return fact, false, nil
}

// publish tells the others, and reports whether we still had the right to ask, as far as is known. That it
// may not arrive costs them a question.
func (t *question) publish(ctx context.Context, fact *said) (ours bool) {
	keep, force := max(min(2*t.ttl, keepMost), time.Minute), "0"
	if t.wrong {
		force = "1"
	}
	return t.tell(ctx, t.f.scripts.publish, []string{t.key, t.lease()}, []string{t.f.me, t.text(fact), number(fact.at.UnixMilli()), number(keep.Milliseconds()), force})
}

func (t *question) release(ctx context.Context) {
	t.tell(ctx, t.f.scripts.release, []string{t.lease()}, []string{t.f.me})
}

func (t *question) tell(ctx context.Context, script *rueidis.Lua, keys, args []string) (done bool) {
	// Who asked may have gone; the others wait all the same.
	ctx = context.WithoutCancel(ctx)
	n := int64(1)
	err := t.f.engine.call(ctx, func(ctx context.Context, c rueidis.Client) (err error) {
		n, err = script.Exec(ctx, c, keys, args).AsInt64()
		return err
	})
	t.f.failed(err)
	return err != nil || n == 1
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// text returns a fact as the engine keeps it: when it was told, digest, size and media type, and a code
// that only a mirror with the secret can make, of this and the key.
func (t *question) text(fact *said) string {
	return t.f.secret.sign(t.key, fmt.Sprintf("%013d %s %d %s", fact.at.UnixMilli(), fact.desc.Digest, fact.desc.Size, fact.desc.MediaType))
}

// believe returns the fact of a text, nil if none of ours wrote it, or it is from the future.
func (t *question) believe(text string, least int64) *said {
	text, ok := t.f.secret.open(t.key, text)
	fields := strings.SplitN(text, " ", 4)
	if !ok || len(fields) != 4 {
		return nil
	}
	ms, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil || ms < least || time.UnixMilli(ms).After(time.Now().Add(skew)) {
		return nil
	}
	d, err := wire.ParseDigest(fields[1])
	if err != nil {
		return nil
	}
	size, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil || size < 0 {
		return nil
	}
	return &said{v1.Descriptor{Digest: d, Size: size, MediaType: types.MediaType(fields[3])}, time.UnixMilli(ms)}
}
