package activity

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"forebay/internal/nodes"
)

// AroundKind is how it shows that somebody does not pull through the mirror.
type AroundKind string

// The kinds.
const (
	SpentElsewhere AroundKind = "budget"    // a registry counted pulls that did not come from here
	OnlyManifests  AroundKind = "manifests" // a client asks for manifests, and gets the layers elsewhere
	FellSilent     AroundKind = "silent"    // a client asked on several days, and does not any more
	NeverAsked     AroundKind = "never"     // a client has a label, or is a node of the cluster, and was never seen
)

// Around is a sign that somebody does not pull through the mirror.
type Around struct {
	Kind     AroundKind `json:"kind"`
	Client   string     `json:"client,omitempty"` // address
	Name     string     `json:"name,omitempty"`   // of the client
	Upstream string     `json:"upstream,omitempty"`
	Pulls    int64      `json:"pulls,omitempty"` // of a budget: how many in the hour from Since on
	Since    time.Time  `json:"since,omitzero"`
	What     string     `json:"what"`
	// Engine is what pulls there, as forebay client-config calls it, and Line what is probably missing
	// in its configuration.
	Engine string `json:"engine"`
	Line   string `json:"line"`
}

const (
	elsewhereHours = 24  // for how long it is told that pulls were spent elsewhere
	seenMost       = 512 // clients whose days are remembered
	loneMost       = 16  // repositories of a client whose layers it has not asked for
	loneLeast      = 3   // from how many on that is no chance
	loneAfter      = 10 * time.Minute
	silentAfter    = 24 * time.Hour
	silentFor      = 14 * 24 * time.Hour // then it is taken for gone
	seenNote       = "activity.seen"
)

// around is what shows who goes past the mirror.
type around struct {
	mu    sync.Mutex
	past  map[string]int64    // guarded by mu; what others had spent of each upstream's budget at the last look
	hours []Around            // guarded by mu; pulls spent elsewhere by hour and upstream, oldest first
	seen  map[string]*regular // guarded by mu; by address
}

// regular is a client by the days on which it came. It is stored.
type regular struct {
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Days  int       `json:"days"`
	Agent string    `json:"agent"`
}

// spent takes in how many pulls others had spent of each budget.
func (a *around) spent(now time.Time, elsewhere map[string]int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	hour := now.Truncate(time.Hour)
	for name, n := range elsewhere {
		before, known := a.past[name]
		if more := n - before; known && more > 0 {
			i := slices.IndexFunc(a.hours, func(o Around) bool { return o.Upstream == name && o.Since.Equal(hour) })
			if i < 0 {
				i = len(a.hours)
				a.hours = append(a.hours, Around{Kind: SpentElsewhere, Upstream: name, Since: hour})
			}
			a.hours[i].Pulls += more
		}
	}
	a.past = elsewhere
	a.hours = slices.DeleteFunc(a.hours, func(o Around) bool { return now.Sub(o.Since) > elsewhereHours*time.Hour })
}

// meet takes in when clients came.
func (a *around) meet(clients []ClientInfo) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range clients {
		s := a.seen[c.Address]
		if s == nil {
			if len(a.seen) >= seenMost {
				a.forget()
			}
			s = &regular{First: c.LastSeen}
			a.seen[c.Address] = s
		}
		if day := c.LastSeen.Truncate(24 * time.Hour); s.Last.Before(day) {
			s.Days++
		}
		s.Last, s.Agent = c.LastSeen, c.UserAgent
	}
}

// forget drops who came on the fewest days, and of those the first. a.mu is held.
func (a *around) forget() {
	least := ""
	for address, s := range a.seen {
		if o := a.seen[least]; o == nil || cmp.Or(cmp.Compare(s.Days, o.Days), s.Last.Compare(o.Last)) < 0 {
			least = address
		}
	}
	delete(a.seen, least)
}

func (a *around) encode() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	b, err := json.Marshal(a.seen)
	if err != nil {
		panic("activity: who was seen cannot be JSON: " + err.Error()) // texts, numbers and times can
	}
	return b
}

func (a *around) decode(b []byte) error {
	seen := map[string]*regular{}
	if err := json.Unmarshal(b, &seen); err != nil {
		return fmt.Errorf("stored clients: %w", err)
	}
	for address, s := range seen {
		if s == nil || len(a.seen) == seenMost {
			continue
		}
		a.seen[clip(address, addressLen)] = s
	}
	return nil
}

// engineOf returns what a client pulls with, as forebay client-config calls it, by what it calls
// itself; "" for a tool that only looks.
func engineOf(agent string) string {
	agent = strings.ToLower(agent)
	for _, e := range [][2]string{{"docker/", "dockerd"}, {"containerd/", "containerd"}, {"cri-o/", "crio"}, {"containers/", "podman"}, {"podman/", "podman"}, {"buildkit/", "buildkit"}, {"k3s", "k3s"}} {
		if strings.HasPrefix(agent, e[0]) {
			return e[1]
		}
	}
	return ""
}

// lineOf is what is probably missing in the configuration of an engine.
func lineOf(engine string, kind AroundKind) string {
	switch {
	case engine == "dockerd":
		return `"registry-mirrors" in /etc/docker/daemon.json`
	case engine == "podman" || engine == "crio":
		return "[[registry.mirror]] in /etc/containers/registries.conf.d/"
	case engine == "buildkit":
		return `mirrors of [registry."docker.io"] in buildkitd.toml`
	case engine == "k3s":
		return "mirrors in /etc/rancher/k3s/registries.yaml"
	case kind == OnlyManifests:
		return `"pull" among the capabilities in /etc/containerd/certs.d/_default/hosts.toml`
	}
	return `config_path = "/etc/containerd/certs.d" in config.toml, and hosts.toml below it`
}

// Around returns the signs that somebody does not pull through the mirror, those with the most pulls
// first and then the latest. None of them is proof.
func (r *Recorder) Around() []Around {
	now := time.Now()
	r.sample()
	all := r.top.lone(now)
	a := &r.around
	a.meet(r.clients(Start, clientsMost))
	a.mu.Lock()
	for _, o := range a.hours {
		o.What = fmt.Sprintf("%d pulls of %s were spent past this mirror, with its address or account", o.Pulls, o.Upstream)
		o.Engine, o.Line = "dockerd", lineOf("dockerd", SpentElsewhere)
		all = append(all, o)
	}
	for address, s := range a.seen {
		if quiet := now.Sub(s.Last); s.Days >= 2 && quiet > silentAfter && quiet < silentFor {
			engine := cmp.Or(engineOf(s.Agent), "containerd")
			all = append(all, Around{Kind: FellSilent, Client: address, Since: s.Last, Engine: engine, Line: lineOf(engine, FellSilent),
				What: fmt.Sprintf("asked on %d days, and nothing for %d hours", s.Days, int(quiet.Hours()))})
		}
	}
	if n := r.opts.Names; n != nil {
		for _, l := range n.labels() {
			if l.Network.IsSingleIP() && a.seen[l.Network.Addr().String()] == nil {
				all = append(all, neverAsked(l.Network.Addr().String(), "has a name here, and never asked for anything"))
			}
		}
		all = append(all, a.nodes(now, n.nodes())...)
	}
	a.mu.Unlock()
	for i := range all {
		all[i].Name = cmp.Or(all[i].Name, r.opts.Names.Of(all[i].Client))
	}
	slices.SortFunc(all, func(a, b Around) int {
		return cmp.Or(cmp.Compare(b.Pulls, a.Pulls), b.Since.Compare(a.Since), cmp.Compare(a.Client, b.Client))
	})
	return all
}

func neverAsked(client, what string) Around {
	return Around{Kind: NeverAsked, Client: client, Engine: "containerd", Line: lineOf("containerd", NeverAsked), What: what}
}

// nodeAfter is how long a node has joined before it is missed.
const nodeAfter = 10 * time.Minute

// nodes returns the nodes of the cluster that were never seen. Where none was, their addresses may be
// hidden, which is told once. a.mu is held.
func (a *around) nodes(now time.Time, list []nodes.Node) (all []Around) {
	if len(a.seen) >= seenMost {
		return nil // some were forgotten
	}
	var seen []netip.Addr
	for address := range a.seen {
		if ip, err := netip.ParseAddr(address); err == nil {
			seen = append(seen, ip.Unmap())
		}
	}
	old := 0
	for _, n := range list {
		if len(n.From) == 0 || now.Sub(n.Since) < nodeAfter {
			continue
		}
		old++
		if !slices.ContainsFunc(n.From, func(p netip.Prefix) bool { return slices.ContainsFunc(seen, p.Contains) }) {
			one := neverAsked(n.From[0].Addr().String(), "is a node of the cluster, and never asked for anything")
			one.Name, one.Since = n.Name, n.Since
			all = append(all, one)
		}
	}
	if len(all) > 1 && len(all) == old {
		one := neverAsked("", fmt.Sprintf("none of the %d nodes of the cluster has asked under an address of its own: they do not pull through here, or a load balancer hides who they are", old))
		one.Name = "all nodes"
		return []Around{one}
	}
	return all
}

// wants notes that a client has got a manifest that was new here, and that it asks for a blob of the repository.
func (e *entry[K]) wants(q *Request, what result, now time.Time) {
	name := q.Upstream + "/" + q.Repository
	switch {
	case q.Blob:
		e.blobs, e.lone = true, nil
	case q.Pull && (what == miss || what == joined) && !e.blobs && len(e.lone) < loneMost:
		if e.lone == nil {
			e.lone = map[string]time.Time{}
		}
		if _, known := e.lone[name]; !known {
			e.lone[clip(name, upstreamLen+repositoryLen)] = now
		}
	}
}

// lone returns the clients that got manifests that were new here, of several repositories, and never
// asked for a blob: what they have of before cannot be all of what was new.
func (t *top) lone(now time.Time) []Around {
	all := []Around{}
	t.mu.Lock()
	defer t.mu.Unlock()
	for address, e := range t.clients.entries {
		n, since := 0, now
		for _, at := range e.lone {
			if now.Sub(at) >= loneAfter {
				n++
			}
			if at.Before(since) {
				since = at
			}
		}
		if engine := engineOf(e.agent); n >= loneLeast && engine != "" {
			all = append(all, Around{Kind: OnlyManifests, Client: address, Since: since, Engine: engine, Line: lineOf(engine, OnlyManifests),
				What: fmt.Sprintf("got manifests of %d repositories that were new here, and none of their layers", n)})
		}
	}
	return all
}
