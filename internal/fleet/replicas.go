package fleet

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// acquaintance is a mirror that was seen in the last hour.
type acquaintance struct {
	Member
	Called string // its name, with its address where several have that
	Here   bool
}

// known returns all mirrors of the last hour but those that took their leave, by their names.
func (f *Fleet) known() (list []acquaintance) {
	m := &f.peers.members
	m.mu.Lock()
	defer m.mu.Unlock()
	same := map[string]int{}
	for _, one := range m.all {
		if one.Leaving && !one.Self || time.Since(one.Seen) > forgetAfter {
			continue
		}
		same[one.Name]++
		list = append(list, acquaintance{*one, cmp.Or(one.Name, one.Address), one.Self || f.alive(one)})
	}
	for i := range list {
		if same[list[i].Name] > 1 {
			list[i].Called += " " + list[i].Address
		}
	}
	slices.SortFunc(list, func(a, b acquaintance) int { return strings.Compare(a.Called, b.Called) })
	return list
}

// Replica is what a mirror is to the fleet, as it says itself.
type Replica struct {
	ID         string            `json:"id"`
	Name       string            `json:"name"`
	Address    string            `json:"address"` // of its listener for the others
	Zone       string            `json:"zone,omitempty"`
	Version    string            `json:"version,omitempty"`
	State      string            `json:"state" enum:"here,silent,away"`
	StartedAt  time.Time         `json:"started_at,omitzero"`
	Seen       time.Time         `json:"seen,omitzero"` // of one that is away: when it was there last
	Led        int64             `json:"led"`           // requests to registries on behalf of all
	Followed   int64             `json:"followed"`      // the same, that another mirror answered
	Alone      int64             `json:"alone"`         // the same, although another may have asked
	BytesIn    int64             `json:"bytes_in"`      // from other mirrors
	BytesOut   int64             `json:"bytes_out"`     // to them
	EngineAway time.Time         `json:"engine_away_since,omitzero"`
	EngineTook float64           `json:"engine_seconds"` // of a call to the engine, on average of late
	Upstreams  map[string]string `json:"upstreams"`      // what names the settings of each
}

// Replica returns what this mirror is to the fleet, which has settings of these upstreams.
func (f *Fleet) Replica(upstreams []string) Replica {
	self, n := Member{ID: f.me, Name: f.name}, f.Figures()
	for _, one := range f.known() {
		if one.Self {
			self = one.Member
			self.Name = one.Called
		}
	}
	r := f.described(self, "here")
	r.Led, r.Followed, r.Alone = n.Led, n.Followed, n.ByItself
	r.BytesIn, r.BytesOut, r.EngineAway, r.EngineTook = n.BytesIn, n.BytesOut, n.Since, f.engine.took().Seconds()
	for _, name := range upstreams {
		if id := f.identity(name); id != "" {
			r.Upstreams[name] = f.secret.code("identity", id)[:8]
		}
	}
	return r
}

func (f *Fleet) described(m Member, state string) Replica {
	r := Replica{ID: m.ID, Name: m.Name, Address: m.Address, Zone: m.Zone, Version: m.Version, State: state, Upstreams: map[string]string{}}
	if m.Start > 0 {
		r.StartedAt = time.Unix(0, m.Start).UTC()
	}
	return r
}

// addAway adds to a list of replicas those that did not answer.
func addAway(o *Operators, answer map[string]any) {
	list, _ := answer["replicas"].([]any)
	told := map[any]bool{}
	for _, v := range list {
		fields, _ := v.(map[string]any)
		told[fields["id"]] = true
	}
	for _, one := range o.fleet.known() {
		if told[one.ID] || one.Self {
			continue
		}
		r := o.fleet.described(one.Member, "away")
		if one.Here {
			r.State = "silent"
		}
		r.Name, r.Seen = one.Called, one.Seen
		list = append(list, r)
	}
	answer["replicas"] = list
}

// Ailing is a mirror with which something is wrong.
type Ailing struct {
	Name    string
	Gone    time.Time // since when it is away without having said so; zero if it is there
	Differs []string  // upstreams of which it has other settings than we
}

// Ailing returns the mirrors with which something is wrong, as far as is known. It makes no call.
func (f *Fleet) Ailing() (list []Ailing) {
	differs := f.differs.Load()
	for _, one := range f.known() {
		a := Ailing{Name: one.Called}
		if !one.Here {
			a.Gone = one.Seen
		} else if differs != nil {
			a.Differs = (*differs)[one.ID]
		}
		if !a.Gone.IsZero() || len(a.Differs) > 0 {
			list = append(list, a)
		}
	}
	return list
}

// compare asks the other mirrors for their settings.
func (o *Operators) compare(ctx context.Context) {
	type told struct {
		Replicas []Replica `json:"replicas"`
	}
	path := apiPrefix + "/replicas"
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return // it is a path of ours
	}
	var ours, theirs told
	a := o.here(o.o.As(r, "", "read"), http.NoBody)
	if !a.ok() || json.Unmarshal(a.body.Bytes(), &ours) != nil || len(ours.Replicas) == 0 {
		return
	}
	differs := map[string][]string{}
	for _, a := range o.ask(ctx, errand{method: http.MethodGet, path: path, role: "read", bound: readMost}) {
		if !a.ok() || json.Unmarshal(a.body.Bytes(), &theirs) != nil || len(theirs.Replicas) == 0 {
			continue
		}
		for name, id := range theirs.Replicas[0].Upstreams {
			if mine := ours.Replicas[0].Upstreams[name]; mine != "" && mine != id {
				differs[a.from.ID] = append(differs[a.from.ID], name)
			}
		}
		slices.Sort(differs[a.from.ID])
		theirs = told{}
	}
	o.fleet.differs.Store(&differs)
}
