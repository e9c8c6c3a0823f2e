package trouble

import (
	"errors"
	"strings"
	"testing"
	"time"

	"forebay/cache"
	"forebay/cache/health"
	"forebay/cache/store"
	"forebay/cache/upkeep"
	"forebay/internal/allowance"
	"forebay/internal/fleet"
	"forebay/internal/lane"
	"forebay/internal/pull"
	"forebay/upstream"
	"forebay/upstream/governor"
)

var now = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

func budget(change func(*upstream.Budget)) upstream.Budget {
	b := upstream.Budget{Credential: "anonymous", Statement: governor.Statement{Limit: 200, Remaining: 150, SeenAt: now}}
	change(&b)
	return b
}

func open() upstream.EndpointStatus {
	return upstream.EndpointStatus{URL: "https://one", Health: governor.Health{Open: true, Last: "refuses connections"}}
}

func TestWhatIsWrongIsSaidInWords(t *testing.T) {
	spent := budget(func(b *upstream.Budget) {
		b.Remaining, b.Returns = 0, now.Add(6*time.Hour)
		b.Spent = []governor.Spending{{Client: "10.0.0.1", Pulls: 30}, {Client: "10.0.0.2", Pulls: 40}, {Client: "10.0.0.1", Pulls: 20}}
	})
	hub := cache.UpstreamInfo{Name: "docker.io"}
	hub.LastAsked = now
	failing := hub
	failing.FailsFrom, failing.Good, failing.Bad, failing.Words = now.Add(-time.Minute), 1, 9, "has no address: the name hub.internal is not known"
	faulty := hub
	faulty.Faults = []health.Fault{{Repository: "team/secret", Things: 1, Times: 4, Since: now, Words: "answers 500 Internal Server Error"}}
	offline := failing
	offline.Offline = true
	disk := func(all ...store.Trouble) evidence {
		return evidence{stats: upkeep.Stats{Troubles: all, DiskFree: 1 << 20, DiskTotal: 24 << 20}, names: Names{MaxSize: "the size"}}
	}
	for name, tt := range map[string]struct {
		e           evidence
		want, cause string // "" means that nothing is wrong
		state       State
	}{
		"all is well":    {e: evidence{upstreams: []cache.UpstreamInfo{hub}}, state: Answers},
		"never asked":    {e: evidence{upstreams: []cache.UpstreamInfo{{Name: "docker.io"}}}, state: Unknown},
		"offline":        {e: evidence{upstreams: []cache.UpstreamInfo{offline}}, state: Offline},
		"limit":          {of(hub, upstream.Status{Budgets: []upstream.Budget{spent}}), "critical limit: Docker Hub: 0 of 200 pulls left", "Most was spent by 10.0.0.1: 50.", Limited},
		"other account":  {e: of(hub, upstream.Status{Budgets: []upstream.Budget{spent, budget(func(*upstream.Budget) {})}}), state: Answers},
		"refused":        {of(hub, upstream.Status{Budgets: []upstream.Budget{budget(func(b *upstream.Budget) { b.PausedUntil = now.Add(time.Minute) })}}), "critical limit: Docker Hub refuses pulls for a moment", "", Limited},
		"runs out":       {of(hub, upstream.Status{Budgets: []upstream.Budget{budget(func(b *upstream.Budget) { b.Remaining, b.RunsOut, b.Rate = 90, now.Add(20*time.Minute), 450 })}}), "warning budget: Docker Hub: 90 of 200 pulls left, and they run out soon", "450 pulls an hour", Answers},
		"a burst":        {e: of(hub, upstream.Status{Budgets: []upstream.Budget{budget(func(b *upstream.Budget) { b.RunsOut = now.Add(time.Minute) })}}), state: Answers},
		"lasts":          {e: of(hub, upstream.Status{Budgets: []upstream.Budget{budget(func(b *upstream.Budget) { b.RunsOut = now.Add(3 * time.Hour) })}}), state: Answers},
		"reserve":        {of(hub, upstream.Status{Budgets: []upstream.Budget{budget(func(b *upstream.Budget) { b.Remaining, b.Low = 9, true })}}), "warning budget: Docker Hub: 9 of 200 pulls left, less than the reserve", "", Answers},
		"fails":          {of(failing, upstream.Status{}), "critical upstream: Docker Hub has no address", "9 of the 10 requests of the last minute failed", Fails},
		"breaker":        {of(hub, upstream.Status{Endpoints: []upstream.EndpointStatus{open()}}), "critical upstream: Docker Hub refuses connections", "left alone", Fails},
		"one endpoint":   {of(hub, upstream.Status{Endpoints: []upstream.EndpointStatus{open(), {}}}), "warning endpoint: 1 of the 2 endpoints of Docker Hub fail", "https://one refuses connections", Answers},
		"all refused":    {of(hub, upstream.Status{Endpoints: []upstream.EndpointStatus{{PausedUntil: now}}}), "critical limit: Docker Hub refuses all requests of this address for a while", "", Limited},
		"repository":     {of(faulty, upstream.Status{}), "warning repository: Some requests to Docker Hub fail", "team/secret: it answers 500 Internal Server Error (4 requests)", Degraded},
		"full":           {e: disk(store.Trouble{What: store.Writing, Cause: "full", Why: "write /srv/x: no space"}, store.Trouble{What: store.Recording, Cause: "full"}), want: "critical disk: The disk is full", cause: "1.0 MiB of 24 MiB are free"},
		"read-only":      {e: disk(store.Trouble{What: store.Writing, Cause: "read-only"}), want: "critical disk: The disk is read-only"},
		"index":          {e: disk(store.Trouble{What: store.Recording, Cause: "broken"}), want: "critical index: The disk fails: the index cannot be written"},
		"bucket":         {e: disk(store.Trouble{What: "reading from the bucket", Cause: "bucket"}), want: "critical bucket: The bucket cannot be read"},
		"unreadable":     {e: evidence{unreadable: errors.New("/srv/x hangs")}, want: "critical disk: The store cannot be read"},
		"nearly full":    {e: evidence{stats: upkeep.Stats{DiskFree: 1, DiskTotal: 100}}, want: "warning disk: The disk is nearly full: 1 B of 100 B are free"},
		"too small":      {e: evidence{now: now, stats: upkeep.Stats{MaxBytes: 100, UsedBytes: 95}, hour: sample{at: now.Add(-time.Hour), all: 40, young: 30}}, want: "warning room: The store is too small for its use", cause: "30 of 40 files"},
		"old is dropped": {e: evidence{now: now, stats: upkeep.Stats{MaxBytes: 100, UsedBytes: 95}, hour: sample{at: now.Add(-time.Hour), all: 400, young: 30}}},
		"rot":            {e: evidence{now: now, wrong: [2]int64{0, 2}, wrongAt: now}, want: "warning verification: 2 contents without their digest were found", cause: "the disk spoils data"},
		"old rot":        {e: evidence{now: now, wrong: [2]int64{0, 2}, wrongAt: now.Add(-2 * time.Hour)}},
		"client":         {e: evidence{refused: map[refusal]refusals{{"10.0.0.7", "docker.io", "pulls"}: {n: 3, since: now}}}, want: "warning clients: A client has reached its limit", cause: "10.0.0.7 was refused 3 requests (it has spent its pulls)."},
		"queue":          {e: evidence{refused: map[refusal]refusals{{"10.0.0.7", "quay.io", "queue"}: {n: 3, since: now}}}, want: "critical clients: Too many requests wait for quay.io", cause: "3 requests"},
		"gone":           {e: evidence{gone: 3}, want: "notice gone: Gone from their registries, and kept here: 3", cause: "Registries say"},
		"gone mirror":    {e: evidence{mirrors: []fleet.Ailing{{Name: "m2", Gone: time.Now()}}}, want: "warning fleet: A mirror of the fleet is gone", cause: "m2 did not take its leave"},
		"other settings": {e: evidence{mirrors: []fleet.Ailing{{Name: "m2", Differs: []string{"a", "b"}}}}, want: "notice fleet: A mirror of the fleet has other settings", cause: "a, b"},
		"configuration":  {e: evidence{notices: []string{"listen: whoever reaches it can pull"}}, want: "notice configuration: A setting gives away what is secret", cause: "listen: whoever"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.e.now.IsZero() {
				tt.e.now = now
			}
			if tt.state != "" {
				u := tt.e.upstreams[0]
				if got := stateOf(u, tt.e.registries[u.Name], now); got != tt.state {
					t.Errorf("state %q, want %q", got, tt.state)
				}
			}
			all := judge(&tt.e)
			if tt.want == "" {
				if len(all) != 0 {
					t.Errorf("judge = %+v, want nothing", all)
				}
				return
			}
			if len(all) != 1 {
				t.Fatalf("judge = %+v, want one trouble", all)
			}
			one := all[0]
			if got := string(one.Severity) + " " + string(one.Kind) + ": " + one.What; got != tt.want {
				t.Errorf("it says %q, want %q", got, tt.want)
			}
			if !strings.Contains(one.Cause, tt.cause) {
				t.Errorf("cause %q, want %q in it", one.Cause, tt.cause)
			}
			if one.ID == "" || one.Cause == "" || one.Served == "" || one.Do == "" || one.View == "" || one.Command == "" {
				t.Errorf("%+v lacks something", one)
			}
			for _, secret := range []string{"team/secret", "10.0.0.7", "/srv", "hub.internal"} {
				if strings.Contains(one.What, secret) {
					t.Errorf("everybody is told %q", one.What)
				}
			}
		})
	}
}

func of(u cache.UpstreamInfo, s upstream.Status) evidence {
	return evidence{upstreams: []cache.UpstreamInfo{u}, registries: map[string]upstream.Status{u.Name: s}}
}

func TestWhichBoundWasReached(t *testing.T) {
	for want, err := range map[string]error{
		"":            errors.New("x"),
		"pulls":       allowance.Refused("docker.io", "a", allowance.ByPulls, "why", time.Second),
		"queue":       &pull.Error{Kind: pull.Overloaded, Err: lane.ErrFull},
		"connections": &pull.Error{Kind: pull.Overloaded},
	} {
		if got := LimitOf(err); got != want {
			t.Errorf("LimitOf(%v) = %q, want %q", err, got, want)
		}
	}
}
