package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"forebay/internal/logkey"
)

const (
	// membersKey is the hash of all members: what each says of itself, by its ID.
	membersKey = "fb1:{members}"
	// beatEvery is how often a mirror says that it is there, and deadAfter how long one that does not
	// counts for. How often the others renew is seen here and now: no two clocks are compared.
	beatEvery = 5 * time.Second
	deadAfter = 15 * time.Second
	// forgetAfter is when the record of a dead one goes.
	forgetAfter = time.Hour
	// avoidFor is how long a mirror that could not be reached is not asked.
	avoidFor = 10 * time.Second
	// protocol is the version of what mirrors ask each other.
	protocol = 1
)

// Member is a mirror of the fleet, as it says itself.
type Member struct {
	ID       string    `json:"id"`
	Name     string    `json:"name,omitempty"` // what people call it
	Address  string    `json:"address"`        // host:port of its listener for the others
	Zone     string    `json:"zone,omitempty"`
	Version  string    `json:"version,omitempty"`
	Protocol int       `json:"protocol"`
	Start    int64     `json:"start"`             // of the process, which tells one from that before it
	Beat     int64     `json:"beat"`              // changes each time
	Leaving  bool      `json:"leaving,omitempty"` // it ends, and takes on nothing
	Seen     time.Time `json:"-"`                 // when Beat changed last, by our clock
	Self     bool      `json:"-"`
}

// members are the mirrors of the fleet.
type members struct {
	mu    sync.Mutex
	all   map[string]*Member // guarded by mu; by ID, of which some are dead
	avoid map[string]shunned // guarded by mu; by ID
}

// shunned is a mirror that is not asked.
type shunned struct {
	until  time.Time
	silent bool // it could be reached, and slept: it may be asked when it is awake
}

// beat says that we are there, and learns who else is.
func (f *Fleet) beat(ctx context.Context, leaving bool) error {
	f.peers.self.Beat, f.peers.self.Leaving = time.Now().UnixNano(), leaving
	text, err := json.Marshal(f.peers.self)
	if err != nil {
		return err
	}
	var told map[string]string
	err = f.engine.call(ctx, func(ctx context.Context, c rueidis.Client) error {
		answers := c.DoMulti(ctx,
			c.B().Hset().Key(membersKey).FieldValue().FieldValue(f.me, f.secret.sign("member "+f.me, string(text))).Build(),
			c.B().Hgetall().Key(membersKey).Build())
		if err := answers[0].Error(); err != nil {
			return err
		}
		told, err = answers[1].AsStrMap()
		return err
	})
	if err != nil {
		return err
	}
	f.forget(ctx, f.takeIn(told))
	m := &f.peers.members
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, one := range m.all {
		if _, ok := told[id]; !ok && !f.alive(one) {
			delete(m.all, id)
		}
	}
	return nil
}

// restarted returns a member as it is now, if it has started again since it was seen.
func (f *Fleet) restarted(ctx context.Context, was Member) (Member, bool) {
	var signed string
	err := f.engine.call(ctx, func(ctx context.Context, c rueidis.Client) (err error) {
		signed, err = c.Do(ctx, c.B().Hget().Key(membersKey).Field(was.ID).Build()).ToString()
		return err
	})
	if f.failed(err); err != nil || signed == "" {
		return was, false
	}
	f.takeIn(map[string]string{was.ID: signed})
	now, ok := f.peer(was.ID)
	return now, ok && now.Start != was.Start
}

// takeIn takes in what the engine says of all members, and returns whose record is of no use.
func (f *Fleet) takeIn(told map[string]string) (gone []string) {
	m, now := &f.peers.members, time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, signed := range told {
		one := Member{}
		text, ok := f.secret.open("member "+id, signed)
		if !ok || json.Unmarshal([]byte(text), &one) != nil || one.ID != id {
			f.counts.forged.Add(1)
			gone = append(gone, id)
			continue
		}
		one.Seen, one.Self = now, id == f.me
		switch was := m.all[id]; {
		case was == nil:
		case was.Beat == one.Beat:
			one.Seen = was.Seen
		case was.Start != one.Start || m.avoid[id].silent:
			delete(m.avoid, id)
		case one.Self && was.Address != one.Address:
			f.log.Warn("another mirror has our name in the fleet: was a storage folder copied?", logkey.Addr(one.Address))
		}
		if now.Sub(one.Seen) > forgetAfter {
			gone = append(gone, id)
			continue
		}
		m.all[id] = &one
	}
	return gone
}

// forget removes records of members.
func (f *Fleet) forget(ctx context.Context, ids []string) {
	if len(ids) == 0 {
		return
	}
	err := f.engine.call(ctx, func(ctx context.Context, c rueidis.Client) error {
		return c.Do(ctx, c.B().Hdel().Key(membersKey).Field(ids...).Build()).Error()
	})
	if err != nil && !errors.Is(err, errAway) {
		f.log.Debug("records of members not removed", zap.Strings("members", ids), logkey.Err(err))
	}
}

// peer returns a member that may be asked, false for one that is unknown, dead, leaving or was not to be
// reached a moment ago.
func (f *Fleet) peer(id string) (Member, bool) {
	m := &f.peers.members
	m.mu.Lock()
	defer m.mu.Unlock()
	one := m.all[id]
	if one == nil || !f.alive(one) || one.Self || time.Now().Before(m.avoid[id].until) {
		return Member{}, false
	}
	return *one, true
}

// alive reports whether one is there. Without the engine who was there last counts, since nobody can say
// so. f.peers.members.mu is held.
func (f *Fleet) alive(one *Member) bool {
	if one.Leaving || one.Protocol != protocol {
		return false
	}
	since, _ := f.engine.away()
	if since.IsZero() {
		since = time.Now()
	}
	return since.Sub(one.Seen) <= deadAfter
}

// shun leaves a member alone for a while: one that could not be reached, or was silent.
func (f *Fleet) shun(id string, silent bool) {
	m := &f.peers.members
	m.mu.Lock()
	defer m.mu.Unlock()
	m.avoid[id] = shunned{time.Now().Add(avoidFor), silent}
}

// Members returns who is there, by name, ourselves among them.
func (f *Fleet) Members() (list []Member) {
	m := &f.peers.members
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, one := range m.all {
		if f.alive(one) {
			list = append(list, *one)
		}
	}
	slices.SortFunc(list, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// chosen returns the member that all choose for a key who see the same members (rendezvous hashing), our
// own ID when it is us.
func (f *Fleet) chosen(key string) (id string) {
	best := uint64(0)
	for _, one := range f.Members() {
		if _, ok := f.peer(one.ID); !ok && !one.Self {
			continue
		}
		h := fnv.New64a()
		_, _ = h.Write([]byte(one.ID + "\x00" + key)) // it does not fail
		if n := mix(h.Sum64()); n >= best {
			best, id = n, one.ID
		}
	}
	return id
}

// mix spreads a hash whose last bytes hardly differ: the finalizer of MurmurHash3.
func mix(n uint64) uint64 {
	n = (n ^ n>>33) * 0xff51afd7ed558ccd
	n = (n ^ n>>33) * 0xc4ceb9fe1a85ec53
	return n ^ n>>33
}
