package fleet

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

const (
	// leadFor is how long a mirror leads that does not say that it still does, every renewEvery.
	leadFor    = 6 * time.Second
	renewEvery = 2 * time.Second
	// keptFor is how long the others know who has what was fetched. Nobody has to: who is asked in vain is
	// replaced by whoever asked.
	keptFor = 24 * time.Hour
	// idleFor is how long a lead is held after its last request: a fill asks for one range after the other.
	idleFor = time.Second
)

// turn is our place among the mirrors that want the same thing.
type turn struct {
	leads  bool   // we are to fetch it
	owner  string // ID of who fetches it, or has
	epoch  string // of this owner's lease
	parent string // whom to ask: the owner, or one that is nearer; of who leads again, one that may still have it
	kept   bool   // it was fetched whole by the owner
}

// beginScript makes the caller the owner of what nobody owns, or whose lease, by its epoch, he found to be
// dead. Others get a parent: the first of a zone has the owner, and each has at most so many children in
// its zone.
//
// KEYS: the lease. ARGV: ID, new epoch, life in ms, zone, children, epoch of a dead lease.
const beginScript = `
local v = redis.call('HMGET', KEYS[1], 'o', 'e', 's')
if v[1] and v[2] == ARGV[6] then redis.call('DEL', KEYS[1]) v = {false, false, false} end
local zone = ARGV[4]
if not v[1] then
  redis.call('HSET', KEYS[1], 'o', ARGV[1], 'e', ARGV[2], 'n' .. zone, 1, 'p1' .. zone, ARGV[1], 'm' .. ARGV[1], 1)
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {1, ARGV[1], ARGV[2], '', 0}
end
if v[1] == ARGV[1] then
  redis.call('HDEL', KEYS[1], 's')
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {1, v[1], v[2], redis.call('HGET', KEYS[1], 'l') or '', 0}
end
local n = redis.call('HGET', KEYS[1], 'm' .. ARGV[1])
if not n then
  n = redis.call('HINCRBY', KEYS[1], 'n' .. zone, 1)
  redis.call('HSET', KEYS[1], 'p' .. n .. zone, ARGV[1], 'm' .. ARGV[1], n, 'l', ARGV[1])
end
n = tonumber(n)
local parent = v[1]
if n > 1 then parent = redis.call('HGET', KEYS[1], 'p' .. (math.floor((n - 2) / tonumber(ARGV[5])) + 1) .. zone) or v[1] end
return {0, v[1], v[2], parent, v[3] and 1 or 0}`

// renewScript lengthens a lease, kept or not, or says that it is another's.
//
// KEYS: the lease. ARGV: ID, epoch, life in ms, what it is: "lead", "kept" or "gone".
const renewScript = `
local v = redis.call('HMGET', KEYS[1], 'o', 'e')
if v[1] ~= ARGV[1] or v[2] ~= ARGV[2] then return 0 end
if ARGV[4] == 'gone' then redis.call('DEL', KEYS[1]) return 1 end
if ARGV[4] == 'kept' then redis.call('HSET', KEYS[1], 's', 1) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1`

// begin says what our place is. dead is the epoch of a lease whose owner was not to be reached, or "".
func (f *Fleet) begin(ctx context.Context, key, dead string) (turn, error) {
	var v []rueidis.RedisMessage
	err := f.engine.call(ctx, func(ctx context.Context, c rueidis.Client) (err error) {
		v, err = f.scripts.begin.Exec(ctx, c, []string{key}, []string{f.me, rand.Text()[:8], number(leadFor.Milliseconds()), f.peers.self.Zone, strconv.Itoa(f.peers.fanout), dead}).ToArray()
		return err
	})
	if err == nil && len(v) != 5 {
		err = errors.New("the engine answered something else")
	}
	if err != nil {
		f.failed(err)
		return turn{}, err
	}
	text := func(i int) string {
		s, _ := v[i].ToString() // of another type it is nothing
		return s
	}
	leads, _ := v[0].AsInt64()
	kept, _ := v[4].AsInt64()
	return turn{leads: leads == 1, owner: text(1), epoch: text(2), parent: text(3), kept: kept == 1}, nil
}

// holds asks whether the owner of t still has its lease, and whether it has fetched all.
func (f *Fleet) holds(ctx context.Context, key string, t turn) (same, kept bool, err error) {
	var v []rueidis.RedisMessage
	err = f.engine.call(ctx, func(ctx context.Context, c rueidis.Client) (err error) {
		v, err = c.Do(ctx, c.B().Hmget().Key(key).Field("o", "e", "s").Build()).ToArray()
		return err
	})
	if err != nil || len(v) != 3 {
		f.failed(err)
		return false, false, err
	}
	owner, _ := v[0].ToString()
	epoch, _ := v[1].ToString()
	return owner == t.owner && epoch == t.epoch, !v[2].IsNil(), nil
}

// failed counts a call that failed, unless none was made.
func (f *Fleet) failed(err error) {
	if err != nil && !errors.Is(err, errAway) {
		f.counts.failed.Add(1)
	}
}

// lead is the right to fetch something, which lasts while requests are open, and a moment longer.
type lead struct {
	epoch string
	until time.Time // when it may be another's, unless it is renewed
	open  int       // requests
	bad   bool      // one failed, and none has succeeded since
	idle  time.Time // when the last one ended
	life  time.Duration
}

// leads are ours.
type leads struct {
	mu  sync.Mutex
	all map[string]*lead // guarded by mu; by key
}

// led reports whether we lead key already, and takes part in that. While nobody can say otherwise a lead
// is as good as renewed.
func (l *leads) led(key string, away bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.all[key]
	if one == nil || !away && time.Now().After(one.until) {
		return false // the process may have slept
	}
	one.open++
	return true
}

// add begins to lead key, or takes part in it: somebody else here may have got the same turn.
func (l *leads) add(key, epoch string, life time.Duration, asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.all[key]
	if one == nil || one.epoch != epoch {
		one = &lead{epoch: epoch, life: life}
		l.all[key] = one
	}
	one.until = asked.Add(leadFor - time.Second)
	one.open++
}

// leave ends a request of a lead.
func (l *leads) leave(key string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.all[key]; one != nil {
		one.open, one.bad, one.idle = one.open-1, !ok, time.Now()
	}
}

// renewal is what becomes of a lease: it is led on, kept for the others to know, or gone.
type renewal struct {
	key, epoch, what string
	life             time.Duration
}

// due returns what becomes of all leads, of which those end that nobody works at; at the end of the process
// all do.
func (l *leads) due(end bool) (list []renewal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, one := range l.all {
		r := renewal{key, one.epoch, "lead", leadFor}
		switch idle := one.open <= 0; {
		case !end && (!idle || time.Since(one.idle) < idleFor):
		case idle && !one.bad:
			r.what, r.life = "kept", one.life
		default:
			r.what = "gone"
		}
		if r.what != "lead" {
			delete(l.all, key)
		}
		list = append(list, r)
	}
	return list
}

// hold notes that a lease was renewed by a call that began at asked.
func (l *leads) hold(r renewal, asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.all[r.key]; one != nil && one.epoch == r.epoch {
		one.until = asked.Add(leadFor - time.Second)
	}
}

// lose drops a lead that has become another's. What goes on goes on; what comes next follows.
func (l *leads) lose(r renewal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.all[r.key]; one != nil && one.epoch == r.epoch {
		delete(l.all, r.key)
	}
}

// renewMost is how many leases are renewed in one call.
const renewMost = 256

// renew tells the engine what has become of our leases; at the end of the process they all go.
func (f *Fleet) renew(ctx context.Context, end bool) { f.tellLeases(ctx, f.leads.due(end)) }

func (f *Fleet) tellLeases(ctx context.Context, list []renewal) {
	for len(list) > 0 {
		n := min(len(list), renewMost)
		batch := make([]rueidis.LuaExec, n)
		for i, r := range list[:n] {
			batch[i] = rueidis.LuaExec{Keys: []string{r.key}, Args: []string{f.me, r.epoch, number(r.life.Milliseconds()), r.what}}
		}
		asked := time.Now()
		err := f.engine.call(ctx, func(ctx context.Context, c rueidis.Client) error {
			for i, answer := range f.scripts.renew.ExecMulti(ctx, c, batch...) {
				ours, err := answer.AsInt64()
				if err != nil {
					return err
				}
				if ours == 0 {
					f.leads.lose(list[i])
				} else {
					f.leads.hold(list[i], asked)
				}
			}
			return nil
		})
		f.failed(err)
		list = list[n:]
	}
}
